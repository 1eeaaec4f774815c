"""When a channel, and a factory, has nothing left for its LSP: looked at block by block."""

from dataclasses import replace
from functools import cache
from typing import Final

from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_looked_after import mined
from tests.protocol.unanswered import FIRST_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import CommitmentOutputKind
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting.lsp_sweep import (
    awaited_outputs,
    is_over,
    is_swept_for_good,
    is_to_be_swept,
    left_outputs,
    sweep_actions,
    without_what_is_swept,
)
from cromford.protocol.exiting.rest import is_shared_out
from cromford.protocol.exiting.settled import is_resolved
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Decision
from cromford.watch.feerates import OwnFees
from cromford.watch.lsp_sweep import SweepTx

FEES: Final = OwnFees()


@cache
def live() -> tuple[Factory, Link]:
    """Return a factory of one client that has money, and its LSP's end of the channel."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    return pump.factory, lsp_link(pump, newest_link(alice))


def on(chain: KnownChain) -> Factory:
    return replace(live()[0], chain=chain)


def now() -> KnownChain:
    return live()[0].chain


def at(height: int) -> KnownChain:
    return replace(now(), recent=(replace(now().recent[-1], height=height),))


def funding() -> OutPoint:
    return live()[0].attempt.funding_outpoint


def expiry() -> int:
    return live()[0].attempt.terms.expiry_height


def tree() -> tuple[Tx, ...]:
    """Return the transactions from the root to the leaf's state."""
    attempt = live()[0].attempt
    return tuple(attempt.signed_txs[node.name] for node in attempt.tree.nodes)


def own_output(of: Tx) -> OutPoint:
    (vout,) = (
        vout
        for vout, output in enumerate(live()[1].finished.commitment.outputs)
        if output.kind is CommitmentOutputKind.TO_HOLDER
    )
    return of.outpoint(vout)


def test_what_was_swept_above_it_is_resolved_six_blocks_deep_and_so_is_the_factory() -> None:
    _, link = live()
    assert not is_resolved(on(now()), link)
    assert not is_swept_for_good(on(now()))
    sweep = spend_of(funding(), 1_000)
    for n_blocks, is_deep in ((1, False), (5, False), (6, True), (7, True)):
        factory = on(mined(now(), sweep, n_blocks=n_blocks))
        assert is_resolved(factory, link) is is_deep
        assert is_swept_for_good(factory) is is_deep
        assert is_shared_out(factory) is is_deep
        assert is_over(factory), "nothing of it is left, for now"


def test_a_channel_is_resolved_once_what_is_the_lsps_of_it_was_taken_six_blocks_deep() -> None:
    _, link = live()
    chain = now()
    for tx in tree():
        chain = mined(chain, tx)
        assert not is_swept_for_good(on(mined(chain, n_blocks=9)))
        assert not is_over(on(chain))
    commitment = link.finished.tx
    chain = mined(chain, commitment, n_blocks=9)
    assert not is_resolved(on(chain), link)
    taking = spend_of(own_output(commitment), 1_000)
    assert not is_resolved(on(mined(chain, taking, n_blocks=5)), link)
    assert is_resolved(on(mined(chain, taking, n_blocks=6)), link)


def test_from_its_expiry_on_an_unspent_funding_is_the_lsps_and_nobody_leaves_by_it() -> None:
    assert not is_to_be_swept(on(at(expiry() - 1)), 1)
    assert awaited_outputs(on(at(expiry() - 1))) == ()
    assert sweep_actions(on(at(expiry() - 1)), FEES) == ()
    factory = on(at(expiry()))
    assert is_to_be_swept(factory, 1)
    (output,) = awaited_outputs(factory)
    assert (output.outpoint, output.is_expiring) == (funding(), True)
    (action,) = sweep_actions(factory, FEES)
    assert isinstance(action, SweepTx)
    assert action.output.outpoint == funding()
    assert left_outputs(factory, FEES) == ()
    dear = OwnFees(estimates=((144, 250_001),))
    assert sweep_actions(factory, dear) == ()
    (left,) = left_outputs(factory, dear)
    assert left.outpoint == funding()
    # Whoever was in time is on its way to its channel: that path is no longer to be swept.
    begun = on(mined(at(expiry() - 1), tree()[0]))
    assert not is_to_be_swept(begun, 1)


def test_where_an_output_is_swept_the_way_into_it_is_not_published_and_nothing_else_waits() -> None:
    actions = sweep_actions(on(at(expiry())), FEES)
    root, below, *_ = tree()
    into, elsewhere = (fx.Broadcast(name="a step", tx=tx) for tx in (root, below))
    other = fx.DropPools(pool_ids=())
    assert without_what_is_swept((into, other, elsewhere), actions) == (other, elsewhere)
    assert without_what_is_swept((into, other), ()) == (into, other)


# What the house hears of it


@cache
def house() -> LspState:
    """Return the LSP as it sees the channel's commitment in a block, whoever published it."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    attempt = pump.attempt
    link = lsp_link(pump, newest_link(alice))
    state: LspState = pump.lsp.state
    for node in attempt.tree.nodes:
        state = block(state, attempt.signed_txs[node.name]).state
    return block(state, link.finished.tx).state


def block(state: LspState, *txs: Tx, fees: OwnFees = FEES) -> Decision[LspState]:
    height = state.chain.height + 1
    event = ev.BlockAdded(height=height, block_hash=Txid(height.to_bytes(32, "big")), txs=txs)
    return lsp_role.decide(state, event, replace(FRESH, fees=fees))


def settled(decision: Decision[LspState]) -> list[int]:
    """Return of which clients a decision says that the house lends nothing any more."""
    return [one.client for one in decision.records if isinstance(one, xr.ExitSettled)]


def own_output_of_house() -> OutPoint:
    (factory,) = house().factories.values()
    (link,) = factory.book.links.values()
    (vout,) = (
        vout
        for vout, output in enumerate(link.finished.commitment.outputs)
        if output.kind is CommitmentOutputKind.TO_HOLDER
    )
    return link.finished.tx.outpoint(vout)


def after(state: LspState, n_blocks: int, *, fees: OwnFees = FEES) -> list[list[int]]:
    """Return what each of some blocks settles, one after the other."""
    told = []
    for _ in range(n_blocks):
        decision = block(state, fees=fees)
        told.append(settled(decision))
        state = decision.state
    return told


def test_capital_is_free_once_when_all_that_was_the_lsps_is_taken_six_blocks_deep() -> None:
    assert after(house(), 10) == [[]] * 10, "its balance is still to be taken"
    taken = block(house(), spend_of(own_output_of_house(), 1_000)).state
    assert after(taken, 7) == [[], [], [], [], [1], [], []]


def test_what_is_not_worth_its_fee_holds_no_capital_but_for_a_feerate_that_nobody_believes() -> (
    None
):
    most = OwnFees(estimates=((144, 250_000),))
    assert after(house(), 7, fees=most) == [[], [], [], [], [1], [], []]
    strange = OwnFees(estimates=((144, 250_001),))
    assert after(house(), 7, fees=strange) == [[]] * 7
