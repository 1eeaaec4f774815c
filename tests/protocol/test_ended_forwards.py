"""HTLCs of clients that end with their channel on chain, and not by an answer of the LSP's."""

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest
from immutables import Map
from tests.protocol.exits import POLICY, ExitPump
from tests.protocol.old_states import told
from tests.protocol.paying_clients import (
    begin_payment,
    book,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_swept_factories import see, sweep_of
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT
from tests.simulation.sim_node import durable

from cromford.daemon.lookups import LspLookup
from cromford.daemon.payment_outcomes import FORWARDED, PaymentOutcomes
from cromford.daemon.views.payments import show_forward
from cromford.protocol import events as ev
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.exiting.incoming import ended_with_channel
from cromford.protocol.exiting.lsp import in_hand
from cromford.protocol.exiting.rest import is_shared_out
from cromford.protocol.exiting.settled import is_resolved
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book, Errand, Forward
from cromford.protocol.journal.book_fold import apply_to_book
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

SHORT: Final = replace(POLICY, active_blocks=260, dying_blocks=144, ready_min_blocks=10)

WAITING: Final = ("arrived", "held", "forwards", "resolved", "released")


def world(policy: LspPolicy = POLICY, *, n_clients: int = 2) -> ExitPump:
    """Return a factory, the first client of which can pay."""
    pump = ExitPump(0, n_clients=n_clients, policy=policy)
    assert pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT).status == "paid"
    return pump


def paid_on(pump: ExitPump, amount_msat: int, *, payee: int = 1) -> Forward:
    """Let a payee show its preimage while the payer is away, and return the forward."""
    alice = pump.clients[0]
    pump.handle(alice, make_invoice(pump, pump.clients[payee], amount_msat))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    assert forward.preimage is not None
    return forward


def refused_on(pump: ExitPump, amount_msat: int) -> None:
    """Let the payee give an HTLC back while the payer is away."""
    alice, bob = pump.clients
    request = replace(make_invoice(pump, bob, amount_msat), payment_secret=bytes(32))
    pump.handle(alice, request)
    pump.run_to(m.UpdateFailHtlc)
    pump.disconnect(alice)
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    assert forward.failure is not None


def held_on(pump: ExitPump, amount_msat: int) -> None:
    """Let an HTLC wait for a payee that is away."""
    alice, bob = pump.clients
    pump.disconnect(bob)
    pump.handle(alice, make_invoice(pump, bob, amount_msat))
    pump.run()
    assert len(book(pump.lsp).held) == 1
    pump.disconnect(alice)


def leave(pump: ExitPump, client: PumpNode) -> None:
    """Let a client leave, until its commitment is in a block."""
    link = newest_link(client)
    pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
    for _ in range(200):
        if link.present.outpoint in client.state.chain.spends:
            return
        pump.mine()
    raise AssertionError("it never left")


def under_way(pump: ExitPump) -> list[str]:
    """Return what the LSP still has to do for somebody's payment."""
    return [name for name in WAITING if getattr(book(pump.lsp), name)]


def restarts_alike(pump: ExitPump) -> None:
    """Check that the journal says what is in memory, and that a restart changes none of it."""
    assert durable(pump.lsp.durable_state()) == durable(pump.lsp.state)
    before = book(pump.lsp)
    pump.restart(pump.lsp)
    pump.run()
    after = book(pump.lsp)
    for name in (*WAITING, "owners", "finished", "earned_msat"):
        assert getattr(after, name) == getattr(before, name)


def shown(pump: ExitPump) -> tuple[str, str | None]:
    (forward,) = book(pump.lsp).finished.values()
    answer = show_forward(book(pump.lsp), forward)
    return answer["status"], answer["failure"]


def test_a_forward_whose_htlc_has_no_output_ends_with_its_channel() -> None:
    pump = world()
    paid_on(pump, SMALL_MSAT)
    leave(pump, pump.clients[0])
    pump.mine(RESOLVED_DEPTH - 2)
    assert told(pump.lsp, cr.IncomingEnded) == []
    restarts_alike(pump)
    assert under_way(pump) == ["forwards", "resolved"]
    pump.mine()
    assert len(told(pump.lsp, cr.IncomingEnded)) == 1
    restarts_alike(pump)
    pump.mine(RESOLVED_DEPTH)
    assert under_way(pump) == []
    assert len(told(pump.lsp, cr.IncomingEnded)) == 1, "once"
    assert shown(pump) == ("unsettled", "it had no output on chain")
    assert book(pump.lsp).earned_msat == 0


