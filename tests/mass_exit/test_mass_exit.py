"""A small mass exit: `make mass-exit` is the large one."""

from pathlib import Path

from tests.mass_exit.leaving import Size, run


def test_all_leave_in_one_block_and_it_is_as_each_had_been_told(tmp_path: Path) -> None:
    outcome = run(tmp_path, Size(n_clients=5, left_vsize=700))
    assert list(outcome.broken()) == []
    paid = {len(fees) for fees in outcome.bumped.paid.values()}
    assert paid == {1}, "whoever comes first pays; nobody insists on a child of its own"
    assert len(outcome.on_chain.children) == len(outcome.on_chain.tree) + 5


def test_where_nobody_leaves_in_time_all_do_at_the_exit_deadline(tmp_path: Path) -> None:
    outcome = run(tmp_path, Size(n_clients=4, left_vsize=700, is_at_deadline=True))
    assert list(outcome.broken()) == []
    # The six blocks of each step are dearer than a day.
    told_sat = sum(leaver.children_told_sat(10) for leaver in outcome.leavers)
    assert outcome.children_sat > told_sat
