"""The API of a daemon that holds money: what both roles have, and where it is served."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from cromford.adapters.bitcoind import BitcoindChain
from cromford.answers.status import Stopping
from cromford.daemon import safekeeping
from cromford.daemon.api import events, rescan, wallet
from cromford.daemon.api import tokens as token_api
from cromford.daemon.api import webhooks as webhook_api
from cromford.daemon.api.calling import SOCKET_NAME
from cromford.daemon.api.document import document_of
from cromford.daemon.api.endpoints import Answers, endpoints
from cromford.daemon.api.gate import TokenGate
from cromford.daemon.api.handlers import Handler, Params, without_params
from cromford.daemon.api.page import PageFront
from cromford.daemon.api.page_files import page_files
from cromford.daemon.api.server import ApiServer, TcpListener
from cromford.daemon.api.sessions import Sessions
from cromford.daemon.api.tokens import Tokens
from cromford.daemon.event_filter import EVENTS_OF
from cromford.daemon.event_log import EventLog
from cromford.daemon.webhooks.delivering import Webhooks

SHARED_PARAMS: Final[Params] = {
    **events.PARAMS,
    **rescan.PARAMS,
    **safekeeping.PARAMS,
    **token_api.PARAMS,
    **wallet.PARAMS,
    **webhook_api.PARAMS,
}


class Served(rescan.RescanOwner, wallet.WalletOwner, Protocol):
    """What a daemon offers its API."""

    chain: BitcoindChain
    home: Path
    events: EventLog
    safe: safekeeping.Safekeeping
    tokens: Tokens
    webhooks: Webhooks

    @property
    def params(self) -> Params:
        """What the operations of the role take, by their names."""

    @property
    def answers(self) -> Answers:
        """What they answer."""

    def served_methods(self) -> dict[str, Handler]:
        """Return every operation's handler, by name."""


def shared_methods(
    daemon: Served,
    role: str,
    *,
    stop: Callable[[], None],
    settled: Callable[[], Awaitable[None]],
    cover: Callable[[], Awaitable[None]],
) -> dict[str, Handler]:
    """Return what both roles answer.

    Args:
        daemon: The daemon.
        role: What it is.
        stop: Lets it stop.
        settled: Returns once all that was decided by now is durable.
        cover: Tries to write the mark, and returns.
    """

    async def stopped() -> Stopping:
        # The answer leaves before the server closes: it lets begun requests finish.
        asyncio.get_running_loop().call_soon(stop)
        return {"stopping": True}

    return {
        "stop": without_params(stopped),
        "events": events.events_method(daemon.events, known=EVENTS_OF[role]),
        "rescan": rescan.rescan_method(daemon),
        **daemon.safe.methods(settled=settled, cover=cover),
        **daemon.tokens.methods(),
        **wallet.wallet_methods(daemon),
        **webhook_api.webhook_methods(daemon.webhooks, known=EVENTS_OF[role]),
    }


def page_listener(role: str, tokens: Tokens, host: str, port: int) -> TcpListener:
    """Return where an API is served by TCP, with the page of a role before it.

    Args:
        role: Whose page it is.
        tokens: Who may.
        host: Where.
        port: Which; 0 takes any that is free.
    """
    sessions = Sessions(tokens)
    gate = TokenGate(tokens, host=host, sessions=sessions)
    before = partial(
        PageFront,
        role=role,
        files=page_files(role),
        sessions=sessions,
        check_host=gate.check_host,
    )
    return TcpListener(host=host, port=port, gate=gate, before=before)


def api_server(daemon: Served, role: str, *, listen: tuple[str, int] | None) -> ApiServer:
    """Return the server of a daemon's API, which does not listen yet.

    Args:
        daemon: The daemon.
        role: What it is.
        listen: Where to serve by TCP, too; None for nowhere.
    """
    served = endpoints(daemon.served_methods(), params=daemon.params, answers=daemon.answers)
    tcp = None
    if listen is not None:
        tcp = page_listener(role, daemon.tokens, *listen)
    return ApiServer(
        daemon.home / SOCKET_NAME,
        served,
        role=role,
        tcp=tcp,
        document=document_of(role, served),
        streams={"events": events.events_stream(daemon.events, known=EVENTS_OF[role])},
    )