def test_a_forward_whose_htlc_its_payer_took_back_is_over_once_that_is_deep() -> None:
    """The LSP slept through the expiry: what it paid on is lost, and it says so."""
    pump = world()
    forward = paid_on(pump, WORTH_MSAT)
    alice = pump.clients[0]
    live = lsp_link(pump, newest_link(alice)).incoming(forward.incoming[1])
    assert live is not None
    pump.stop(pump.lsp)
    leave(pump, alice)
    pump.mine(live.htlc.cltv_expiry + 1 - pump.chain.height)
    pump.lsp.start()
    pump.sync()
    pump.run()
    assert under_way(pump) == ["forwards", "resolved"]
    restarts_alike(pump)
    pump.mine(RESOLVED_DEPTH)
    assert under_way(pump) == []
    assert shown(pump) == ("unsettled", "its payer took it back on chain")
    assert book(pump.lsp).earned_msat == 0
    restarts_alike(pump)


@pytest.mark.parametrize("n_steps", range(1, 7))
def test_it_ends_once_wherever_the_lsp_dies(n_steps: int) -> None:
    pump = world()
    paid_on(pump, SMALL_MSAT)
    leave(pump, pump.clients[0])
    pump.mine(RESOLVED_DEPTH - 2)
    assert under_way(pump) == ["forwards", "resolved"]
    for _ in range(3):
        pump.lsp.fuse = n_steps
        pump.mine()
    pump.lsp.fuse = None
    pump.mine()
    assert under_way(pump) == []
    assert len(told(pump.lsp, cr.IncomingEnded)) == 1
    assert shown(pump)[0] == "unsettled"
    restarts_alike(pump)


def test_a_forward_that_was_taken_on_chain_is_paid_and_ends_once() -> None:
    pump = world()
    paid_on(pump, WORTH_MSAT)
    leave(pump, pump.clients[0])
    pump.mine(3 * RESOLVED_DEPTH)
    assert under_way(pump) == []
    assert told(pump.lsp, cr.IncomingEnded) == []
    assert shown(pump) == ("paid", None)


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
@pytest.mark.parametrize("how", ["refused", "held"])
def test_what_nobody_was_paid_ends_with_the_channel_of_its_payer(
    how: str, amount_msat: int
) -> None:
    pump = world()
    {"refused": refused_on, "held": held_on}[how](pump, amount_msat)
    leave(pump, pump.clients[0])
    assert under_way(pump) != []
    pump.mine(RESOLVED_DEPTH)
    assert under_way(pump) == []
    restarts_alike(pump)
    if how == "refused":
        assert shown(pump)[0] == "failed"
    else:
        assert book(pump.lsp).n_finished == 0


def test_what_arrived_and_was_never_answered_ends_with_its_channel_too() -> None:
    pump = world()
    held_on(pump, WORTH_MSAT)
    leave(pump, pump.clients[0])
    factory = lsp_state(pump).factory(0)
    (key,) = factory.book.held
    link = factory.book.links[key[0]]
    arrived = replace(factory.book, held=Map(), held_for=Map(), arrived=Map({key: None}))
    assert list(ended_with_channel(replace(factory, book=arrived), link, in_hand)) == []
    pump.mine(RESOLVED_DEPTH - 1)
    later = replace(lsp_state(pump).factory(0), book=arrived)
    (ended,) = ended_with_channel(later, link, in_hand)
    assert (ended.channel_id, ended.htlc_id) == key


def test_nothing_ends_while_what_was_offered_for_it_may_still_be_paid() -> None:
    """The payee may show its preimage later: what is owed then is still to be claimed."""
    pump = world()
    alice, bob = pump.clients
    pump.trap(bob, pump.lsp, m.UpdateFulfillHtlc)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    pump.disconnect(bob)
    leave(pump, alice)
    pump.mine(2 * RESOLVED_DEPTH)
    assert under_way(pump) == ["forwards", "released"]
    pump.heal(bob)
    pump.run()
    pump.mine(3 * RESOLVED_DEPTH)
    assert under_way(pump) == []
    assert shown(pump) == ("paid", None)


def test_what_was_swept_above_a_channel_ends_all_that_waited_in_it() -> None:
    pump = world(SHORT)
    refused_on(pump, WORTH_MSAT)
    see(pump, pump.lsp, sweep_of(pump.attempt.funding_outpoint))
    assert under_way(pump) != []
    show_blocks(pump, pump.lsp, until=pump.lsp.state.chain.height + RESOLVED_DEPTH)
    assert under_way(pump) == []
    all_away(pump)
    assert sleeping(pump) == {0}


