"""Advances whose state is not signed, and may never be: a store was restored, or it is too late.

Somebody signed, so it is never dropped. While nobody is asked, what is above the leaf's states can
be closed, and with that the advance is over.
"""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advance_moments import later, link_of, said, wishes, with_link
from tests.protocol.advanced import kickoff_of
from tests.protocol.advances import (
    ADVANCING,
    PRICE_MSAT,
    SOLD_SAT,
    advancing_factory,
    both_links,
    check_claims,
    connect_again,
    market,
    remembered,
    sell,
)
from tests.protocol.closes import (
    ask_for_close,
    check_all_is_paid,
    check_nobody_is_stuck,
    close,
    finished,
    losing,
)
from tests.protocol.paying_clients import pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, restore
from tests.protocol.stalling import recover, stall
from tests.protocol.test_advance_tries import let_deadline_pass, see, too_late
from tests.protocol.test_closing import rejected
from tests.protocol.test_leaving import wallet_sat

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Purchase
from cromford.protocol import events as ev
from cromford.protocol.advancing.finishing import GONE
from cromford.protocol.advancing.rules import STALLS_MAX
from cromford.protocol.client import decide
from cromford.protocol.closing.rules import ADVANCE_OPEN
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.next_funding import POISONS_HELD, STATE_HELD
from cromford.wire import messages as m

BUYER: Final = 1
NEIGHBOUR: Final = 2
SEATS: Final = (BUYER, NEIGHBOUR)
UNDER_WAY: Final = "an advance of the leaf is under way: client 1, client 2"
OTHER: Final = {BUYER: NEIGHBOUR, NEIGHBOUR: BUYER}


def half_signed(
    signer: int, lost: type[m.Message] = m.AdvanceSign, *, restores: bool = True
) -> Pump:
    """Return a leaf of which one client signed the next state, and the other's word was lost.

    Args:
        signer: Who signed.
        lost: What of the other's did not arrive.
        restores: Whether the store of the other is put back to before the purchase.
    """
    pump = advancing_factory(2)
    silent = pump.client_at(OTHER[signer])
    backup = backup_of(silent)

    def lose(by: Any, _to: Any, message: m.Message) -> tuple[m.Message, ...]:
        return () if by is silent and isinstance(message, lost) else (message,)

    with market(), pump.tampering(lose):
        sell(pump, BUYER, price_msat=PRICE_MSAT)
    assert remembered(pump.client_at(signer), ar.AdvanceSigned)
    if restores:
        # Something since the backup, or nothing is missing in it.
        restore(pump, (silent, backup))
        connect_again(pump)
        pump.run()
    assert pump.factory.advances
    return pump


def balances_msat(pump: Pump) -> dict[int, int]:
    return {seat: both_links(pump, seat)[1].state.accepter_msat for seat in SEATS}


@pytest.mark.parametrize("signer", SEATS)
def test_a_leaf_whose_next_state_lacks_a_restored_stores_signature_is_closed_with_the_rest(
    signer: int,
) -> None:
    pump = half_signed(signer)
    due = balances_msat(pump)
    close(pump)
    (closed,) = finished(pump.lsp)
    assert dict(zip(SEATS, closed.balances_msat, strict=True)) == due, "the price was never paid"
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    pump.mine(1)
    for seat, due_msat in due.items():
        assert wallet_sat(pump.client_at(seat)) == due_msat // MSAT_PER_SAT
    assert pump.client_at(signer).state.advances, "a reorganisation may bring all of it back"
    pump.mine(5)
    for client in pump.clients:
        assert not client.state.advances
        assert not client.state.purchases, "nobody waits for what cannot come any more"
    assert not pump.factory.advances
    reasons = [one.reason for one in remembered(pump.client_at(BUYER), ar.PurchaseEnded)]
    assert reasons == ([GONE] if signer == BUYER else [])


