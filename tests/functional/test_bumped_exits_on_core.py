"""Leaving out of a real Bitcoin Core's mempool, at a minimum that no fee of the tree pays."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitcoin_core_rpc import RpcError
from tests.daemon.test_bumped_exits import COIN_SAT, PAID_MSAT, built, left, waits_for
from tests.daemon.test_ephemeral_exits import EPHEMERAL, EPHEMERAL_LSP
from tests.daemon.town import Town, town
from tests.functional.node_world import OPEN_ADDRESS, Coin, hex_of, pay
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode

from cromford.bitcoin.tx import SAT_PER_BTC, OutPoint, Txid

N_COINS = 80  # For what fills the mempool.
DATA_SIZE = 90_000
MINIMUM_SAT_PER_KVB = 3_100


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreNode]:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest", "-maxmempool=5"):
        node = CoreNode(running.url, running.cookie)
        node.call("generatetoaddress", N_COINS, OPEN_ADDRESS)
        yield node


def fill(node: CoreNode) -> None:
    """Offer large transactions at 3 sat/vB, until only such as pay more get in."""
    data = b"\x6a\x4e" + DATA_SIZE.to_bytes(4, "little") + bytes(DATA_SIZE)
    for height in range(1, N_COINS + 1):
        block = node.call("getblock", node.call("getblockhash", height), 2)
        txid, amount = block["tx"][0]["txid"], block["tx"][0]["vout"][0]["value"]
        outpoint = OutPoint(txid=Txid(bytes.fromhex(txid)[::-1]), vout=0)
        coin = Coin(outpoint, int(amount * SAT_PER_BTC))
        fee_sat = 3 * pay([coin], (0, data)).vsize
        try:
            node.call("sendrawtransaction", hex_of(pay([coin], (0, data), fee_sat=fee_sat)))
        except RpcError as error:
            if "mempool" not in str(error):
                raise
        info = node.call("getmempoolinfo")
        if int(info["mempoolminfee"] * SAT_PER_BTC) >= MINIMUM_SAT_PER_KVB:
            return
    raise AssertionError(f"the mempool was not full: {info}")


def test_a_client_leaves_though_the_minimum_is_above_what_was_agreed(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=core) as t:
            await built(t, with_coin=True)
            fill(core)
            await t.call("alice", "exit_start")
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert kickoff["child_is_ours"]
            assert 6.2 <= kickoff["package_sat_per_vb"] < 6.3, "twice the minimum"
            await _leaves(t)

    asyncio.run(main())


def test_with_zero_fees_every_step_goes_with_its_child(core: CoreNode, tmp_path: Path) -> None:
    async def main() -> None:
        async with town(
            tmp_path, real_node=core, lsp_policy=EPHEMERAL_LSP, client_policy=EPHEMERAL
        ) as t:
            await built(t, with_coin=True)
            await t.call("alice", "exit_start")
            await t.until("alice", "exit_status", waits_for("kickoff_root"))
            await _leaves(t)

    asyncio.run(main())


async def _leaves(t: Town) -> None:
    balance = await left(t, "alice")
    cost_sat = COIN_SAT + PAID_MSAT // 1_000 - balance["confirmed_sat"]
    status = await t.call("alice", "exit_status")
    print(f"children {status['children_cost_sat']} sat of {cost_sat} sat")  # noqa: T201 - for whoever runs it by hand
    assert 0 < status["children_cost_sat"] < cost_sat < 12_000
