"""A breach, years later: what the peer revoked is looked up, whatever was forgotten since."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.channel.specimen import total_msat
from tests.protocol.advanced import Step
from tests.protocol.old_states import sold
from tests.protocol.paying_clients import (
    begin_payment,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump
from tests.protocol.test_closed import remembered
from tests.protocol.test_exit_guards import ask_to_leave
from tests.protocol.test_leaving import QUICK, wallet_sat
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT
from tests.simulation.sim_node import durable

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.content import CommitmentContent
from cromford.channel.stage import Edition
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting.breach import is_to_be_recalled
from cromford.protocol.exiting.channel import RESOLVED_DEPTH, landed_channel, settled_spender
from cromford.protocol.exiting.lsp import in_hand
from cromford.protocol.exiting.settled import is_resolved
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_state import LspState
from cromford.watch.channel_exit import channel_actions
from cromford.watch.sweep import TakingTx
from cromford.wire import messages as m


def breached(
    pump: Pump, beforehand: Callable[[Pump], object] = bool
) -> tuple[CommitmentContent, CommitmentContent]:
    """Let Alice publish what she revoked; return what two revoked commitments of hers say.

    What happens `beforehand` happens after the revocation.
    """
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    old = newest_link(alice)
    other = old.state.content(old.me, Edition.SIGNED)
    pump.connect(bob)
    pump.run()
    pay(pump, alice, bob, WORTH_MSAT)
    later = newest_link(alice)
    published = later.state.content(later.me, Edition.SIGNED)
    pay(pump, alice, bob, 1_000_000)
    ask_to_leave(pump, alice, alice)
    while pump.chain.coin(old.setting.funding.outpoint) is None:
        pump.mine()
    pump.chain.mempool.clear()
    pump.chain.broadcast(later.finished.tx)
    beforehand(pump)
    pump.mine()
    assert pump.lsp.state.chain.spends[old.setting.funding.outpoint].txid == later.finished.tx.txid
    return published, other


def test_a_breach_is_remembered_once_and_for_the_transaction_that_confirmed() -> None:
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    published, other = breached(pump)
    channel_id = newest_link(pump.clients[0]).channel_id
    (found,) = remembered(pump.lsp, cr.BreachFound)
    assert found == cr.BreachFound(channel_id=channel_id, content=published)
    for content in (published, other):
        asked = fx.RecallCommitment(channel_id=channel_id, number=content.number)
        pump.handle(pump.lsp, ev.CommitmentRecalled(asked=asked, content=content))
    pump.restart(pump.lsp)
    pump.mine(8)
    assert remembered(pump.lsp, cr.BreachFound) == [found]


def test_a_breach_is_punished_as_soon_as_it_is_recalled_and_not_a_block_later() -> None:
    """Each block that passes is one less before the cheater may take what it claims."""
    pump = live_factory(2, policy=QUICK)
    breached(pump)
    spender = pump.lsp.state.chain.spends[newest_link(pump.clients[0]).present.outpoint]
    names = [one.spend.name for one in pump.wishes(pump.lsp, fx.SignTakingTx)]
    assert sorted(names) == ["penalty", "sweep"]
    taken = {
        one
        for one, txout in zip(spender.outpoints, spender.outputs, strict=True)
        if txout.amount_sat > ANCHOR_DUST_SAT
    }
    assert set(pump.chain.spenders(spender.outpoints)) == taken, "all of it waits for a block"


def test_what_is_recalled_of_a_block_that_is_gone_changes_nothing() -> None:
    """The answer may come after a reorganisation: it is of what spent another funding then.

    Where less was sold, what it says cannot spend the output that is on chain now.
    """
    pump = live_factory(2, policy=QUICK)
    before: list[LspState] = []
    published, _ = breached(pump, lambda pump: before.append(pump.lsp.state))
    link = newest_link(pump.clients[0])
    asked = fx.RecallCommitment(channel_id=link.channel_id, number=published.number)
    event = ev.CommitmentRecalled(asked=asked, content=published)
    decision = lsp_role.decide(before[0], event)
    assert (decision.records, decision.faults) == ((), ())
    of_more = replace(published, accepter_msat=1_000 * link.present.capacity_sat)
    event = ev.CommitmentRecalled(asked=asked, content=of_more)
    decision = lsp_role.decide(pump.lsp.state, event)
    assert (decision.records, decision.faults) == ((), ())


def test_another_breach_than_before_a_reorganisation_is_looked_up_before_it_is_settled() -> None:
    """What is known of the one says nothing of the other, that is in a block now."""
    pump = live_factory(2, policy=QUICK)
    published, other = breached(pump)
    pump.mine(RESOLVED_DEPTH)
    link = lsp_link(pump, newest_link(pump.clients[0]))
    chain = pump.factory.chain
    spender = chain.spends[link.present.outpoint]
    assert link.breach == published
    assert settled_spender(link, chain) == spender
    for before in (None, other):
        unknown = replace(link, breach=before)
        assert is_to_be_recalled(unknown, spender)
        assert settled_spender(unknown, chain) is None


def test_a_breach_is_recalled_from_the_state_in_which_it_was_the_latest() -> None:
    pump = live_factory(2, policy=QUICK)
    published, other = breached(pump)
    assert recalled(pump, published.number) == published
    assert recalled(pump, other.number) == other
    assert recalled(pump, published.number + 40) is None


def checkpointed(pump: Pump) -> None:
    """Let everybody take a checkpoint, and go on from it."""
    for node in (pump.lsp, *pump.clients):
        node.checkpoint()
    pump.restart(pump.lsp)


def check_punished(pump: Pump, published: CommitmentContent, before_sat: int) -> None:
    """Check that the LSP found the breach once, and that nothing of the channel is Alice's."""
    alice = pump.clients[0]
    channel_id = newest_link(alice).channel_id
    found = cr.BreachFound(channel_id=channel_id, content=published)
    assert remembered(pump.lsp, cr.BreachFound) == [found]
    pump.mine(12)
    commitment = pump.lsp.state.chain.spends[newest_link(alice).setting.funding.outpoint]
    left = {commitment.outpoint(vout) for vout in range(len(commitment.outputs))}
    taken = [tx for _, txs in pump.chain.blocks for tx in txs if left & spent_by(tx)]
    assert taken
    assert wallet_sat(alice) == before_sat
    assert durable(pump.lsp.durable_state()) == durable(pump.lsp.state)


