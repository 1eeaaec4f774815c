"""Both daemons for real: sockets, journals, the embedded chain, one event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
import pytest
from tests.daemon.town import STEP_SECONDS, Town, town

from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.pairing import ForeignSeed
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal.records import Created, decode_record, encode_record
from cromford.protocol.journal.streams import CREATION
from cromford.wallet.account import GAP_LIMIT

pytestmark = pytest.mark.sampled_file(5)


@pytest.fixture
def in_town(tmp_path: Path) -> Callable[[Callable[[Town], Awaitable[None]]], None]:
    def run(scenario: Callable[[Town], Awaitable[None]]) -> None:
        async def main() -> None:
            async with town(tmp_path) as built:
                await scenario(built)

        asyncio.run(main())

    return run


Run = Callable[[Callable[[Town], Awaitable[None]]], None]


async def leave(t: Town, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Mine until nothing is left to do; return the plan as it is then, and all that was due."""
    due: list[dict[str, Any]] = []
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            plan: dict[str, Any] = await t.call(name, "exit_plan")
            is_on_chain = {step["status"] for step in plan["steps"]} == {"confirmed"}
            if plan["next"].startswith("nothing"):
                assert (is_on_chain, plan["due"]) == (True, [])
                return plan, due
            assert bool(plan["due"]) == is_on_chain
            due.extend(one for one in plan["due"] if one not in due)
            await t.mine(1, mempool=plan["next"].endswith("now"))


