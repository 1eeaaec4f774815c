"""A funding that a full mempool of a Bitcoin Core let go is in the next block with its child."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemon.test_bumped_fundings import bump_out_of_a_full_mempool, stuck, wait_for_both
from tests.daemon.town import town
from tests.functional.node_world import OPEN_ADDRESS
from tests.functional.test_bumped_exits_on_core import N_COINS, fill
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode


@pytest.fixture
def full_core(tmp_path: Path) -> Iterator[CoreNode]:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest", "-maxmempool=5"):
        node = CoreNode(running.url, running.cookie)
        node.call("generatetoaddress", N_COINS, OPEN_ADDRESS)
        yield node


def test_the_pair_confirms_before_what_pays_less(full_core: CoreNode, tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=full_core) as t:
            line = await stuck(t, is_in_mempool=True)
            await wait_for_both(t, line["funding_txid"])
            fill(full_core)
            await bump_out_of_a_full_mempool(t, line)

    asyncio.run(main())


def test_a_child_that_pays_more_takes_the_place_of_the_one_before(
    full_core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=full_core) as t:
            line = await stuck(t, is_in_mempool=True)
            await wait_for_both(t, line["funding_txid"])
            txids = []
            for feerate in ("4", "4.004", "30"):  # The second pays what the relay of it costs.
                bumped = await t.call(
                    "lsp",
                    "factory_bump",
                    factory_id=line["factory_id"],
                    feerate_sat_per_vb=feerate,
                )
                txids.append(bumped["txid"])
                await wait_for_both(t, line["funding_txid"], txids[-1])
                assert len(full_core.call("getrawmempool")) == 2
            assert (await t.call("lsp", "status"))["refused"] == []
            await t.mine(1)
            assert full_core.call("getrawmempool") == []
            block = full_core.call("getblock", full_core.call("getbestblockhash"))["tx"]
            assert txids[-1] in block

    asyncio.run(main())
