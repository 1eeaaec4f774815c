"""A channel of which either of two outputs may confirm: what is said is for both, or it is over.

The client's neighbour in the leaf never answers the LSP, so that its own channel stays between the
old state and the next for as long as a test likes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advances import (
    PRICE_MSAT,
    advancing_factory,
    both_links,
    buy,
    check_claims,
    check_payments_work,
    check_sold,
    market,
    sell,
)
from tests.protocol.paying_clients import begin_payment, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.channel.terms import Party
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.link import Link
from cromford.told import msat
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)

BUYER, NEIGHBOUR, ELSEWHERE = 1, 2, 3
NO_TXID: Final = bytes(32)
Changed = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def silent(pump: Pump) -> PumpNode:
    """Return the neighbour, whom the LSP's half never reaches."""
    return pump.client_at(NEIGHBOUR)


def hushed(pump: Pump) -> Callable[..., tuple[m.Message, ...]]:
    """Return what loses the LSP's half of the neighbour's commitment on its way."""

    def tamper(_by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = to is silent(pump) and isinstance(message, m.AdvanceCommit)
        return () if is_lost else (message,)

    return tamper


@contextmanager
def between_states(n_clients: int = 3) -> Iterator[Pump]:
    """Give a pump in which the buyer signed, and its neighbour does not."""
    pump = advancing_factory(n_clients)
    with pump.tampering(hushed(pump)):
        buy(pump, BUYER)
        pump.run()
        for link in both_links(pump, BUYER):
            assert link.next is not None
            assert link.next.is_dual
        yield pump


def connect_anew(pump: Pump, client: PumpNode) -> None:
    if client.name in pump.links:
        pump.disconnect(client)
    pump.connect(client)
    pump.run()


def check_one_sighash_each(pump: Pump) -> None:
    """Check that whoever signs a commitment again signs the same for the same output."""
    for node in (pump.lsp, *pump.clients):
        signed: dict[tuple[bytes, Party, int], bytes] = {}
        for effect in pump.wishes(node, fx.SignCommitment):
            for part in effect.parts:
                commitment = part.commitment
                key = (
                    commitment.funding.outpoint.serialize(),
                    commitment.content.holder,
                    commitment.content.number,
                )
                sighash = commitment.signing_task.sighash
                assert signed.setdefault(key, sighash) == sighash, key


def test_every_commitment_is_for_both_outputs_and_one_revocation_for_both() -> None:
    with between_states() as pump:
        alice, dora = pump.client_at(BUYER), pump.client_at(ELSEWHERE)
        n_before = [len(node.store.remembered) for node in (alice, pump.lsp)]
        assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"
        assert pay(pump, alice, dora, 2_000_000).status == "paid"
        assert pay(pump, dora, alice, 1_000_000).status == "paid"
        check_claims(pump)
        for node, n_records in zip((alice, pump.lsp), n_before, strict=True):
            channel_id = both_links(pump, BUYER)[0].channel_id
            later = [
                one
                for one in node.store.remembered[n_records:]
                if getattr(one, "channel_id", b"") == channel_id
            ]
            intended = [one for one in later if isinstance(one, cr.CommitmentIntended)]
            finished = [one for one in later if isinstance(one, cr.CommitmentFinished)]
            revoked = [one for one in later if isinstance(one, cr.RevocationReceived)]
            assert len(intended) == len(finished) == len(revoked) == 6
            assert all(one.next_sighash not in {b"", one.sighash} for one in intended)
            assert all(one.next_signature not in {b"", one.signature} for one in finished)
            for one in revoked:
                assert len(decoded(one.message, m.RevokeAndAck).further) == 1
        for link in both_links(pump, BUYER):
            assert link.next is not None
            for funding in (link.present, link.next.funding):
                finished_on = link.finished_on(funding)
                assert finished_on is not None
                assert finished_on.commitment.funding == funding
                assert len(link.peer_commitments_on(funding)) == 1
    connect_anew(pump, silent(pump))
    assert not pump.factory.advances, "the neighbour came back, and all of it went on"
    check_claims(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR, ELSEWHERE)


# What breaks the rules: the channel is over, and nothing is revoked


def further(**changes: Any) -> Changed:
    def change(message: Any) -> Any:
        (part,) = message.further
        return replace(message, further=(replace(part, **changes),))

    return change


def told(**changes: Any) -> Changed:
    def change(message: Any) -> Any:
        (stage,) = message.advance
        return replace(message, advance=(replace(stage, **changes),))

    return change


def swapped(message: m.CommitmentSigned) -> m.CommitmentSigned:
    """Put what is for the next output where that for the present one belongs, and vice versa."""
    (part,) = message.further
    main = replace(part, pubnonce=message.pubnonce, partial_sig=message.partial_sig)
    return replace(message, pubnonce=part.pubnonce, partial_sig=part.partial_sig, further=(main,))


def without(field: str) -> Changed:
    return lambda message: replace(message, **{field: ()})


def on_next_alone(message: m.CommitmentSigned) -> m.CommitmentSigned:
    """Sign for the next output alone, as if there were a rebase."""
    (part,) = message.further
    return replace(message, pubnonce=part.pubnonce, partial_sig=part.partial_sig, further=())


BAD_SIGNED: Final = {
    "missing": (without("further"), "further: expected"),
    "next alone": (on_next_alone, "further: expected"),
    "of another output": (further(funding_txid=NO_TXID), "further: expected"),
    "swapped": (swapped, "signature"),
    "invalid": (further(partial_sig=bytes(31) + b"\x01"), "signature"),
    "no scalar": (further(partial_sig=b"\xff" * 32), "a scalar"),
    "no nonce": (further(pubnonce=bytes(66)), "pubnonce"),
    "no htlc signature": (further(htlc_signatures=()), "htlc"),
}
BAD_REVOKED: Final = {
    "missing": (without("further"), "further: expected"),
    "of another output": (further(funding_txid=NO_TXID), "further: expected"),
    "no nonce": (further(pubnonce=bytes(66)), "further.pubnonce"),
}


@pytest.mark.parametrize("speaks", ["lsp", "client"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((m.CommitmentSigned, name) for name in BAD_SIGNED),
        *((m.RevokeAndAck, name) for name in BAD_REVOKED),
    ],
)
def test_a_part_that_is_missing_or_wrong_ends_the_channel_and_revokes_nothing(
    speaks: str, kind: type[m.Message], name: str
) -> None:
    change, reason = (BAD_SIGNED if kind is m.CommitmentSigned else BAD_REVOKED)[name]
    with between_states(2) as pump:
        alice = pump.client_at(BUYER)
        hush, before = hushed(pump), both_links(pump, BUYER)

        def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            is_theirs = alice in (by, to) and (by is pump.lsp) == (speaks == "lsp")
            if is_theirs and isinstance(message, kind):
                return (change(message),)
            return hush(by, to, message)

        with pump.tampering(tamper):
            begin_payment(pump, pump.lsp, alice, 1_000_000)
        after = both_links(pump, BUYER)
        victim = 0 if speaks == "lsp" else 1
        failure = after[victim].failure
        assert failure is not None
        assert reason in failure
        for link_before, link in zip(before, after, strict=True):
            n_taken = int(kind is m.RevokeAndAck or link.me.name != ("ACCEPTER", "OPENER")[victim])
            assert link.state.own_revoked - link_before.state.own_revoked <= n_taken
        victims, victims_before = after[victim], before[victim]
        if kind is m.CommitmentSigned:
            assert victims.state.own_revoked == victims_before.state.own_revoked
            assert claims(victims) == claims(victims_before), "both outputs are claimed as before"
        else:
            assert victims.state.peer_revoked == victims_before.state.peer_revoked


def claims(link: Link) -> list[bytes]:
    """Return the sighash of each unrevoked commitment of our own, by output."""
    finished = (link.finished_on(funding) for funding in link.fundings)
    return [one.commitment.signing_task.sighash for one in finished if one is not None]


def late_nonces(message: m.ChannelReestablish) -> m.ChannelReestablish:
    (stage,) = message.advance
    nonces = tuple(replace(one, number=one.number + 5) for one in stage.nonces)
    return replace(message, advance=(replace(stage, nonces=nonces),))


@pytest.mark.parametrize(
    ("speaks", "change", "reason"),
    [
        ("client", without("advance"), "advance: expected"),
        ("client", told(stage=0), "stage: expected 1..3, received 0"),
        ("client", told(stage=4), "stage: expected 1..3, received 4"),
        ("client", told(nonces=()), "nonces: expected one for commitment"),
        ("client", late_nonces, "nonces: expected one for commitment"),
        ("client", told(funding_txid=NO_TXID), "funding_txid: expected"),
        ("client", told(advance_id=NO_TXID), "advance_id: expected"),
        ("lsp", without("advance"), "advance: expected"),
        ("lsp", told(nonces=()), "nonces: expected one for commitment"),
        ("lsp", told(funding_txid=NO_TXID), "funding_txid: expected"),
        ("lsp", told(advance_id=NO_TXID), "advance_id: expected"),
    ],
)
def test_a_lie_about_how_far_one_is_ends_the_channel_and_takes_no_claim(
    speaks: str, change: Changed, reason: str
) -> None:
    """Who says that it signed nothing would let the LSP revoke its only claim on the next state."""
    with between_states(2) as pump:
        alice = pump.client_at(BUYER)
        hush, before = hushed(pump), both_links(pump, BUYER)

        def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            is_theirs = alice in (by, to) and (by is pump.lsp) == (speaks == "lsp")
            if is_theirs and isinstance(message, m.ChannelReestablish):
                return (change(message),)
            return hush(by, to, message)

        with pump.tampering(tamper):
            connect_anew(pump, alice)
        after = both_links(pump, BUYER)
        failure = after[0 if speaks == "lsp" else 1].failure
        assert failure is not None
        assert failure.startswith(reason)
        assert [claims(link) for link in after] == [claims(link) for link in before]
        assert all(len(claims(link)) == 2 for link in after)


# Breaks of the connection


@pytest.mark.parametrize("first", ["lsp", "client"])
def test_a_break_after_any_message_of_a_payment_for_both_outputs_loses_nothing(first: str) -> None:
    """What goes again is signed for both with fresh nonces, and says the same bytes."""
    with between_states() as pump:
        alice, dora = pump.client_at(BUYER), pump.client_at(ELSEWHERE)
        payer, payee = (pump.lsp, alice) if first == "lsp" else (alice, dora)
        n_delivered = 0
        while True:
            n_delivered += 1
            request = make_invoice(pump, payee, 100_000)
            pump.handle(payer, request)
            left = n_delivered

            def is_over() -> bool:
                nonlocal left
                left -= 1
                return left < 0

            pump.run(until=is_over)
            was_cut = bool(pump.wire)
            connect_anew(pump, alice)
            check_claims(pump)
            for link in both_links(pump, BUYER):
                assert link.failure is None
                assert link.is_open
                assert link.next is not None
                assert link.next.is_dual
            pump.pass_holds()
            assert payer.state.book.payments[request.payment_hash].status == "paid"
            if not was_cut:
                break
        assert n_delivered > 6
        check_one_sighash_each(pump)
    connect_anew(pump, silent(pump))
    assert not pump.factory.advances
    check_payments_work(pump, BUYER, NEIGHBOUR, ELSEWHERE)


@pytest.mark.parametrize("n_delivered", range(1, 12))
def test_a_break_after_any_message_of_the_rebase_round_loses_nothing(n_delivered: int) -> None:
    """With an add of each side on its way across it."""
    pump = advancing_factory(1)
    quote = buy(pump, BUYER)
    pump.run_to(m.UpdateRebase)
    alice = pump.client_at(BUYER)
    before = [link.state.accepter_msat for link in both_links(pump, BUYER)]
    request = make_invoice(pump, alice, 1_000_000)
    pump.handle(pump.lsp, request)
    left = n_delivered

    def is_over() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    pump.run(until=is_over)
    check_claims(pump)
    connect_anew(pump, alice)
    pump.pass_holds()
    check_sold(pump, BUYER, quote)
    check_one_sighash_each(pump)
    assert pump.lsp.state.book.payments[request.payment_hash].status == "paid"
    after = [link.state.accepter_msat for link in both_links(pump, BUYER)]
    assert after == [one + 1_000_000 - PRICE_MSAT for one in before]
    check_payments_work(pump, BUYER)


def test_an_lsp_that_lacks_the_latest_on_the_next_output_gets_it_before_all_else() -> None:
    """The client's half and what BOLT 2 sends again were lost together."""
    pump = advancing_factory(1)
    buy(pump, BUYER)
    pump.run_to(m.AdvanceSign)
    alice = pump.client_at(BUYER)
    connect_anew(pump, alice)
    sent = [effect.message for effect in pump.wishes(alice, fx.Send)]
    again = [one for one in sent if isinstance(one, m.AdvanceSign)]
    assert len(again) >= 2
    assert again[1].half, "what the LSP lacks"
    assert not pump.factory.advances
    check_claims(pump)
    check_payments_work(pump, BUYER)


# Attacks of either side


def test_an_add_of_what_the_rebase_will_cost_ends_the_channel() -> None:
    """An honest client's own rule refuses it; a liar's word is a violation."""
    with between_states(2) as pump:
        alice = pump.client_at(BUYER)
        link, lsp_link = both_links(pump, BUYER)
        most_msat = link.state.accepter_msat - PRICE_MSAT
        add = m.UpdateAddHtlc(
            channel_id=link.channel_id,
            htlc_id=link.state.next_id(Party.ACCEPTER),
            amount_msat=most_msat + 1,
            payment_hash=bytes(32),
            cltv_expiry=alice.state.chain.height + link.max_cltv_blocks,
            delivery=m.Delivery(
                payee=silent(pump).node_id, payment_secret=bytes(32), amount_msat=1
            ),
        )
        pump.tell(pump.lsp, alice, add)
        failure = both_links(pump, BUYER)[1].failure
        assert failure is not None
        most, reserve = msat(most_msat), msat(PRICE_MSAT)
        assert f"expected at most {most}, so that a reserve of {reserve} stays" in failure
        assert claims(both_links(pump, BUYER)[1]) == claims(lsp_link)


def rebase_of(link: Link, **changes: Any) -> m.UpdateRebase:
    assert link.next is not None
    message = m.UpdateRebase(
        channel_id=link.channel_id,
        advance_id=link.next.advance_id,
        capacity_sat=link.next.funding.capacity_sat,
        price_msat=link.next.price_msat,
    )
    return replace(message, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "expected the old state's poisons first, received none"),
        ({"price_msat": PRICE_MSAT + 1}, f"price_msat: expected {msat(PRICE_MSAT)}, received"),
        ({"capacity_sat": 1}, "capacity_sat: expected"),
        ({"advance_id": NO_TXID}, "advance_id: expected"),
    ],
)
def test_a_rebase_before_the_poisons_or_to_anything_else_ends_the_channel(
    changes: dict[str, Any], reason: str
) -> None:
    with between_states(2) as pump:
        alice, (link, _) = pump.client_at(BUYER), both_links(pump, BUYER)
        pump.tell(alice, pump.lsp, rebase_of(link, **changes))
        failure = both_links(pump, BUYER)[0].failure
        assert failure is not None
        assert reason in failure
        assert claims(both_links(pump, BUYER)[0]) == claims(link)