def spent_by(tx: Tx) -> set[OutPoint]:
    return {tx_in.outpoint for tx_in in tx.inputs}


def test_a_breach_is_punished_with_a_checkpoint_after_the_revocation() -> None:
    """The records that said what was revoked are gone: the archive has it."""
    pump = live_factory(2, policy=QUICK)
    before_sat = wallet_sat(pump.clients[0])
    published, other = breached(pump, checkpointed)
    checkpoint = pump.lsp.store.checkpoints[pump.factory.stream]
    assert checkpoint.n > 0
    assert recalled(pump, other.number) == other
    check_punished(pump, published, before_sat)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fuse", range(1, 12))
def test_a_breach_is_punished_whatever_crashes_when_it_is_seen(fuse: int) -> None:
    pump = live_factory(2, policy=QUICK)
    before_sat = wallet_sat(pump.clients[0])

    def die_soon(pump: Pump) -> None:
        checkpointed(pump)
        pump.lsp.fuse = fuse

    published, _ = breached(pump, die_soon)
    check_punished(pump, published, before_sat)
    assert pump.lsp.n_deaths == 2


def test_what_a_cheater_takes_while_its_commitment_is_looked_up_is_punished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon that was away reads on while its disk is busy, and has both blocks before."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    shown = {request.payment_hash: book(bob).invoices[request.payment_hash].preimage}
    old = replace(in_hand(pump.factory, newest_link(alice).client), preimages=shown)
    pump.run()
    pay(pump, alice, bob, 1_000_000)
    ask_to_leave(pump, alice, alice)
    while pump.chain.coin(old.link.present.outpoint) is None:
        pump.mine()

    assert alice.driver is not None
    look_up = alice.driver.recall
    late: list[fx.RecallCommitment] = []

    def put_off(asked: fx.RecallCommitment) -> tuple[ev.Event, ...]:
        late.append(asked)
        return ()

    monkeypatch.setattr(alice.driver, "recall", put_off)
    confirm(pump, old.link.finished.tx)
    (due,) = (
        action
        for action in channel_actions(landed_channel(old, pump.factory.chain))
        if isinstance(action, TakingTx)
    )
    (made,) = pump.lsp.perform(fx.SignTakingTx(key=old.link.key, spend=due))
    assert isinstance(made, ev.TakingTxSigned)
    confirm(pump, made.tx)
    monkeypatch.undo()
    for event in look_up(late[0]):
        pump.handle(alice, event)

    pump.mine(2)
    assert made.tx.outpoint(0) in alice.state.chain.spends
    (paid,) = alice.state.chain.spends[made.tx.outpoint(0)].outputs
    assert paid.script_pubkey in alice.state.wallet.scripts


