"""How long an exit still takes: what the chain has confirmed of a path, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.signed_factory import SHAPES, signed_branches
from tests.watch.test_exit import LateChain, half_published

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.factory.branch import SignedBranch
from cromford.watch.exit import ChannelOnChain, Publish, WaitForHeight
from cromford.watch.remaining import PathStep, Remaining, is_cut_off, path_of, remaining_of

EXPIRY = 10_000
KICKOFF, STATE = Txid(b"k" * 32), Txid(b"s" * 32)
ONE_LAYER = (
    PathStep(txid=KICKOFF, outpoint=OutPoint(txid=Txid(b"f" * 32), vout=0), delay_blocks=0),
    PathStep(txid=STATE, outpoint=OutPoint(txid=KICKOFF, vout=0), delay_blocks=432),
)
BRANCHES = [branch for n_clients in SHAPES for branch in signed_branches(n_clients)]


def remaining(confirmed: dict[Txid, int], tip_height: int) -> Remaining:
    return remaining_of(ONE_LAYER, expiry_height=EXPIRY, confirmed=confirmed, tip_height=tip_height)


@pytest.mark.parametrize(
    ("confirmed", "tip_height", "exit_blocks"),
    [
        ({}, 1_000, 450),
        ({KICKOFF: 1_000}, 1_000, 450),
        ({KICKOFF: 1_000}, 1_004, 446),
        ({KICKOFF: 1_000}, 1_005, 439),  # Six deep.
        ({KICKOFF: 1_000}, 1_431, 13),
        ({KICKOFF: 1_000}, 1_432, 12),
        ({KICKOFF: 1_000}, 2_000, 12),  # Nobody published the state: it can be in the next block.
        ({KICKOFF: 1_000, STATE: 1_432}, 1_432, 12),
        ({KICKOFF: 1_000, STATE: 1_432}, 1_436, 12),
    ],
)
def test_what_is_left_is_six_blocks_and_the_rest_of_the_delay_of_all_that_is_not_six_deep(
    confirmed: dict[Txid, int], tip_height: int, exit_blocks: int
) -> None:
    expected = Remaining(exit_blocks=exit_blocks, exit_deadline_height=EXPIRY - exit_blocks - 144)
    assert remaining(confirmed, tip_height) == expected


@pytest.mark.parametrize("tip_height", [1_437, EXPIRY - 1, EXPIRY + 5_000])
def test_a_channel_whose_output_is_six_deep_has_no_exit_deadline(tip_height: int) -> None:
    settled = remaining({KICKOFF: 1_000, STATE: 1_432}, tip_height)
    assert settled == Remaining(exit_blocks=6, exit_deadline_height=None)


@pytest.mark.parametrize("branch", BRANCHES)
def test_with_nothing_on_chain_it_is_what_the_terms_say(branch: SignedBranch) -> None:
    unsigned = branch.branch
    left = remaining_of(
        path_of(unsigned),
        expiry_height=unsigned.terms.expiry_height,
        confirmed={unsigned.funding_outpoint.txid: 5},
        tip_height=1_000,
    )
    assert left.exit_blocks == unsigned.exit_blocks
    assert left.exit_deadline_height == unsigned.exit_deadline_height


@given(half_published())
def test_a_prompt_exit_from_any_half_published_state_is_over_in_that_time(
    chain: LateChain,
) -> None:
    """And what is left never grows while the chain does."""
    branch = chain.signed.branch

    def left() -> int:
        return remaining_of(
            path_of(branch),
            expiry_height=branch.terms.expiry_height,
            confirmed=chain.confirmed,
            tip_height=chain.tip_height,
        ).exit_blocks

    began, allowed, before = chain.tip_height, left(), left()
    while not isinstance(action := chain.action(), ChannelOnChain):
        match action:
            case Publish(step=step):
                chain.confirm(step.tx)
            case WaitForHeight():
                chain.tip_height += 1
        assert left() <= before
        before = left()
    # The last six are the commitment's.
    assert chain.tip_height - began <= allowed - 6


@given(half_published(), st.integers(1, 40))
def test_a_reorganisation_gives_the_blocks_back(chain: LateChain, n_blocks: int) -> None:
    branch = chain.signed.branch

    def left() -> Remaining:
        return remaining_of(
            path_of(branch),
            expiry_height=branch.terms.expiry_height,
            confirmed=chain.confirmed,
            tip_height=chain.tip_height,
        )

    before = left()
    chain.reorg(n_blocks)
    assert left().exit_blocks >= before.exit_blocks


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_path_is_cut_off_by_whatever_else_spends_what_it_spends(branch: SignedBranch) -> None:
    path = path_of(branch.branch)
    own = {tx.inputs[0].outpoint: tx for tx in branch.txs}
    assert not is_cut_off(path, {})
    assert not is_cut_off(path, own)
    for step in path:
        other = next(tx for tx in branch.txs if tx.txid != step.txid)
        assert is_cut_off(path, own | {step.outpoint: other})
