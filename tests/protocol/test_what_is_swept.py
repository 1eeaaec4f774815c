"""What an LSP takes of a tree by itself, and when nothing is left: by what blocks have of it."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.old_states import bring_on_chain, sold, stock_outpoint
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link
from tests.protocol.seen_blocks import buried, spending, up_to, with_blocks
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_lsp_sweeps import SHORT
from tests.protocol.unanswered import chain_at, pending_for

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.protocol.exiting.lsp_sweep import (
    awaited_outputs,
    closes_in,
    effects_of,
    is_closed,
    is_in_channels,
    is_over,
    is_swept_for_good,
    is_to_be_swept,
    left_outputs,
    lost_by_sweep,
    sweep_actions,
    sweeps_due,
    tell_swept,
    without_what_is_swept,
)
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.closes import FinishedClose, SignedClose
from cromford.protocol.journal.exit_records import OutputsSwept
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.protocol.policy import DyingStep
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees
from cromford.watch.lsp_sweep import SweepTx

FEES: Final = OwnFees()
DEAR: Final = OwnFees(estimates=((144, 200_000),))  # A sweep of an L-stock would cost all of it.
DEEP: Final = 6
ROOT: Final = ("kickoff_root", "state_root")
FIRST_LEAF: Final = (*ROOT, "kickoff_0", "state_0")
ALL: Final = (*FIRST_LEAF, "kickoff_1", "state_1")


@pytest.fixture(scope="module")
def factory() -> Factory:
    """Return a funded factory of four clients, two to a leaf, of which nothing is on chain."""
    return live_factory(4, policy=SHORT).factory


def published(factory: Factory, *names: str, n_blocks: int = 4) -> Factory:
    """Return it with transactions of its tree in blocks, this many between any two."""
    chain = factory.chain
    for name in names:
        chain = buried(chain, n_blocks, factory.attempt.signed_txs[name])
    return replace(factory, chain=chain)


def at_expiry(factory: Factory, n_blocks: int = 0) -> Factory:
    """Return it when its expiry has come, or some blocks from then."""
    return replace(
        factory, chain=up_to(factory.chain, factory.attempt.terms.expiry_height + n_blocks)
    )


def seen(factory: Factory, *txs: Tx, depth: int = 1) -> Factory:
    return replace(factory, chain=buried(factory.chain, depth, *txs))


def with_finished(factory: Factory, outpoint: OutPoint) -> tuple[Factory, Tx]:
    """Return it with a close of an output that everybody signed, and that close."""
    tx = spending(outpoint)
    close = FinishedClose(close_id=CLOSE_ID, outpoint=outpoint, txs=(tx,))
    signed = SignedClose(
        close_id=CLOSE_ID, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    links = Map(
        {name: changed(link, closes=(signed,)) for name, link in factory.book.links.items()}
    )
    book = changed(factory.book, links=links)
    return replace(factory, closed=Map({CLOSE_ID: close}), book=book), tx


def names(factory: Factory, fees: OwnFees = FEES) -> list[str]:
    """Return what it takes or publishes now, by name."""
    return [
        one.output.name if isinstance(one, SweepTx) else one.node.name
        for one in sweep_actions(factory, fees)
    ]


def output(factory: Factory, name: str) -> OutPoint:
    return next(one.outpoint for one in factory.attempt.tree.timelocked_outputs if one.name == name)


def told(factory: Factory) -> list[Any]:
    """Return what is remembered of its newest block as swept."""
    turn: Turn[Factory] = Turn(factory, apply_to_factory, FRESH)
    tell_swept(turn)
    return list(turn.decision.records)


STOCK: Final = "state_0:2"
CHILDREN: Final = ["state_root:0", "state_root:1"]


@pytest.mark.parametrize(
    ("on_chain", "before", "after"),
    [
        ((), [], ["funding"]),
        (ROOT, [], CHILDREN),
        (ROOT[:1], ["state_root"], ["state_root"]),
        (FIRST_LEAF, [STOCK], ["state_root:1", STOCK]),
    ],
)
def test_what_is_the_lsps_follows_from_how_far_the_tree_has_come(
    factory: Factory, on_chain: tuple[str, ...], before: list[str], after: list[str]
) -> None:
    there = published(factory, *on_chain, n_blocks=5)
    assert names(at_expiry(there, -1)) == before
    assert names(at_expiry(there)) == after
    assert names(there) == before


def test_before_its_funding_is_signed_nothing_of_a_factory_is_anybodys(factory: Factory) -> None:
    aborted = changed(factory.attempt, stage=Aborted(reason="somebody went"))
    unfunded = at_expiry(replace(factory, begun=aborted))
    assert sweep_actions(unfunded, FEES) == ()
    assert awaited_outputs(unfunded) == ()
    assert left_outputs(unfunded, DEAR) == ()


def test_without_a_sweep_in_its_policy_an_lsp_takes_its_stocks_alone(factory: Factory) -> None:
    policy = replace(SHORT, dying_policy=(DyingStep.MOVE, DyingStep.CLOSE))
    patient = replace(factory, config=replace(factory.config, policy=policy))
    assert names(at_expiry(patient)) == []
    assert awaited_outputs(at_expiry(patient)) == ()
    assert names(at_expiry(published(patient, *FIRST_LEAF))) == [STOCK]


def test_what_a_finished_close_spends_is_left_to_it(factory: Factory) -> None:
    """It pays the clients, too: the sweep of what was agreed on would take their money."""
    there = at_expiry(published(factory, *ROOT))
    closing, _ = with_finished(there, output(factory, "state_root:0"))
    assert names(closing) == ["state_root:1"]
    assert [one.name for one in awaited_outputs(closing)] == ["state_root:1"]
    assert [one.name for one in awaited_outputs(there)] == CHILDREN


def test_a_marked_lsp_publishes_no_state_before_the_expiry(factory: Factory) -> None:
    """It may be superseded; whoever has a newer one has until then to publish that."""
    marked = replace(published(factory, *ROOT[:1], n_blocks=5), is_marked=True)
    assert names(at_expiry(marked, -1)) == []
    assert names(at_expiry(marked)) == ["state_root"]
    stock = replace(published(factory, *FIRST_LEAF, n_blocks=5), is_marked=True)
    assert names(stock) == [STOCK], "its own, whatever was lost"


def test_a_stock_whose_poisons_clients_may_hold_is_not_taken() -> None:
    pump, done = sold()
    bring_on_chain(pump, done, 0)
    known = lsp_state(pump).factory(0)
    chain = known.chain
    for height in range(chain.height + 1, pump.chain.height + 1):
        chain = with_blocks(chain, pump.chain.blocks[height][1])
    there = replace(known, chain=up_to(chain, chain.height + 40))
    stock = stock_outpoint(done, 0)
    assert stock.txid in there.chain.confirmed
    assert stock not in {one.outpoint for one in awaited_outputs(there)}
    assert names(there) == []
    assert left_outputs(there, DEAR) == ()
    poison = done.leaf.stock_poison(0).tx
    assert poison.inputs[0].outpoint == stock
    assert told(seen(there, poison)) == [], "it is the clients'"


def test_before_outputs_are_taken_the_mempool_is_asked_who_else_spends_them(
    factory: Factory,
) -> None:
    there = at_expiry(published(factory, *ROOT, "kickoff_0", n_blocks=5))
    actions = sweep_actions(there, FEES)
    lookup, state = effects_of(actions, there, FEES)
    swept = output(factory, "state_root:1")
    assert lookup == fx.LookUpSpenders(factories=(factory.number,), outpoints=(swept,))
    assert isinstance(state, fx.Broadcast)
    assert (state.name, state.tx) == ("state_0", factory.attempt.signed_txs["state_0"])
    assert state.bumping is not None, "from the expiry on what is below is ours"
    (due,) = sweeps_due(there, FEES)
    assert due.spend.output.outpoint == swept
    only_states = at_expiry(published(factory, *ROOT[:1], n_blocks=5), -1)
    (publishing,) = effects_of(sweep_actions(only_states, FEES), only_states, FEES)
    assert isinstance(publishing, fx.Broadcast)


def test_the_way_into_what_is_swept_is_not_published(factory: Factory) -> None:
    there = at_expiry(published(factory, *ROOT))
    actions = sweep_actions(there, FEES)
    signed = factory.attempt.signed_txs
    into, beside = (fx.Broadcast(name=one, tx=signed[one]) for one in ("kickoff_0", "kickoff_root"))
    other = fx.LookUpSpenders(factories=(0,), outpoints=())
    joint = fx.Broadcast(
        name="two", tx=spending(output(factory, "funding"), output(factory, "state_root:1"))
    )
    kept = without_what_is_swept((beside, into, joint, other), actions)
    assert kept == (beside, other)
    assert without_what_is_swept((into, other), ()) == (into, other)
    lower = at_expiry(published(factory, *ROOT, "kickoff_0"))
    assert without_what_is_swept((into,), sweep_actions(lower, FEES)) == (into,)


def test_a_channel_is_to_be_swept_if_what_expired_is_before_its_branch(factory: Factory) -> None:
    clients = range(1, 5)
    first_leaf = [factory.attempt.leaf_name(client) == "0" for client in clients]

    def swept(there: Factory) -> list[bool]:
        return [is_to_be_swept(there, client) for client in clients]

    assert swept(at_expiry(factory, -1)) == [False] * 4
    assert swept(at_expiry(factory)) == [True] * 4
    assert swept(at_expiry(published(factory, *ROOT))) == [True] * 4
    there = published(factory, *ROOT, "kickoff_0")
    assert swept(at_expiry(there)) == [not is_first for is_first in first_leaf]
    policy = replace(SHORT, dying_policy=(DyingStep.MOVE,))
    patient = replace(factory, config=replace(factory.config, policy=policy))
    assert swept(at_expiry(patient)) == [False] * 4


def test_what_costs_more_than_it_holds_is_listed_and_waits(factory: Factory) -> None:
    there = at_expiry(published(factory, *FIRST_LEAF))
    assert left_outputs(there, FEES) == ()
    assert left_outputs(factory, DEAR) == ()
    assert [one.name for one in left_outputs(there, DEAR)] == [STOCK]


# When nothing is left of it


def taking(factory: Factory, *outputs: str) -> Tx:
    return spending(*(output(factory, name) for name in outputs))


def of_channels(factory: Factory, *clients: int) -> Tx:
    return spending(*(factory.funding_on_chain(client).outpoint for client in clients))


def test_nothing_is_left_once_each_output_and_each_channel_on_chain_is_spent(
    factory: Factory,
) -> None:
    clients = range(1, 5)
    first = [one for one in clients if factory.attempt.leaf_name(one) == "0"]
    root = published(factory, *ROOT)
    assert not is_over(factory)
    assert is_over(seen(factory, taking(factory, "funding")))
    assert not is_over(published(factory, *ROOT[:1])), "the state of its kickoff is to come"
    assert not is_over(root)
    assert not is_over(seen(root, taking(factory, CHILDREN[0])))
    assert is_over(seen(root, taking(factory, *CHILDREN)))
    assert not is_over(published(seen(root, taking(factory, CHILDREN[1])), "kickoff_0"))
    leaf = seen(published(factory, *FIRST_LEAF), taking(factory, CHILDREN[1]))
    assert not is_over(leaf)
    assert not is_over(seen(leaf, taking(factory, STOCK)))
    assert not is_over(seen(leaf, taking(factory, STOCK), of_channels(factory, first[0])))
    assert not is_over(seen(leaf, of_channels(factory, *first))), "but for the L-stock"
    assert is_over(seen(leaf, taking(factory, STOCK), of_channels(factory, *first)))
    assert not is_over(replace(factory, chain=chain_at(400))), "its funding left the chain"
    all_of_it = published(factory, *ALL)
    stocks = taking(factory, STOCK, "state_1:2")
    assert is_over(seen(all_of_it, stocks, of_channels(factory, *clients)))
    assert not is_over(seen(all_of_it, stocks, of_channels(factory, 1, 2, 3)))
    assert not is_over(seen(all_of_it, stocks, of_channels(factory, 2, 3, 4)))


def test_a_funding_is_swept_for_good_six_blocks_under_what_is_not_its_root(
    factory: Factory,
) -> None:
    sweep = taking(factory, "funding")
    assert not is_swept_for_good(factory)
    assert not is_swept_for_good(published(factory, *ROOT, n_blocks=DEEP))
    assert not is_swept_for_good(seen(factory, sweep, depth=DEEP - 1))
    assert is_swept_for_good(seen(factory, sweep, depth=DEEP))


def test_what_was_taken_in_place_of_the_tree_was_closed_or_swept(factory: Factory) -> None:
    def said(there: Factory) -> tuple[bool, bool]:
        return is_in_channels(there), is_closed(there)

    root = published(factory, *ROOT)
    stock = seen(published(factory, *FIRST_LEAF), taking(factory, STOCK))
    assert said(factory) == said(root) == said(stock) == (True, False)
    assert said(seen(root, taking(factory, CHILDREN[0]))) == (False, False)
    closing, close = with_finished(root, output(factory, CHILDREN[0]))
    assert said(closing) == (True, False)
    done = seen(closing, close)
    assert said(done) == (False, True)
    assert closes_in(done) == {close.txid}
    assert said(seen(done, taking(factory, CHILDREN[1]))) == (False, False)
    first = factory.funding_on_chain(1).outpoint
    below, close = with_finished(published(factory, *ALL), first)
    assert said(seen(below, close)) == (False, True), "a close of a channel on chain"


def test_a_block_tells_what_was_swept_in_it_and_nothing_of_closes(factory: Factory) -> None:
    root = published(factory, *ROOT)
    both = taking(factory, *CHILDREN)
    there = seen(root, both)
    amounts = {one.name: one.prevout.amount_sat for one in factory.attempt.tree.timelocked_outputs}
    assert told(there) == [
        OutputsSwept(
            attempt_id=factory.attempt.attempt_id,
            height=there.chain.height,
            txid=bytes(both.txid),
            outputs=tuple(CHILDREN),
            amount_sat=sum(amounts[one] for one in CHILDREN),
        )
    ]
    assert told(seen(root, both, depth=2)) == [], "it was told with the block before"
    closing, close = with_finished(root, output(factory, CHILDREN[0]))
    assert told(seen(closing, close)) == []


def test_what_an_lsp_offered_in_a_channel_that_a_sweep_cut_off_came_back() -> None:
    pump = live_factory(3, policy=SHORT)
    _, link = pending_for(pump, "lsp", 9_000_000)
    factory = lsp_state(pump).factory(0)
    own = lsp_link(pump, newest_link(pump.clients[1]))
    assert own == link
    (live,) = link.state.htlcs
    sweep = taking(factory, "funding")
    assert list(lost_by_sweep(factory, link)) == []
    assert list(lost_by_sweep(seen(factory, sweep, depth=DEEP - 1), link)) == []
    (back,) = lost_by_sweep(seen(factory, sweep, depth=DEEP), link)
    assert (back.htlc_id, back.preimage) == (live.htlc.htlc_id, None)