def test_a_breach_is_not_settled_before_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be ours as a whole. Blocks are read on while the disk is busy."""
    pump = live_factory(2, policy=QUICK)
    before_sat = wallet_sat(pump.clients[0])
    assert pump.lsp.driver is not None
    look_up = pump.lsp.driver.recall
    late: list[fx.RecallCommitment] = []

    def put_off(asked: fx.RecallCommitment) -> tuple[ev.Event, ...]:
        late.append(asked)
        return ()

    monkeypatch.setattr(pump.lsp.driver, "recall", put_off)
    published, _ = breached(pump)
    pump.mine(RESOLVED_DEPTH)
    assert not is_resolved(pump.factory, lsp_link(pump, newest_link(pump.clients[0])))
    assert remembered(pump.lsp, xr.ExitSettled) == []
    monkeypatch.undo()
    for event in look_up(late[0]):
        pump.handle(pump.lsp, event)
    check_punished(pump, published, before_sat)
    assert len(remembered(pump.lsp, xr.ExitSettled)) == 1


def confirm(pump: Pump, tx: Tx) -> None:
    """Let a transaction be alone in the next block."""
    pump.chain.mempool.clear()
    pump.chain.broadcast(tx)
    pump.mine()
    assert tx.txid in pump.chain.confirmed


@pytest.mark.sampled(5)
@pytest.mark.parametrize("fuse", range(1, 16))
def test_what_was_revoked_is_known_whatever_crashes_as_it_is_revoked(fuse: int) -> None:
    """The secret and what it revokes are one append: never one without the other."""
    pump = live_factory(2, policy=QUICK)
    alice, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, alice, 1_000_000)
    pump.lsp.fuse = fuse
    pump.handle(pump.lsp, request)
    pump.run()
    assert pump.lsp.n_deaths == 1
    link = lsp_link(pump, newest_link(alice))
    assert link.state.peer_revoked > 1
    for number in range(link.state.peer_revoked):
        content = recalled(pump, number)
        assert content is not None
        assert content.number == number
        assert total_msat(content) == 1000 * link.setting.funding.capacity_sat
    assert recalled(pump, link.state.peer_revoked) is None


def test_what_a_revoked_commitment_said_takes_few_bytes() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    for _ in range(5):
        pay(pump, alice, bob, 1_000_000)
    sizes = [len(key) + len(value) for (_, key), value in pump.lsp.store.archive.items()]
    assert len(sizes) > 20
    assert sum(sizes) / len(sizes) < 110


def recalled(pump: Pump, number: int) -> CommitmentContent | None:
    """Return what the LSP's journal says about a commitment of Alice's."""
    assert pump.lsp.driver is not None
    channel_id = newest_link(pump.clients[0]).channel_id
    stream = pump.factory.stream
    effect = fx.RecallCommitment(channel_id=channel_id, number=number, stream=stream)
    events = [*pump.lsp.driver.recall(effect)]
    contents = [one.content for one in events if isinstance(one, ev.CommitmentRecalled)]
    assert len(contents) == len(events) <= 1
    return contents[0] if contents else None


def unsigned_by_its_peer() -> Link:
    """Return a channel whose peer revoked more commitments than it signed for us."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = replace(make_invoice(pump, bob, 1_000_000), payment_secret=bytes(32))
    pump.handle(alice, request)
    pump.run_to(m.UpdateFailHtlc)
    with pump.tampering(
        lambda sender, _to, message: (
            () if sender is alice and isinstance(message, m.CommitmentSigned) else (message,)
        )
    ):
        pump.run()
        begin_payment(pump, pump.lsp, alice, 1_000_000)
    link = lsp_link(pump, newest_link(alice))
    assert link.finished.commitment.content.number < link.state.peer_revoked
    return link


def test_our_own_commitment_is_not_looked_up_though_its_number_is_that_of_a_revoked_one() -> None:
    link = unsigned_by_its_peer()
    own = link.finished.tx
    assert not is_to_be_recalled(link, own)
    theirs = replace(own, outputs=own.outputs[::-1])
    assert is_to_be_recalled(link, theirs), "of that number, and not ours"
    assert not is_to_be_recalled(replace(link, breach=link.finished.commitment.content), theirs)
    latest = link.peer_commitments_on(link.present)[-1].commitment.tx
    assert not is_to_be_recalled(link, latest), "it was never revoked"


def test_what_was_revoked_is_looked_up_on_whichever_output_of_the_channel_it_spends() -> None:
    """Also on one where we hold no commitment any more, and on one that our store forgot."""
    pump, done = sold(None)
    alice, _ = pump.clients
    fraud = lsp_link(pump, newest_link(alice)).finished.tx
    done.begin(Step.REBASED)
    link = newest_link(alice)
    assert link.finished_on(link.superseded[0]) is None
    assert is_to_be_recalled(link, fraud)
    (spent,) = fraud.inputs
    forgotten = replace(spent, outpoint=OutPoint(txid=spent.outpoint.txid, vout=77))
    assert is_to_be_recalled(link, replace(fraud, inputs=(forgotten,)))
