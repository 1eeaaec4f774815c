"""A small mass exit: `make mass-exit` is the large one."""

from pathlib import Path
from typing import Final

import pytest

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from tests.mass_exit.leaving import Size, run

HELD_BLOCKS: Final = 4  # Less than until it is six deep, more than a slow machine costs.


@pytest.mark.sampled(0)
def test_all_leave_in_one_block_and_it_is_as_each_had_been_told(tmp_path: Path) -> None:
    outcome = run(tmp_path, Size(n_clients=5, left_vsize=700))
    assert list(outcome.broken()) == []
    assert set(outcome.bumped.n_paid.values()) == {1}, (
        "whoever comes first pays; nobody insists on a child of its own"
    )
    # To the satoshi; and who has no coin goes with the anchor of its commitment.
    assert outcome.children_sat == outcome.paid_once_sat + ANCHOR_DUST_SAT
    assert len(outcome.on_chain.children) == len(outcome.on_chain.tree) + 5


@pytest.mark.sampled(0)
def test_where_nobody_leaves_in_time_all_do_at_the_exit_deadline(tmp_path: Path) -> None:
    outcome = run(tmp_path, Size(n_clients=4, left_vsize=700, is_at_deadline=True))
    assert list(outcome.broken()) == []
    # What others pay for keeps nobody's coin from the next step.
    for leaver in outcome.leavers:
        if leaver.coin_sat:
            assert outcome.blocks_of(leaver) < outcome.least_blocks_of(leaver) + HELD_BLOCKS
    # The six blocks of each step are dearer than a day.
    (whole,) = {leaver.children_told_sat(10) for leaver in outcome.leavers if leaver.coin_sat}
    assert max(leaver.children_sat for leaver in outcome.leavers) > whole
    assert outcome.children_sat < outcome.paid_once_sat