def test_an_output_that_is_its_payers_alone_keeps_no_factory_awake() -> None:
    """Whoever never takes back its own HTLC on chain does not keep the LSP waiting for it."""
    pump = world()
    refused_on(pump, WORTH_MSAT)
    leave(pump, pump.clients[0])
    pump.mine(40)
    factory = lsp_state(pump).factory(0)
    link = lsp_link(pump, newest_link(pump.clients[0]))
    assert is_resolved(factory, link)
    assert not is_shared_out(factory), "the other channel is as it was"


def test_a_book_without_it_takes_no_notice_of_an_end() -> None:
    ended = cr.IncomingEnded(channel_id=bytes(32), htlc_id=0, reason="x", paid_msat=0)
    assert apply_to_book(Book(), ended) == Book()


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
def test_a_factory_sleeps_in_which_everything_ended(amount_msat: int) -> None:
    """One forward was paid on and not taken, and the rest of the factory expired."""
    pump = world(SHORT, n_clients=4)
    names = [pump.attempt.leaf_name(newest_link(client).client) for client in pump.clients]
    first, second = (place for place, name in enumerate(names) if name == names[0])
    paid_on(pump, amount_msat, payee=second)
    for place in (first, second):
        leave(pump, pump.clients[place])
    pump.mine(newest_link(pump.clients[0]).expiry_height + 60 - pump.chain.height)
    assert under_way(pump) == []
    all_away(pump)
    assert sleeping(pump) == {0}


def told_its_preimage(pump: ExitPump) -> None:
    """Let a payee show its preimage, and never revoke the commitment that it could take it by."""
    alice, bob = pump.clients
    pump.trap(pump.lsp, bob, m.RevokeAndAck, n_before=1)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    assert under_way(pump) == []
    (errand,) = book(pump.lsp).owners.values()
    assert isinstance(errand, Errand)
    assert errand.preimage is not None


def test_the_numbers_of_an_lsp_say_what_its_list_does() -> None:
    pump = world()
    alice, bob = pump.clients
    assert pay(pump, alice, bob, WORTH_MSAT).status == "paid"
    pump.handle(alice, replace(make_invoice(pump, bob, WORTH_MSAT), payment_secret=bytes(32)))
    pump.run()
    pump.pass_holds()
    held_on(pump, WORTH_MSAT)
    pump.pass_holds()
    pump.connect(bob)
    pump.connect(alice)
    pump.run()
    paid_on(pump, SMALL_MSAT)
    leave(pump, alice)
    pump.mine(RESOLVED_DEPTH)
    listed = Counter(one.status for one in book(pump.lsp).finished.values())
    assert listed == {"paid": 1, "failed": 1, "unsettled": 1}
    outcomes = PaymentOutcomes(LspLookup(lambda: lsp_state(pump)), is_lsp=True)
    for record in pump.lsp.store.remembered:
        outcomes.observe(record)
    counted = {
        labels["outcome"]: number
        for _, labels, number in outcomes.samples()
        if labels["direction"] == FORWARDED
    }
    assert counted == listed