@pytest.mark.sampled(0)
def test_a_factory_is_built_verified_and_left_from_the_clients_own_store(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await t.build("alice", "bob")
        verdict = await t.call("alice", "verify")
        assert verdict["ok"], verdict
        assert {"check": "keys", "ok": True}.items() <= verdict["checks"][1].items()
        await t.until("alice", "factory", lambda a: a["channel_status"] == "open")
        invoice = await t.call("alice", "invoice", amount_msat=60_000_000)
        await t.call("lsp", "pay", invoice=invoice["invoice"])
        factory = await t.call("alice", "factory", factory_id=factory_id[:8])
        await t.until("alice", "balance", lambda b: b["total"]["own_msat"] == 60_000_000)
        planned = await t.call("alice", "exit_plan")

        # The LSP is gone, and the client starts anew: it leaves all the same.
        for name in ("alice", "bob", "lsp"):
            await t.stop(name)
        await t.start_alone("alice")
        await t.call("alice", "exit_start")
        left, due = await leave(t, "alice")

        assert [step["status"] for step in left["steps"]] == ["confirmed"] * len(left["steps"])
        assert (await t.call("alice", "factory"))["status"] == "on_chain"
        assert factory["channel_outpoint"].split(":")[0] == left["steps"][-1]["txid"]
        # What was foretold is what arrived: all that was alice's, less one sweep's fee.
        assert [step["name"] for step in planned["channel"]["steps"]] == ["commitment", "sweep"]
        assert left["channel"]["exit_sat"] == planned["channel"]["exit_sat"]
        told = [(entry["name"], entry["status"]) for entry in due]
        assert told == [
            ("commitment", "publish_now"),
            ("to_local", "wait"),
            ("sweep", "publish_now"),
        ]
        assert due[1]["height"] == due[2]["height"]
        coins = (await t.call("alice", "wallet_coins"))["coins"]
        assert [coin["outpoint"] for coin in coins] == [f"{due[2]['txid']}:0"]
        assert [coin["amount_sat"] for coin in coins] == [planned["channel"]["exit_sat"]]
        assert 59_600 < planned["channel"]["exit_sat"] < 60_000
        assert (await t.call("alice", "balance"))["channels"] == []

        # Before it is deep she has to look; from then on nothing of it can be lost.
        under_way = await t.call("alice", "exit_status")
        assert (under_way["over"], under_way["stake_sat"] > 0) == (False, True)
        assert (await t.call("alice", "factory"))["look_blocks"] is not None
        await t.mine(RESOLVED_DEPTH - 1)
        over = await t.until("alice", "exit_status", lambda status: status["over"])
        assert (over["stake_sat"], over["end_height"], over["budget_left_sat"]) == (0, None, 0)
        assert (await t.call("alice", "factory"))["look_blocks"] is None

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


@pytest.mark.sampled(0)
def test_a_daemon_whose_factory_keys_are_not_its_seeds_does_not_start(in_town: Run) -> None:
    """The pair looks right, and its keys are not: better no daemon than an exit to nobody."""

    def renumber(home: Path) -> bytes:
        """Let the journal derive other keys from the same seed; return its first record."""
        connection = apsw.Connection(str(home / JOURNAL_NAME))
        first = connection.execute("SELECT record FROM journal WHERE number = 1").get
        created = decode_record(first)
        assert isinstance(created, Created)
        other = msgspec.structs.replace(created, journal_number=created.journal_number ^ 1)
        change = "UPDATE journal SET record = ? WHERE number = 1"
        connection.execute(change, (encode_record(other),))
        connection.close()
        return bytes(first)

    async def scenario(t: Town) -> None:
        await t.build("alice")
        for name, start in (("lsp", t.start_lsp), ("alice", lambda: t.start_alone("alice"))):
            await t.stop(name)
            first = renumber(t.base / name / "regtest")
            with pytest.raises(ForeignSeed, match="factory key 0: the journal has"):
                await start()
            # It let go of what it held, and with the right pair it starts.
            with Journal(t.base / name / "regtest") as journal:
                assert next(journal.replay(CREATION)) != first
            renumber(t.base / name / "regtest")
            await start()

    in_town(scenario)


@pytest.mark.sampled(0)
def test_an_lsp_brings_the_channel_of_a_client_on_chain_and_both_are_paid(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await t.build("alice", "bob")
        await t.until("alice", "factory", lambda a: a["channel_status"] == "open")
        invoice = await t.call("alice", "invoice", amount_msat=60_000_000)
        await t.call("lsp", "pay", invoice=invoice["invoice"])
        client = (await t.call("alice", "factory"))["client"]
        with pytest.raises(ApiFailure, match=r"client: expected 1\.\.2, received 9"):
            await t.call("lsp", "exit_start", factory_id=factory_id, client=9)
        began = await t.call("lsp", "exit_start", factory_id=factory_id[:8], client=client)
        assert began == {"exiting": True, "next": "publish kickoff_root now"}
        await t.until("alice", "factory", lambda a: a["channel_status"] in {"failed", "exiting"})

        async with asyncio.timeout(STEP_SECONDS):
            while not (await t.call("alice", "wallet_coins"))["coins"]:
                await t.mine(1)
        (coin,) = (await t.call("alice", "wallet_coins"))["coins"]
        assert 59_600 < coin["amount_sat"] < 60_000
        again = await t.call("lsp", "exit_start", factory_id=factory_id, client=client)
        assert "so that it can confirm" in again["next"]

    in_town(scenario)


def test_an_address_says_whether_it_was_given_before(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await t.start_client("alice")
        given = [await t.call("alice", "address") for _ in range(GAP_LIMIT + 2)]
        is_new = [one["is_new"] for one in given]
        assert is_new == [True] * GAP_LIMIT + [False] * 2
        assert len({one["address"] for one in given}) == GAP_LIMIT
        assert given[-1]["address"] == given[GAP_LIMIT - 1]["address"]
        assert (await t.call("alice", "wallet_balance"))["address"] == given[-1]["address"]

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
        waiting = await t.call("lsp", "wallet_balance")
        assert waiting["change_sat"] == sent["change_sat"] > 0
        assert waiting["paying_sat"] == waiting["change_sat"] + 50_000 + sent["fee_sat"]
        coins = (await t.call("lsp", "wallet_coins"))["coins"]
        spent_by = {coin["reserved_for"] for coin in coins if coin["status"] == "paying"}
        assert spent_by == {sent["txid"]}
        await t.mine(1, mempool=1)

        coins = (await t.call("alice", "wallet_coins"))["coins"]
        assert [(coin["amount_sat"], coin["address"]) for coin in coins] == [(50_000, address)]
        assert (await t.call("lsp", "wallet_balance"))["paying_sat"] == 0

    in_town(scenario)


IMPOSSIBLE: Final[list[tuple[str, dict[str, object], str]]] = [
    ("factory", {}, "factory_not_found"),
    ("factory", {"factory_id": "abcd"}, "factory_not_found"),
    ("exit_start", {}, "factory_not_found"),
    ("leave", {}, "not_joined"),
    ("join", {"capacity_sat": 1}, "capacity_out_of_range"),
    ("join", {"capacity_sat": -1}, "invalid_capacity"),
    ("wallet_send", {"address": "nonsense"}, "invalid_param"),
    ("join", {}, "invalid_param"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bool]]:
    """Ask a client for all of it; return each one's code, and whether it told of anything new."""

    async def main() -> list[tuple[str, bool]]:
        found = []
        async with town(tmp_path_factory.mktemp("town")) as t:
            await t.start_client("alice")
            for method, params, _ in IMPOSSIBLE:
                before = await t.told("alice")
                with pytest.raises(ApiFailure) as failure:
                    await t.call("alice", method, **params)
                found.append((failure.value.code, await t.told("alice") != before))
        return found

    return asyncio.run(main())


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("number", "code"), list(enumerate(code for *_, code in IMPOSSIBLE)))
def test_an_impossible_request_has_a_code_and_changes_nothing(
    refused: list[tuple[str, bool]], number: int, code: str
) -> None:
    assert refused[number] == (code, False)


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
