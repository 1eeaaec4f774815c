"""Both daemons for real: sockets, journals, the embedded chain, one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cromford.adapters.peer_address import parse_peer_address
from cromford.bitcoin.network import REGTEST
from cromford.daemon.clientd import ClientDaemon
from cromford.daemon.lspd import LspDaemon
from cromford.daemon.options import ChainOptions, ClientOptions, LspOptions
from cromford.daemon.rpc import SOCKET_NAME, RpcClient, RpcFailure
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.regtest.node import RegtestNode

STEP_SECONDS = 30.0
POLL_SECONDS = 0.05
CAPACITY_SAT = 200_000


@dataclass
class Town:
    """An LSP and clients in one event loop, and their API as a command line would use it."""

    node: RegtestNode
    base: Path
    lsp_address: str = ""
    mining_address: str = ""
    running: dict[str, tuple[LspDaemon | ClientDaemon, asyncio.Task[None]]] = field(
        default_factory=dict
    )

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
                policy=LspPolicy(
                    min_clients=1, step_blocks=4, states_per_layer=2, lstock_csv_blocks=4
                ),
                poll_seconds=POLL_SECONDS,
            )
        )
        await self._start("lsp", daemon)
        self.lsp_address = (await self.until("lsp", "lobby", lambda a: a["address"]))["address"]

    async def start_client(self, name: str) -> None:
        await self.start_alone(name)
        await self.until(name, "status", lambda status: status["lobby"])

    async def start_alone(self, name: str) -> None:
        """Start a client whether or not its LSP answers."""
        daemon = ClientDaemon(
            ClientOptions(
                datadir=self.base / name,
                network=REGTEST,
                chain=self.chain(),
                lsp=parse_peer_address(self.lsp_address),
                policy=ClientPolicy(),
                poll_seconds=POLL_SECONDS,
            )
        )
        await self._start(name, daemon)

    async def _start(self, name: str, daemon: LspDaemon | ClientDaemon) -> None:
        self.running[name] = (daemon, asyncio.create_task(daemon.run()))
        await self.until(name, "status", lambda status: status["synced"])

    async def stop(self, name: str) -> None:
        await self.call(name, "stop")
        _, task = self.running.pop(name)
        await task

    async def call(self, name: str, method: str, **params: object) -> Any:
        client = RpcClient(self.base / name / "regtest" / SOCKET_NAME)
        return await asyncio.to_thread(client.call, method, **params)

    async def told(self, name: str) -> list[dict[str, Any]]:
        """Return what happened, besides what the network and the chain do by themselves."""
        events = (await self.call(name, "events"))["events"]
        alone = ("peer_", "block_", "lobby_greeted")
        return [
            {key: value for key, value in event.items() if key != "number"}
            for event in events
            if not event["event"].startswith(alone)
        ]

    async def until(
        self, name: str, method: str, holds: Callable[[Any], object], **params: object
    ) -> Any:
        """Ask until it holds."""
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                _, task = self.running[name]
                if task.done():
                    task.result()
                with contextlib.suppress(RpcFailure):
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
        for name in self.running:
            await self.until(name, "status", lambda status: status["height"] >= height)

    def _node(self, method: str, *params: object) -> Any:
        return self.node.call(method, *params)

    async def build(self, *clients: str) -> str:
        """Build a factory of these clients and confirm it; return its id."""
        for name in clients:
            await self.start_client(name)
            await self.call(name, "join", capacity_sat=CAPACITY_SAT)
            await self.until(name, "status", lambda status: status["joined"])
        await self.call("lsp", "build")
        funded = await self.until(
            "lsp",
            "factories",
            lambda a: a["factories"] and a["factories"][-1]["phase"] == "funding",
        )
        await self.mine(3, mempool=1)
        for name in clients:
            await self.until(name, "factory", lambda factory: factory["status"] == "live")
        factory_id: str = funded["factories"][-1]["factory_id"]
        return factory_id


@contextlib.asynccontextmanager
async def town(base: Path) -> AsyncIterator[Town]:
    with RegtestNode(base / "node", persist=False) as node:
        built = Town(node, base)
        await built.start_lsp()
        built.mining_address = (await built.call("lsp", "status"))["wallet"]["address"]
        node.call("generatetoaddress", 101, built.mining_address)
        await built.until("lsp", "status", lambda status: status["wallet"]["free_sat"] > 0)
        try:
            yield built
        finally:
            for name in list(built.running):
                with contextlib.suppress(RpcFailure):
                    await built.stop(name)


@pytest.fixture
def in_town(tmp_path: Path) -> Callable[[Callable[[Town], Awaitable[None]]], None]:
    def run(scenario: Callable[[Town], Awaitable[None]]) -> None:
        async def main() -> None:
            async with town(tmp_path) as built:
                await scenario(built)

        asyncio.run(main())

    return run


Run = Callable[[Callable[[Town], Awaitable[None]]], None]


def test_a_factory_is_built_verified_and_left_from_the_clients_own_store(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await t.build("alice", "bob")
        verdict = await t.call("alice", "verify")
        assert verdict["ok"], verdict
        factory = await t.call("alice", "factory", factory_id=factory_id[:8])

        # The LSP is gone, and the client starts anew: it leaves all the same.
        for name in ("alice", "bob", "lsp"):
            await t.stop(name)
        await t.start_alone("alice")
        await t.call("alice", "exit_start")
        for _ in range(factory["exit_blocks"]):
            plan = await t.call("alice", "exit_plan")
            if all(step["status"] == "confirmed" for step in plan["steps"]):
                break
            await t.mine(1, mempool=any(s["status"] == "publish_now" for s in plan["steps"]))
        txid, vout = factory["channel_outpoint"].split(":")
        coin = t.node.call("gettxout", txid, int(vout))
        assert coin["value"] * 100_000_000 == CAPACITY_SAT
        channel = next(
            output
            for output in factory["transactions"][-1]["outputs"]
            if output["client"] == factory["client"]
        )
        assert coin["scriptPubKey"]["hex"] == channel["script_pubkey"]
        assert (await t.call("alice", "factory"))["status"] == "on_chain"

    in_town(scenario)


def test_an_lsp_that_restarts_remembers_its_factory_and_its_coins(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await t.build("alice")
        before = await t.call("lsp", "factory_export", factory_id=factory_id)
        coins = await t.call("lsp", "wallet_coins")
        await t.stop("lsp")
        await t.start_lsp()

        assert await t.call("lsp", "factory_export", factory_id=factory_id) == before
        assert await t.call("lsp", "wallet_coins") == coins

    in_town(scenario)


def test_a_payment_reaches_the_other_wallet(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await t.start_client("alice")
        address = (await t.call("alice", "address"))["address"]
        planned = await t.call(
            "lsp", "wallet_send", address=address, amount_sat=50_000, dry_run=True
        )
        assert not t.node.call("getrawmempool")
        sent = await t.call("lsp", "wallet_send", address=address, amount_sat=50_000)
        assert (sent["fee_sat"], planned["sent"]) == (planned["fee_sat"], False)
        assert (await t.call("lsp", "wallet_balance"))["paying_sat"] > 0
        await t.mine(1, mempool=1)

        coins = (await t.call("alice", "wallet_coins"))["coins"]
        assert [(coin["amount_sat"], coin["address"]) for coin in coins] == [(50_000, address)]
        assert (await t.call("lsp", "wallet_balance"))["paying_sat"] == 0

    in_town(scenario)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("factory", {}, "factory_not_found"),
        ("factory", {"factory_id": "abcd"}, "factory_not_found"),
        ("exit_start", {}, "factory_not_found"),
        ("leave", {}, "not_joined"),
        ("join", {"capacity_sat": 1}, "capacity_out_of_range"),
        ("join", {"capacity_sat": -1}, "invalid_capacity"),
        ("wallet_send", {"address": "nonsense"}, "invalid_param"),
        ("join", {}, "invalid_param"),
    ],
)
def test_an_impossible_request_has_a_code_and_changes_nothing(
    tmp_path: Path, method: str, params: dict[str, object], code: str
) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            before = await t.told("alice")
            with pytest.raises(RpcFailure) as failure:
                await t.call("alice", method, **params)
            assert failure.value.code == code
            assert await t.told("alice") == before

    asyncio.run(main())


def test_both_sides_stop_cleanly_at_one_moment(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            for name in ("alice", "bob", "carol"):
                await t.start_client(name)
            names = list(t.running)
            await asyncio.gather(*(t.call(name, "stop") for name in names))
            async with asyncio.timeout(STEP_SECONDS):
                await asyncio.gather(*(t.running.pop(name)[1] for name in names))
            # The journals are free again: their locks were given back.
            await t.start_lsp()

    asyncio.run(main())
