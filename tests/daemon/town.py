"""A town: an LSP and clients as their daemons run them, on the embedded chain, in one loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.answers.fitting import check_fits

from cromford.adapters.peer_address import parse_peer_address
from cromford.agent.agentd import AgentDaemon
from cromford.agent.options import AgentOptions
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.clientd import ClientDaemon
from cromford.daemon.lspd import LspDaemon
from cromford.daemon.options import ChainOptions, ClientOptions, LspOptions
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.regtest.node import RegtestNode
from cromford.watch.feerates import FALLBACK_SAT_PER_KW

STEP_SECONDS = 30.0
POLL_SECONDS = 0.05
CAPACITY_SAT = 200_000
QUICK = ClientPolicy(
    step_blocks=(1, 1008), lstock_csv_blocks=(1, 2016), to_self_delay_blocks=(1, 2016)
)
LSP_POLICY = LspPolicy(
    min_clients=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=4,
    hold_seconds=300,
)


class TownNode(Protocol):
    """The node of a town: the embedded one, or a real one."""

    @property
    def url(self) -> str:
        """Where it answers."""

    @property
    def cookie_file(self) -> Path:
        """Who may ask."""

    def call(self, method: str, *params: Any) -> Any:
        """Return what it answers."""


@dataclass
class Town:
    """An LSP and clients in one event loop, and their API as a command line would use it."""

    node: TownNode
    base: Path
    lsp_policy: LspPolicy = LSP_POLICY
    client_policy: ClientPolicy = QUICK
    fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW  # What a client's own transactions pay.
    more: dict[str, dict[str, Any]] = field(default_factory=dict)  # Further options, by name.
    lsp_address: str = ""
    mining_address: str = ""
    running: dict[str, tuple[LspDaemon | ClientDaemon, asyncio.Task[None]]] = field(
        default_factory=dict
    )
    agents: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def chain(self) -> ChainOptions:
        return ChainOptions(url=self.node.url, cookie_file=self.node.cookie_file)

    async def start_lsp(self) -> None:
        daemon = LspDaemon(
            LspOptions(
                datadir=self.base / "lsp",
                network=REGTEST,
                chain=self.chain(),
                listen_host="127.0.0.1",
                listen_port=0,
                policy=self.lsp_policy,
                poll_seconds=POLL_SECONDS,
                **self.more.get("lsp", {}),
            )
        )
        await self._start("lsp", daemon)
        self.lsp_address = (await self.until("lsp", "lobby", lambda a: a["address"]))["address"]

    async def start_client(self, name: str) -> None:
        await self.start_alone(name)
        await self.until(name, "status", lambda status: status["lobby"])

    async def start_alone(self, name: str, *, is_synced: bool = True) -> None:
        """Start a client whether or not its LSP answers; its node too, unless `is_synced`."""
        daemon = ClientDaemon(
            ClientOptions(
                datadir=self.base / name,
                network=REGTEST,
                chain=self.chain(),
                lsp=parse_peer_address(self.lsp_address),
                policy=self.client_policy,
                poll_seconds=POLL_SECONDS,
                fallback_sat_per_kw=self.fallback_sat_per_kw,
                **self.more.get(name, {}),
            )
        )
        await self._start(name, daemon, is_synced=is_synced)

    async def start_agent(self, name: str = "agent") -> None:
        options = AgentOptions(
            datadir=self.base / name,
            network=REGTEST,
            chain=self.chain(),
            poll_seconds=POLL_SECONDS,
        )
        self.agents[name] = asyncio.create_task(AgentDaemon(options).run())
        await self.until(name, "status", lambda status: status["synced"])

    async def _start(
        self, name: str, daemon: LspDaemon | ClientDaemon, *, is_synced: bool = True
    ) -> None:
        self.running[name] = (daemon, asyncio.create_task(daemon.run()))
        await self.until(name, "status", lambda status: status["synced"] or not is_synced)

    async def stop(self, name: str) -> None:
        await self.call(name, "stop")
        task = self._task(name)
        self.running.pop(name, None)
        self.agents.pop(name, None)
        await task

    def _task(self, name: str) -> asyncio.Task[None]:
        return self.agents[name] if name in self.agents else self.running[name][1]

    async def call(self, name: str, method: str, **params: object) -> Any:
        client = ApiClient(self.base / name / "regtest" / SOCKET_NAME)
        answer = await asyncio.to_thread(client.call, method, **params)
        check_fits(answer, self.role_of(name), method)
        return answer

    def role_of(self, name: str) -> str:
        is_agent = name in self.agents or name == "agent"
        return "agent" if is_agent else "lsp" if name == "lsp" else "client"

    async def told(self, name: str) -> list[dict[str, Any]]:
        """Return what happened but not when, besides what network and chain do by themselves."""
        events = (await self.call(name, "events"))["events"]
        alone = ("peer_", "block_", "lobby_greeted")
        return [
            {key: value for key, value in event.items() if key not in {"cursor", "at"}}
            for event in events
            if not event["event"].startswith(alone)
        ]

    async def until(
        self, name: str, method: str, holds: Callable[[Any], object], **params: object
    ) -> Any:
        """Ask until it holds."""
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                task = self._task(name)
                if task.done():
                    task.result()
                with contextlib.suppress(ApiFailure):
                    answer = await self.call(name, method, **params)
                    if holds(answer):
                        return answer
                await asyncio.sleep(POLL_SECONDS)

    async def mine(self, n_blocks: int, *, mempool: int = 0) -> None:
        """Mine once so many transactions wait, and let everybody see the blocks."""
        async with asyncio.timeout(STEP_SECONDS):
            while len(self._node("getrawmempool")) < mempool:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(POLL_SECONDS)
        self._node("generatetoaddress", n_blocks, self.mining_address)
        height = self._node("getblockcount")
        for name in (*self.running, *self.agents):
            await self.until(name, "status", lambda status: status["height"] >= height)

    def _node(self, method: str, *params: object) -> Any:
        return self.node.call(method, *params)

    async def give(self, name: str, amount_sat: int) -> None:
        """Start a client, and let it have a confirmed coin of its own."""
        await self.start_client(name)
        address = (await self.call(name, "address"))["address"]
        await self.call("lsp", "wallet_send", address=address, amount_sat=amount_sat)
        await self.mine(1, mempool=1)

    async def build(self, *clients: str) -> str:
        """Build a factory of these clients and confirm it; return its id."""
        for name in clients:
            if name not in self.running:
                await self.start_client(name)
            await self.call(name, "join", capacity_sat=CAPACITY_SAT)
            await self.until(name, "status", lambda status: status["joined"])
        n_before = len((await self.call("lsp", "factories"))["factories"])
        await self.call("lsp", "build")
        funded = await self.until(
            "lsp",
            "factories",
            lambda a: len(a["factories"]) > n_before and a["factories"][-1]["phase"] == "funding",
        )
        factory_id: str = funded["factories"][-1]["factory_id"]
        await self.mine(3, mempool=1)
        for name in clients:
            await self.until(
                name,
                "factories",
                lambda a: (
                    {"factory_id": factory_id, "status": "live"}.items()
                    <= a["factories"][-1].items()
                ),
            )
        return factory_id


@contextlib.asynccontextmanager
async def town(
    base: Path,
    *,
    lsp_policy: LspPolicy = LSP_POLICY,
    client_policy: ClientPolicy = QUICK,
    fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW,
    real_node: TownNode | None = None,
) -> AsyncIterator[Town]:
    with contextlib.ExitStack() as stack:
        node = real_node or stack.enter_context(RegtestNode(base / "node", persist=False))
        built = Town(node, base, lsp_policy, client_policy, fallback_sat_per_kw)
        await built.start_lsp()
        built.mining_address = (await built.call("lsp", "status"))["wallet"]["address"]
        node.call("generatetoaddress", 101, built.mining_address)
        await built.until("lsp", "status", lambda status: status["wallet"]["free_sat"] > 0)
        try:
            yield built
        finally:
            # The LSP last: nobody tries to come back to it then.
            names = (*built.agents, *built.running)
            for name in sorted(names, key=lambda name: name == "lsp"):
                with contextlib.suppress(ApiFailure):
                    await built.stop(name)
