"""Daemons and their node: one that is not there yet, one that went away, blocks read again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.town import CAPACITY_SAT, Town, town

from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.peer_address import parse_peer_address
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.clientd import ClientDaemon
from cromford.daemon.options import ChainOptions, ClientOptions
from cromford.ports import TxRefused
from cromford.protocol.policy import ClientPolicy
from cromford.regtest.node import RegtestNode

pytestmark = pytest.mark.sampled_file(4)

NOBODY = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798" + "@127.0.0.1:1"


def unspent(coins: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted((coin["outpoint"], coin["confirmations"]) for coin in coins["coins"])


def test_a_daemon_started_before_its_node_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cromford.daemon.api.wallet.FIRST_BLOCK_SECONDS", 0.1)

    async def scenario() -> None:
        with RegtestNode(tmp_path / "node") as node:
            port, chain = node.port, ChainOptions(url=node.url, cookie_file=node.cookie_file)
        daemon = ClientDaemon(
            ClientOptions(
                datadir=tmp_path / "alice",
                network=REGTEST,
                chain=chain,
                lsp=parse_peer_address(NOBODY),
                policy=ClientPolicy(),
                poll_seconds=0.05,
            )
        )
        t = Town(node, tmp_path)
        t.running["alice"] = (daemon, asyncio.create_task(daemon.run()))
        waiting = await t.until("alice", "status", lambda s: "cookie" in _reason(s))
        assert (waiting["synced"], waiting["height"]) == (False, -1)
        assert waiting["chain"]["stale_kind"] == "node_silent"
        # What needs no node is answered meanwhile.
        assert (await t.call("alice", "wallet_balance"))["confirmed_sat"] == 0
        # But no address: the wallet begins with the block that is the newest then.
        assert (await t.call("alice", "wallet_balance"))["address"] == ""
        with pytest.raises(ApiFailure, match="no block was read yet, and a new wallet") as refused:
            await t.call("alice", "address")
        assert (refused.value.code, refused.value.retryable) == ("chain_stale", True)
        with RegtestNode(tmp_path / "node", port=port):
            fresh = await t.until("alice", "status", lambda s: s["height"] == 0)
            assert (fresh["synced"], fresh["chain"]["stale_reason"]) == (True, None)
            address = (await t.call("alice", "address"))["address"]
            assert address.startswith("bcrt1p")
            await t.stop("alice")

    asyncio.run(scenario())


def test_who_asks_a_daemon_at_once_is_not_refused_for_want_of_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = ChainFollowing.run

    async def follow_late(following: ChainFollowing) -> None:
        await asyncio.sleep(1)
        await follow(following)

    async def scenario() -> None:
        async with town(tmp_path) as t:
            monkeypatch.setattr(ChainFollowing, "run", follow_late)
            await t.start_alone("alice", is_synced=False)
            assert (await t.call("alice", "address"))["is_new"]
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)

    asyncio.run(scenario())


def _reason(status: dict[str, Any]) -> str:
    reason: str | None = status["chain"]["stale_reason"]
    return reason or ""


def test_a_request_that_takes_risk_is_refused_while_the_chain_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            with monkeypatch.context() as patched:
                # Whatever it said is too long ago.
                patched.setattr("cromford.daemon.freshness.SILENCE_SECONDS_MAX", -1)
                with pytest.raises(ApiFailure) as refused:
                    await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
                assert (refused.value.code, refused.value.retryable) == ("chain_stale", True)
                assert "the node has not answered since" in refused.value.message
                assert "`status`" in refused.value.remediation
                assert not (await t.call("alice", "status"))["synced"]
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
            await t.until("alice", "status", lambda status: status["joined"])

    asyncio.run(scenario())


def test_a_client_restarted_beside_a_node_that_went_back_misses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            height = (await t.call("alice", "status"))["height"]
            address = (await t.call("alice", "address"))["address"]
            await t.stop("alice")
            await t.call("lsp", "wallet_send", address=address, amount_sat=50_000)
            await t.mine(1, mempool=1)
            [tip] = t.node.call("generatetoaddress", 1, t.mining_address)
            # The node rebuilds its chainstate, and shows an ancestor of what the client has seen.
            first = t.node.call("getblockhash", height - 10)
            t.node.call("invalidateblock", first)
            await t.start_alone("alice", is_synced=False)
            behind = await t.until(
                "alice", "status", lambda s: s["chain"]["stale_kind"] == "blocks_missing"
            )
            assert (behind["height"], behind["synced"]) == (height, False)
            t.node.call("reconsiderblock", first)
            assert t.node.call("getbestblockhash") == tip
            await t.until("alice", "status", lambda s: s["synced"] and s["height"] == height + 2)
            coins = (await t.call("alice", "wallet_coins"))["coins"]
            assert [coin["amount_sat"] for coin in coins] == [50_000]

    asyncio.run(scenario())


@pytest.mark.sampled(0)
def test_a_rescan_sees_what_was_missed_and_changes_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            factory_id = await t.build("alice")
            address = (await t.call("alice", "address"))["address"]
            await t.call("lsp", "wallet_send", address=address, amount_sat=50_000)
            await t.mine(2, mempool=1)
            before = {name: await t.call(name, "wallet_coins") for name in ("alice", "lsp")}
            height = (await t.call("lsp", "status"))["height"]
            for from_height in (height, 100, 2, 2):
                for name in ("alice", "lsp"):
                    answer = await t.call(name, "rescan", from_height=from_height)
                    assert answer == {"from_height": from_height, "to_height": height}
                    await t.until(name, "status", lambda s: s["height"] == height)
            for name in ("alice", "lsp"):
                status = await t.until(name, "status", lambda s: s["height"] == height)
                assert status["synced"]
                assert unspent(await t.call(name, "wallet_coins")) == unspent(before[name])
            live = await t.call("alice", "factory", factory_id=factory_id)
            assert (live["status"], live["confirmations"]) == ("live", 5)
            # What lies before the journal's first block is found too: the same seed, a new journal.
            await t.stop("lsp")
            for path in (tmp_path / "lsp" / "regtest").glob("journal*"):
                path.unlink()
            await t.start_lsp()
            assert unspent(await t.call("lsp", "wallet_coins")) == []
            await t.call("lsp", "rescan", from_height=1)
            await t.until("lsp", "status", lambda s: s["height"] == height)
            found = unspent(await t.call("lsp", "wallet_coins"))
            assert set(unspent(before["lsp"])) <= set(found)

    asyncio.run(scenario())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("from_height", [0, -3, 10_000])
def test_a_rescan_from_where_there_is_no_block_is_refused(tmp_path: Path, from_height: int) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            with pytest.raises(ApiFailure) as refused:
                await t.call("lsp", "rescan", from_height=from_height)
            assert refused.value.code == "invalid_param"
            assert f"received {from_height}" in refused.value.message

    asyncio.run(scenario())


@pytest.mark.sampled(0)
def test_a_refused_payment_is_shown_until_it_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            address = (await t.call("lsp", "address"))["address"]
            # Below what the node's mempool takes.
            sent = await t.call(
                "lsp",
                "wallet_send",
                address=address,
                amount_sat=50_000,
                feerate_sat_per_vb="0.01",
            )
            status = await t.until("lsp", "status", lambda status: status["refused"])
            (refused,) = status["refused"]
            assert (refused["name"], refused["txid"]) == ("payment", sent["txid"])
            assert "min relay fee not met" in refused["reason"]
            balance = await t.call("lsp", "wallet_balance")
            assert balance["refused"] == [refused]
            assert status["wallet"]["paying_sat"] > 0
            await t.mine(1)
            await t.until("lsp", "status", lambda s: s["refused"] and s["refused"][0]["count"] > 1)

    asyncio.run(scenario())


def test_a_payment_that_the_node_refuses_can_be_given_up_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            address = (await t.call("lsp", "address"))["address"]
            before = await t.call("lsp", "wallet_balance")
            payment = {"address": address, "amount_sat": 50_000}
            sent = await t.call("lsp", "wallet_send", **payment, feerate_sat_per_vb="0.01")
            await t.until("lsp", "status", lambda status: status["refused"])
            told = (await t.call("lsp", "events"))["events"]
            seen = [event for event in told if event["event"] == "broadcast_refused"]
            assert [(e["name"], e["txid"]) for e in seen] == [("payment", sent["txid"])]
            planned = await t.call("lsp", "wallet_abandon", txid=sent["txid"], dry_run=True)
            assert "min relay fee not met" in planned["reason"]
            assert planned["freed_sat"] == (await t.call("lsp", "wallet_balance"))["paying_sat"]
            await t.call("lsp", "wallet_abandon", txid=sent["txid"])
            after = await t.call("lsp", "wallet_balance")
            assert (after["free_sat"], after["refused"]) == (before["free_sat"], [])
            assert (await t.call("lsp", "status"))["refused"] == []
            assert await failure_of(t, sent["txid"]) == "payment_not_found"
            good = await t.call("lsp", "wallet_send", **payment)
            assert await failure_of(t, good["txid"]) == "transaction_accepted"
            t.node.call("generatetoaddress", 1, t.mining_address)
            assert await failure_of(t, "nonsense") == "invalid_param"

    asyncio.run(scenario())


async def failure_of(t: Town, txid: str) -> str:
    with pytest.raises(ApiFailure) as failed:
        await t.call("lsp", "wallet_abandon", txid=txid)
    return failed.value.code


def test_a_funding_that_the_node_refuses_is_shown_wherever_its_factory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_chain: BitcoindChain, tx: Tx) -> None:
        raise TxRefused(f"mempool min fee not met, 1 < {tx.vsize}")

    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
            await t.until("alice", "status", lambda status: status["joined"])
            with monkeypatch.context() as patched:
                patched.setattr(BitcoindChain, "broadcast", refuse)
                await t.call("lsp", "build")
                answer = await t.until(
                    "lsp", "factories", lambda a: a["factories"] and a["factories"][0]["refused"]
                )
                (factory,) = answer["factories"]
                (refused,) = factory["refused"]
                funding_txid = factory["funding_txid"]
                assert (refused["name"], refused["txid"]) == ("funding", funding_txid)
                factory_id = factory["factory_id"]
                shown = await t.call("lsp", "factory_show", factory_id=factory_id)
                assert shown["refused"][0]["txid"] == funding_txid
                assert (await t.call("lsp", "status"))["refused"][0]["txid"] == funding_txid
                assert (await t.call("lsp", "wallet_balance"))["refused"] == []
                await t.mine(1)
            await t.mine(1)
            await t.until("lsp", "factories", lambda a: not a["factories"][0]["refused"])
            with pytest.raises(ApiFailure) as taken:
                await t.call("lsp", "factory_abandon", factory_id=factory_id)
            assert taken.value.code == "transaction_accepted"
            await t.mine(1, mempool=1)
            assert (await t.call("lsp", "status"))["refused"] == []
            with pytest.raises(ApiFailure) as taken:
                await t.call("lsp", "factory_abandon", factory_id=factory_id)
            assert taken.value.code == "factory_funded"

    asyncio.run(scenario())


def test_a_factory_whose_funding_the_node_refuses_can_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = BitcoindChain.broadcast

    async def scenario() -> None:
        refused: list[str] = []

        async def refuse_the_first(chain: BitcoindChain, tx: Tx) -> None:
            refused.append(str(tx.txid))
            if refused[0] == str(tx.txid):
                raise TxRefused("mempool min fee not met, 1 < 4")
            await publish(chain, tx)

        async with town(tmp_path) as t:
            await t.start_client("alice")
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
            await t.until("alice", "status", lambda status: status["joined"])
            monkeypatch.setattr(BitcoindChain, "broadcast", refuse_the_first)
            await t.call("lsp", "build")
            answer = await t.until(
                "lsp", "factories", lambda a: a["factories"] and a["factories"][0]["refused"]
            )
            wanted = {"factory_id": answer["factories"][0]["factory_id"]}
            planned = await t.call("lsp", "factory_abandon", **wanted, dry_run=True)
            assert planned["reason"] == "mempool min fee not met, 1 < 4"
            assert (await status_of_factory(t)) == "funding"
            given_up = await t.call("lsp", "factory_abandon", **wanted)
            assert given_up == planned | {"abandoned": True}
            await t.until("lsp", "factories", lambda a: a["factories"][0]["status"] == "abandoned")
            await t.mine(1, mempool=1)
            assert (await status_of_factory(t)) == "abandoned"
            await t.mine(planned["min_depth"] - 1)
            await t.until("lsp", "factories", lambda a: a["factories"][0]["status"] == "dead")
            after = await t.call("lsp", "wallet_balance")
            assert (after["reserved_sat"], after["paying_sat"]) == (0, 0)
            assert (await t.call("lsp", "status"))["capital"]["locked_sat"] == 0
            told = await t.until(
                "alice", "factories", lambda a: a["factories"][0]["status"] != "building"
            )
            assert told["factories"][0]["aborted"] or told["factories"][0]["given_up"]
            await t.until("alice", "status", lambda status: status["joined"])

    asyncio.run(scenario())


async def status_of_factory(t: Town) -> str:
    status: str = (await t.call("lsp", "factories"))["factories"][0]["status"]
    return status