@pytest.mark.parametrize("is_told", [False, True])
def test_a_forward_whose_payer_cheats_is_paid_by_the_penalty(*, is_told: bool) -> None:
    """It publishes what it revoked, with the HTLC in it: all of that is the LSP's."""
    pump = world()
    alice, bob = pump.clients
    pump.trap(bob, pump.lsp, m.UpdateFulfillHtlc)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    cheat = newest_link(alice).finished.tx
    assert pay(pump, pump.lsp, alice, SMALL_MSAT).status == "paid"
    if not is_told:
        pump.disconnect(alice)
    pump.heal(bob)
    pump.run()
    assert under_way(pump) == ([] if is_told else ["forwards", "resolved"])
    pump.disconnect(alice)
    link = newest_link(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    while pump.chain.coin(link.present.outpoint) is None:
        pump.mine()
    pump.chain.mempool.clear()
    pump.chain.broadcast(cheat)
    pump.mine(3 * RESOLVED_DEPTH)
    assert pump.lsp.state.chain.spends[link.present.outpoint].txid == cheat.txid
    assert under_way(pump) == []
    assert shown(pump) == ("paid", None)
    assert book(pump.lsp).earned_msat > 0
    assert told(pump.lsp, cr.IncomingEnded) == []
    restarts_alike(pump)


def told_in_vain(pump: ExitPump, amount_msat: int, *, hears: bool) -> None:
    """Let a payer be told the preimage, and not answer: its commitment has the HTLC still.

    Args:
        pump: The world.
        amount_msat: What it pays.
        hears: Whether it is given the commitment without the HTLC.
    """
    alice, bob = pump.clients

    def tamper(sender: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_told = bool(book(pump.lsp).finished)
        is_lost = to is alice if not hears else sender is alice
        return () if is_told and is_lost else (message,)

    pump.tamper = tamper
    pump.handle(alice, make_invoice(pump, bob, amount_msat))
    pump.run()
    assert under_way(pump) == []
    assert shown(pump) == ("paid", None)
    assert book(pump.lsp).earned_msat > 0
    pump.disconnect(alice)


def test_what_a_payer_was_told_and_never_gave_is_not_earned() -> None:
    """Its HTLC has no output in the commitment that it published: the LSP bears what it paid on."""
    pump = world()
    told_in_vain(pump, SMALL_MSAT, hears=False)
    leave(pump, pump.clients[0])
    pump.mine(RESOLVED_DEPTH - 2)
    assert shown(pump) == ("paid", None)
    pump.mine()
    assert shown(pump) == ("unsettled", "it had no output on chain")
    assert book(pump.lsp).earned_msat == 0
    pump.mine(RESOLVED_DEPTH)
    (ended,) = told(pump.lsp, cr.IncomingEnded)
    assert ended.paid_msat == SMALL_MSAT
    restarts_alike(pump)


def test_what_a_payer_was_told_and_took_back_by_its_expiry_is_not_earned() -> None:
    pump = world()
    told_in_vain(pump, WORTH_MSAT, hears=False)
    alice = pump.clients[0]
    (live,) = lsp_link(pump, newest_link(alice)).state.htlcs
    pump.stop(pump.lsp)
    leave(pump, alice)
    pump.mine(live.htlc.cltv_expiry + 1 - pump.chain.height)
    pump.lsp.start()
    pump.sync()
    pump.run()
    assert shown(pump) == ("paid", None)
    pump.mine(RESOLVED_DEPTH)
    assert shown(pump) == ("unsettled", "its payer took it back on chain")
    assert book(pump.lsp).earned_msat == 0
    assert len(told(pump.lsp, cr.IncomingEnded)) == 1
    restarts_alike(pump)


@pytest.mark.parametrize(
    ("amount_msat", "hears"), [(WORTH_MSAT, False), (WORTH_MSAT, True), (SMALL_MSAT, True)]
)
def test_what_a_payer_was_told_is_earned_by_its_output_or_by_the_commitment_without_it(
    amount_msat: int, *, hears: bool
) -> None:
    pump = world()
    told_in_vain(pump, amount_msat, hears=hears)
    earned_msat = book(pump.lsp).earned_msat
    leave(pump, pump.clients[0])
    pump.mine(200)
    assert shown(pump) == ("paid", None)
    assert book(pump.lsp).earned_msat == earned_msat
    assert told(pump.lsp, cr.IncomingEnded) == []
    restarts_alike(pump)


def test_what_was_paid_for_and_not_revoked_ends_with_a_sweep() -> None:
    pump = world(SHORT)
    told_its_preimage(pump)
    see(pump, pump.lsp, sweep_of(pump.attempt.funding_outpoint))
    assert len(book(pump.lsp).owners) == 1
    show_blocks(pump, pump.lsp, until=pump.lsp.state.chain.height + RESOLVED_DEPTH)
    assert not book(pump.lsp).owners
    assert book(pump.lsp).earned_msat > 0, "it was paid before"
    assert len(told(pump.lsp, cr.HtlcDecided)) == 1, "once"
    restarts_alike(pump)


def test_our_commitment_is_taken_for_no_revoked_one_of_a_peer_that_is_further() -> None:
    """The payer revoked its commitment and signed no new one of ours: ours has a lower number."""
    pump = world()
    alice, bob = pump.clients
    request = replace(make_invoice(pump, bob, SMALL_MSAT), payment_secret=bytes(32))
    pump.handle(alice, request)
    pump.run_to(m.UpdateFailHtlc)
    pump.tamper = lambda sender, _to, message: (
        () if sender is alice and isinstance(message, m.CommitmentSigned) else (message,)
    )
    pump.run()
    begin_payment(pump, pump.lsp, alice, SMALL_MSAT)
    link = lsp_link(pump, newest_link(alice))
    assert link.finished is not None
    assert link.finished.commitment.content.number < link.state.peer_revoked

    pump.disconnect(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    for _ in range(200):
        pump.mine()
    assert lsp_state(pump).factory(0).chain.spends[link.present.outpoint].txid == (
        link.finished.commitment.tx.txid
    )
    assert under_way(pump) == []
    assert is_resolved(lsp_state(pump).factory(0), lsp_link(pump, newest_link(alice)))
