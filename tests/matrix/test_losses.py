"""What a client has to have: blocks, and satoshis for children, enough to get where its money is.

Each of them has a balance of 40,000 sat, and an LSP that is silent and takes what it can.
"""

import pytest

from tests.matrix.accounts import Account
from tests.matrix.histories import FIRST_MSAT, rogue
from tests.matrix.market import HIGH
from tests.matrix.play import Case, finish, play
from tests.matrix.world import MatrixWorld

NEXT_BLOCK_SAT = 5_000  # More than any child costs that gets its parent into the next block.


def leave_late(late_blocks: int, *, n_clients: int) -> tuple[Account, list[int]]:
    """Let a client wake so long after its exit deadline; return what it has, and its children."""
    world = MatrixWorld(n_clients=n_clients, market=HIGH, seed="late")
    client = world.clients[0]
    world.give(client, FIRST_MSAT)
    deadline_height = world.attempt_of(client).branch.exit_deadline_height
    rogue(world, world.node("lsp"))
    world.mine_to(deadline_height - 1)
    assert late_blocks <= world.absence_blocks(client)
    if late_blocks:
        world.sleep(client, late_blocks)
    accounts = finish(world, ["lsp"])
    world.chain.close()
    children = [one.fee_sat for one in accounts.story if one.name == "child"]
    return accounts.by_name[client.name], children


@pytest.mark.sampled(0)
def test_a_client_that_is_there_in_time_pays_for_each_step_what_the_next_block_costs() -> None:
    account, children = leave_late(0, n_clients=2)
    assert max(children) < NEXT_BLOCK_SAT
    assert account.gain_sat == 0


@pytest.mark.sampled(0)
def test_a_client_that_wakes_within_its_absence_pays_no_more() -> None:
    """Its exit deadline leaves 144 blocks for that."""
    account, children = leave_late(36, n_clients=4)
    assert account.gain_sat == 0
    assert max(children) < NEXT_BLOCK_SAT


@pytest.mark.sampled(0)
def test_a_client_whose_steps_are_pinned_pays_what_is_left_to_lose() -> None:
    outcome = play(
        Case(scenario="all against a client, pinned", n_clients=4, market="high", seed=0)
    )
    assert outcome.losses == ()


@pytest.mark.sampled(0)
def test_a_payee_that_wakes_within_its_absence_is_paid() -> None:
    """At the lowest feerates; the LSP takes back the HTLC whose preimage it knows."""
    name = "all against a client, HTLCs withheld, victim asleep"
    outcome = play(Case(scenario=name, n_clients=2, market="low", seed=0))
    assert outcome.losses == ()