def test_a_signed_state_without_the_poisons_that_a_restored_store_never_signs_is_closed_over() -> (
    None
):
    """Nobody is moved onto it without them, though everybody holds it."""
    pump = advancing_factory(2)
    buyer, neighbour = pump.client_at(BUYER), pump.client_at(NEIGHBOUR)
    backup = backup_of(neighbour)
    held: list[tuple[PumpNode, m.Message]] = []

    def hold(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if not isinstance(message, m.AdvanceSign):
            return (message,)
        held.append((by, message))
        return ()

    with market(), pump.tampering(hold):
        sell(pump, BUYER, price_msat=PRICE_MSAT)
    stall(pump, pump.lsp)
    for client, message in held:
        pump.tell(pump.lsp, client, message)
    pump.run()
    assert remembered(buyer, ar.StateSigned)
    assert not remembered(buyer, ar.PoisonHeld)
    restore(pump, (neighbour, backup))
    recover(pump, pump.lsp)
    pump.mine(1)
    connect_again(pump)
    pump.run()
    assert pump.factory.advances
    due = balances_msat(pump)
    close(pump)
    (closed,) = finished(pump.lsp)
    assert dict(zip(SEATS, closed.balances_msat, strict=True)) == due
    pump.mine(6)
    assert not any(client.state.advances or client.state.purchases for client in pump.clients)
    assert not pump.factory.advances


def test_a_buyer_that_signed_nothing_waits_for_who_did_until_the_leaf_is_closed_over() -> None:
    """One of three signed, and another one's store was restored: so it is never dropped."""
    pump = advancing_factory(3, policy=replace(ADVANCING, leaf_arity=3))
    buyer, signer, silent = (pump.client_at(seat) for seat in (1, 2, 3))
    backup = backup_of(silent)

    def lose(_by: Any, to: Any, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = isinstance(message, m.AdvanceCommit) and to is not signer
        return () if is_lost else (message,)

    with market(), pump.tampering(lose):
        sell(pump, BUYER, price_msat=PRICE_MSAT)
    assert remembered(signer, ar.AdvanceSigned)
    assert not remembered(buyer, ar.AdvanceSigned)
    for client in pump.clients:
        pump.disconnect(client)
    restore(pump, (silent, backup))
    for _ in range(2):
        connect_again(pump)
        pump.run()
    assert buyer.state.purchases
    assert pump.factory.advances
    close(pump)
    check_all_is_paid(pump)
    pump.mine(6)
    assert not pump.factory.advances
    for client in pump.clients:
        assert not client.state.advances
        assert not client.state.purchases


@pytest.mark.parametrize("signer", SEATS)
def test_while_the_other_may_still_sign_no_close_comes_between(signer: int) -> None:
    pump = half_signed(signer, restores=False)
    assert str(rejected(pump)) == UNDER_WAY


def signed_by(signer: int) -> Pump:
    """Return a leaf of which one client signed the next state, and the other was not asked to."""
    pump = advancing_factory(2)
    silent = pump.client_at(OTHER[signer])

    def lose(_by: Any, to: Any, message: m.Message) -> tuple[m.Message, ...]:
        return () if to is silent and isinstance(message, m.AdvanceCommit) else (message,)

    with market(), pump.tampering(lose):
        sell(pump, BUYER, price_msat=PRICE_MSAT)
    assert not remembered(silent, ar.AdvanceSigned)
    return pump


def without_a_try(pump: Pump) -> None:
    """Let the present try end, and take everybody up again."""
    let_deadline_pass(pump)
    connect_again(pump)
    pump.run()


@pytest.mark.parametrize("signer", SEATS)
def test_a_leaf_too_old_for_another_try_is_closed_with_the_rest(signer: int) -> None:
    """Until the expiry nobody could have closed, for one that was away."""
    pump = signed_by(signer)
    see(pump, header_height=too_late(pump))
    without_a_try(pump)
    see(pump)
    assert pump.factory.advances
    due = balances_msat(pump)
    close(pump)
    (closed,) = finished(pump.lsp)
    assert dict(zip(SEATS, closed.balances_msat, strict=True)) == due
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    pump.mine(6)
    assert not any(node.state.advances for node in pump.clients)
    assert not pump.factory.advances


def test_who_is_not_asked_any_more_for_a_day_keeps_nobody_from_closing() -> None:
    pump = signed_by(BUYER)
    silent = pump.client_at(NEIGHBOUR)
    for _ in range(STALLS_MAX):
        assert str(rejected(pump)) == UNDER_WAY, "it is asked, or asked once more"
        with pump.tampering(losing(m.AdvanceAgree, of=lambda node: node is silent)):
            without_a_try(pump)
    assert pump.factory.stalls[NEIGHBOUR].n_missed == STALLS_MAX
    due = balances_msat(pump)
    close(pump)
    (closed,) = finished(pump.lsp)
    assert dict(zip(SEATS, closed.balances_msat, strict=True)) == due
    check_nobody_is_stuck(pump)


@pytest.mark.parametrize("is_restored", [True, False])
def test_where_the_others_signed_nothing_nobody_waits_for_a_restored_store(
    *, is_restored: bool
) -> None:
    """A purchase would be under way until its leaf is too old to be sold."""
    pump = advancing_factory(2)
    buyer, silent = pump.client_at(BUYER), pump.client_at(NEIGHBOUR)
    backup = backup_of(silent)

    def lose(_by: Any, _to: Any, message: m.Message) -> tuple[m.Message, ...]:
        return () if isinstance(message, m.AdvanceCommit) else (message,)

    with market(), pump.tampering(lose):
        sell(pump, BUYER, price_msat=PRICE_MSAT)
    assert remembered(pump.lsp, ar.AdvanceCommitted)
    for client in pump.clients:
        pump.disconnect(client)
    if is_restored:
        restore(pump, (silent, backup))
    for _ in range(2):
        connect_again(pump)
        pump.run()
    dropped = [one.reason for one in remembered(pump.lsp, ar.AdvanceDropped)]
    ended = [one.reason for one in remembered(buyer, ar.PurchaseEnded)]
    if is_restored:
        assert dropped == [f"client {NEIGHBOUR}: a store was restored from a backup"]
        assert ended == ["the LSP let go of it before anything was signed"]
    else:
        assert (dropped, ended) == ([], [""]), "who merely was away signs"
    assert not pump.factory.advances
    check_claims(pump)
    assert pay(pump, pump.lsp, buyer, 1_000_000).status == "paid"


def test_nobody_is_asked_again_for_what_a_restored_store_does_not_sign() -> None:
    pump = half_signed(BUYER)
    before = len(pump.sent(pump.lsp, m.AdvancePropose))
    pump.mine(3)
    for client in pump.clients:
        pump.disconnect(client)
    connect_again(pump)
    pump.run()
    assert len(pump.sent(pump.lsp, m.AdvancePropose)) == before


def test_once_the_old_state_is_on_chain_a_channel_is_closed_when_that_is_settled() -> None:
    """What could be closed before is a channel's output, which is only one of its two fundings."""
    pump = half_signed(BUYER)
    due = balances_msat(pump)
    leaf = pump.attempt.leaf(BUYER)
    pump.chain.broadcast(kickoff_of(pump))
    pump.mine(leaf.state.delay_blocks)
    pump.chain.broadcast(pump.attempt.signed_txs[leaf.state.name])
    pump.mine(1)
    assert leaf.state.tx.txid in pump.factory.chain.confirmed
    for seat in SEATS:
        refusal = rejected(pump, client=seat)
        assert str(refusal) == f"an advance of the leaf is under way: client {seat}"
    pump.mine(5)
    connect_again(pump)
    pump.run()
    assert not pump.factory.advances
    close(pump, client=BUYER)
    pump.mine(1)
    assert wallet_sat(pump.client_at(BUYER)) == due[BUYER] // MSAT_PER_SAT


def begun(pump: Pump) -> m.CloseBegin:
    """Return with what the LSP begins a close that then comes to nothing."""
    ask_for_close(pump)
    (begin,) = {one.close_id: one for one in pump.sent(pump.lsp, m.CloseBegin)}.values()
    pump.wire.clear()
    return begin


def test_who_signed_a_next_state_agrees_to_a_close_while_nobody_has_it_and_the_old_is_nowhere() -> (
    None
):
    """It cannot know what others signed; where something of it moved, it says no by itself."""
    pump = half_signed(BUYER)
    begin = begun(pump)
    buyer = pump.client_at(BUYER)
    signed, leaf = buyer.state, pump.attempt.leaf(BUYER)
    following = link_of(signed).next
    assert following is not None
    kickoff, old = kickoff_of(pump), pump.attempt.signed_txs[leaf.state.name]
    asked = ev.MessageReceived(node_id=pump.lsp.node_id, message=begin)

    def refusal(state: ClientState) -> list[str]:
        decision = decide(state, asked, buyer.facts)
        ended = [one.reason for one in said(decision) if isinstance(one, m.CloseEnd)]
        assert len(wishes(decision, fx.PrepareClose)) == (not ended)
        return ended

    def moved(**changes: Any) -> ClientState:
        return with_link(signed, next=changed(following, **changes))

    advancing = ["channel: expected one that can be closed, received " + ADVANCE_OPEN]
    assert refusal(signed) == []
    assert refusal(moved(is_leaving=True)) == advancing, "its word did not leave yet"
    assert refusal(moved(is_dual=False)) == advancing, "it did not sign"
    assert refusal(moved(stage=STATE_HELD)) == [], "the poisons may lack another's signature"
    assert refusal(moved(stage=POISONS_HELD)) == advancing
    assert refusal(with_link(signed, next=None)) == advancing, "it is being moved"
    assert refusal(later(signed, 1, kickoff, old)) == advancing
    new = leaf.sold(Purchase(buyer=BUYER, amount_sat=SOLD_SAT)).state.tx
    assert following.funding.outpoint.txid == new.txid
    assert refusal(later(signed, 1, kickoff, new)) == advancing
