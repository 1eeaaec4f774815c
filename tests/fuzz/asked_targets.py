"""Readers of what users, operators, their files and their nodes say."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import click
import msgspec

from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.bitcoind_answers import read_package as read_package_answer
from cromford.agent import agentd
from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import MAINNET, REGTEST
from cromford.bitcoin.tx import MAX_MONEY_SAT, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.cli.configuration.run_options import client_policy, lsp_policy
from cromford.cli.configuration.settings import dump, read_file, resolve
from cromford.cli.failures import CommandFailed
from cromford.daemon import clientd, lspd
from cromford.daemon.api.application import Application
from cromford.daemon.api.calling import read_answer as read_api_answer
from cromford.daemon.api.connections import Connections
from cromford.daemon.api.endpoints import endpoints
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.handlers import Handler, read_params
from cromford.daemon.api.operations import JSON, OPERATIONS
from cromford.ports import ChainUnavailable
from cromford.watch.package import package_document
from cromford.watch.package_reading import InvalidPackage, read_package
from tests.fuzz.peer_targets import _run
from tests.fuzz.stored_targets import directory
from tests.fuzz.target import Target

# What each operation takes; where two roles have one, as the last of them has it.
PARAMS: Final = {**agentd.PARAMS, **lspd.PARAMS, **clientd.PARAMS}
TURNS: Final = 20
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
TX: Final = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=Txid(b"\x07" * 32), vout=1), nsequence=0),),
    outputs=(TxOut(amount_sat=1000, script_pubkey=b"\x51"),),
)
CHILD: Final = Tx(
    version=2,
    inputs=(TxIn(outpoint=TX.outpoint(0), nsequence=0),),
    outputs=(TxOut(amount_sat=900, script_pubkey=b"\x51"),),
)


def read_package_file(data: bytes) -> None:
    """Read an exit package: what was read is written as something that reads the same."""
    package = read_package(data, REGTEST)
    assert read_package(msgspec.json.encode(package_document(package)), REGTEST) == package
    assert package.lowest_sat_per_kw >= 0
    assert package.steps


def _echo(kind: type[Any]) -> Handler:
    async def handler(params: dict[str, Any]) -> object:
        return msgspec.to_builtins(read_params(params, kind))

    return handler


class _Transport:
    """A connection whose other end has said all that it will say, and reads everything."""

    def __init__(self) -> None:
        self.written = bytearray()
        self._is_closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


@cache
def connections() -> tuple[asyncio.AbstractEventLoop, Connections]:
    """Return what serves an operation for each class of parameters, which says what it read."""
    # What is answered with JSON; a picture takes what others take, too.
    named = {name for name in PARAMS if OPERATIONS[name].media_type == JSON}
    methods = {name: _echo(PARAMS[name]) for name in named}
    app = Application(endpoints(methods, params=PARAMS, answers={}))
    return asyncio.new_event_loop(), Connections(app, name="fuzz", n_max=1)


def read_request(data: bytes) -> None:
    """Answer whatever comes over a connection, and read what the first answer says."""
    loop, serving = connections()
    transport: Any = _Transport()

    async def exchange() -> None:
        protocol = serving.protocol()
        protocol.connection_made(transport)
        if data:  # A loop gives nothing where nothing came.
            protocol.data_received(data)
        for _ in range(TURNS):  # More than an answer takes, that waits for nobody.
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.gather(*serving.state.tasks)

    loop.run_until_complete(exchange())
    written = bytes(transport.written)
    if not written:
        raise ApiFailure("unfinished", "it is not the whole of a request")
    assert not written.startswith(b"HTTP/1.1 5"), written
    try:
        read_api_answer(written.removeprefix(CONTINUE))
    except ApiFailure as failure:
        if failure.code in {"unreadable_response", "connection_lost"}:
            raise AssertionError(written) from failure
        raise


def read_response(data: bytes) -> None:
    """Read the answer of a daemon."""
    read_api_answer(data)


def read_config(data: bytes) -> None:
    """Read a configuration; all of it is written as something that reads the same."""
    with directory() as home:
        path = home / "config.toml"
        path.write_bytes(data)
        settings = resolve(flags={}, environment={}, in_file=read_file(path))
        path.write_text(dump(settings), encoding="utf-8")
        again = resolve(flags={}, environment={}, in_file=read_file(path))
        assert dict(again) == dict(settings)


def read_policies(data: bytes) -> None:
    """Make the policies that a configuration asks for."""
    with directory() as home:
        path = home / "config.toml"
        path.write_bytes(data)
        settings = resolve(flags={}, environment={}, in_file=read_file(path))
        lsp_policy(settings)
        client_policy(settings)


def read_environment(data: bytes) -> None:
    """Read variables of the environment, one a line."""
    lines = data.decode("utf-8", "replace").split("\n")
    pairs = [line.partition("=")[::2] for line in lines]
    resolve(flags={}, environment=dict(pairs), in_file={})


class _Answering(BitcoindChain):
    """A chain whose node answers everything with one value."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1", user="user", password="password")
        self._client.transport = self._reply
        self._body = body

    def _reply(self, request: Any, _timeout: float) -> tuple[int, bytes]:
        asked = json.loads(request.data)
        body = b'{"height":1}' if asked["method"] == "getblockheader" else self._body
        return 200, b'{"jsonrpc":"2.0","id":"%s","result":%s}' % (asked["id"].encode(), body)

    async def call(self, method: str, *params: object) -> object:
        return self._call(method, params)


def check_coin(coin: Coin | None) -> None:
    """Check that there may be a coin of this amount."""
    assert coin is None or 0 <= coin.txout.amount_sat <= MAX_MONEY_SAT


ASKED: Final[tuple[Callable[[_Answering], Any], ...]] = (
    lambda chain: _run(chain.status()),
    lambda chain: _run(chain.block_hash(1)),
    lambda chain: chain._block(MAINNET.genesis_hash),
    lambda chain: check_coin(_run(chain.coin(TX.outpoint(0)))),
    lambda chain: _run(chain.mempool_tx(TX.txid)),
    lambda chain: _run(chain.spenders(TX.outpoints)),
    lambda chain: _run(chain.relay_feerates()),
    lambda chain: _run(chain.estimate_sat_per_kw(6)),
    lambda chain: read_package_answer((TX, CHILD), chain._call("submitpackage", [])),
)


def read_answer(data: bytes) -> None:
    """Read what a node answers to the question that the first byte chooses."""
    ask = ASKED[data[0] % len(ASKED)] if data else ASKED[0]
    with contextlib.closing(_Answering(data[1:])) as chain:
        ask(chain)


TARGETS: Final = (
    Target(name="package", read=read_package_file, errors=(InvalidPackage,), size_max=16 * 1024),
    Target(name="request", read=read_request, errors=(ApiFailure,)),
    Target(name="response", read=read_response, errors=(ApiFailure,)),
    Target(name="config", read=read_config, errors=(CommandFailed,), is_slow=True),
    # A value is refused as the file's; values that do not go together, as whoever gave them.
    Target(
        name="policies",
        read=read_policies,
        errors=(CommandFailed, click.UsageError),
        is_slow=True,
    ),
    Target(name="environment", read=read_environment, errors=(CommandFailed,)),
    Target(name="answer", read=read_answer, errors=(ChainUnavailable,)),
)