def test_a_rebase_where_nothing_is_bought_ends_the_channel() -> None:
    pump = advancing_factory(1)
    sell(pump, BUYER)
    alice, (link, _) = pump.client_at(BUYER), both_links(pump, BUYER)
    again = m.UpdateRebase(
        channel_id=link.channel_id, advance_id=NO_TXID, capacity_sat=10**6, price_msat=0
    )
    pump.tell(alice, pump.lsp, again)
    failure = both_links(pump, BUYER)[0].failure
    assert failure is not None
    assert failure.startswith("update_rebase: expected none")


def test_a_client_that_rebases_ends_its_channel() -> None:
    """Only the LSP offers it: it would be the client's way not to pay."""
    with between_states(2) as pump:
        alice, (link, _) = pump.client_at(BUYER), both_links(pump, BUYER)
        pump.tell(pump.lsp, alice, rebase_of(link))
        assert both_links(pump, BUYER)[1].failure is not None


@pytest.mark.parametrize("speaks", ["lsp", "client"])
def test_an_update_where_both_said_that_they_are_quiet_ends_the_channel(speaks: str) -> None:
    """From the client's agreement until its half is there."""
    pump = advancing_factory(1)
    buy(pump, BUYER)
    pump.run_to(m.AdvanceCommit)
    alice, (link, _) = pump.client_at(BUYER), both_links(pump, BUYER)
    fail = m.UpdateFailHtlc(channel_id=link.channel_id, htlc_id=0, reason=b"")
    victim, liar = (alice, pump.lsp) if speaks == "lsp" else (pump.lsp, alice)
    pump.tell(victim, liar, fail)
    failure = both_links(pump, BUYER)[0 if speaks == "lsp" else 1].failure
    assert failure is not None
    assert "an advance is under way" in failure


def test_a_client_that_says_it_holds_the_poisons_before_they_were_sent_is_not_rebased() -> None:
    with between_states(2) as pump:
        alice, (link, lsp_link) = pump.client_at(BUYER), both_links(pump, BUYER)
        assert link.next is not None
        held = m.AdvanceHeld(attempt_id=link.attempt_id, advance_id=link.next.advance_id)
        pump.tell(pump.lsp, alice, held)
        pump.run()
        assert not pump.sent(pump.lsp, m.UpdateRebase)
        assert claims(both_links(pump, BUYER)[1]) == claims(lsp_link)
