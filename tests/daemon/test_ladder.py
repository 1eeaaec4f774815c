"""A fee ladder by the daemons' API, on the embedded node."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.daemon.ladder_town import FEERATES, each_in_turn, given_up, siblings_give_way
from tests.daemon.town import CAPACITY_SAT, Town, town

from cromford.daemon.lspd import LspDaemon


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scene", [each_in_turn, siblings_give_way, given_up])
def test_a_ladder_on_the_embedded_node(
    scene: Callable[[Town], Awaitable[None]], tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await scene(t)

    asyncio.run(main())


def test_a_dry_run_shows_each_candidate_and_asks_nobody_to_join_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
            await t.until("alice", "status", lambda status: status["joined"])
            plain = await t.call("lsp", "build", dry_run=True)
            shown = await t.call("lsp", "build", dry_run=True, funding_feerates_sat_per_vb=FEERATES)
            assert [one["feerate_sat_per_vb"] for one in shown["candidates"]] == [2, 8, 30]
            fees = [one["fee_sat"] for one in shown["candidates"]]
            assert fees == sorted(set(fees))
            assert len({one["fee_sat"] + one["change_sat"] for one in shown["candidates"]}) == 1
            assert shown["terms"]["min_depth"] == 6
            for name in ("sessions", "channel_keys", "nonces_of_lsp", "nonces_of_client"):
                assert shown["growth"][name] == 3 * plain["growth"][name]
            assert shown["growth"]["bytes_per_client_max"] > plain["growth"]["bytes_per_client_max"]
            daemon, _ = t.running["lsp"]
            assert isinstance(daemon, LspDaemon)
            assert not daemon.state.house.ladder_wanted

    asyncio.run(main())
