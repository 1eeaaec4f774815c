"""A peer that breaks BOLT 2 loses its channel, with a reason; everybody else goes on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode, Tamper

from cromford import effects as fx
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.ports import Entry
from cromford.protocol.channels.resuming import PEER_LOST_STATE
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(7)

FIRST_MSAT: Final = 30_000_000
CULPRITS: Final = pytest.mark.parametrize("culprit", ["client", "lsp"])
GROUP_ORDER: Final = bytes.fromhex(
    "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
)
Change = Callable[[Any], tuple[m.Message, ...]]


@pytest.fixture
def pump() -> Pump:
    pump = live_factory(3, watches_folds=True)
    assert pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT).status == "paid"
    return pump


def roles(pump: Pump, culprit: str) -> tuple[PumpNode, PumpNode]:
    """Return who breaks the rules in Alice's channel, and who watches."""
    alice = pump.clients[0]
    return (alice, pump.lsp) if culprit == "client" else (pump.lsp, alice)


def link_of(pump: Pump, node: PumpNode) -> Link:
    """Return Alice's channel as a node sees it."""
    mine = newest_link(pump.clients[0])
    return lsp_link(pump, mine) if node is pump.lsp else mine


def once(culprit: PumpNode, victim: PumpNode, kind: type[m.Message], change: Change) -> Tamper:
    """Change the first message of a kind that a culprit sends to a victim."""
    done: list[bool] = []

    def tamper(sender: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if done or (sender, receiver) != (culprit, victim) or not isinstance(message, kind):
            return (message,)
        done.append(True)
        return change(message)

    return tamper


def start_payment(pump: Pump, culprit: PumpNode) -> bytes:
    """Let the culprit offer an HTLC with an output in Alice's channel."""
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob if culprit is alice else alice, 5_000_000)
    pump.handle(culprit, request)
    return request.payment_hash


def changed(**changes: Any) -> Change:
    return lambda message: (replace(message, **changes),)


def twice(message: m.Message) -> tuple[m.Message, ...]:
    return (message, message)


def assert_failed(pump: Pump, victim: PumpNode, culprit: PumpNode, reason: str) -> None:
    """Check that the channel is over on both sides, for ever, and that the others go on."""
    failure = link_of(pump, victim).failure
    assert failure is not None
    assert reason in failure
    pump.run()
    assert link_of(pump, culprit).failure == f"the peer: {failure}"
    victims = link_of(pump, victim)
    for node in (pump.lsp, pump.clients[0]):
        pump.restart(node)
        pump.run()
    after = link_of(pump, victim)
    assert after.failure == failure
    assert after.finished == victims.finished, "what can be published is what it was"
    assert after.finished.commitment.signing_task.is_signed_by(
        after.signature, after.setting.funding.txout.script_pubkey[2:]
    )
    _, bob, carol = pump.clients
    assert pay(pump, pump.lsp, bob, 5_000_000).status == "paid"
    assert pay(pump, bob, carol, 1_000_000).status == "paid"
    for client in (bob, carol):
        assert newest_link(client).failure is None
        assert lsp_link(pump, newest_link(client)).failure is None


@pytest.mark.sampled(2)
@CULPRITS
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(partial_sig=bytes(31) + b"\x01"), "partial_signature_with_nonce: expected a sig"),
        (changed(partial_sig=GROUP_ORDER), "expected a scalar below the group order"),
        (changed(pubnonce=bytes(66)), "pubnonce: expected two points"),
        (changed(pubnonce=b"\x02" + b"\xff" * 65), "pubnonce: expected two points"),
        (changed(htlc_signatures=(bytes(64),)), "htlc_signature[0]: expected a signature of HTLC"),
        (changed(htlc_signatures=()), "num_htlcs: expected 1, received 0"),
        (changed(htlc_signatures=(bytes(64),) * 2), "num_htlcs: expected 1, received 2"),
        (twice, "commitment_signed: expected"),
    ],
    ids=[
        "signature", "scalar", "zero nonce", "no point", "htlc signature", "too few", "too many",
        "twice",
    ],
)  # fmt: skip
def test_a_signature_that_is_not_one_ends_the_channel(
    pump: Pump, culprit: str, change: Change, reason: str
) -> None:
    bad, good = roles(pump, culprit)
    held_before = link_of(pump, good).finished
    with pump.tampering(once(bad, good, m.CommitmentSigned, change)):
        start_payment(pump, bad)
        pump.run()
    if change is not twice:
        assert link_of(pump, good).finished == held_before, "nothing was revoked for it"
    assert_failed(pump, good, bad, reason)


@CULPRITS
def test_a_nonce_that_cancels_ours_changes_nothing(pump: Pump, culprit: str) -> None:
    bad, good = roles(pump, culprit)

    def negated(message: m.CommitmentSigned) -> tuple[m.Message, ...]:
        ours = link_of(pump, good).pubnonce
        parts = (ours[:33], ours[33:])
        opposite = b"".join(bytes((part[0] ^ 1,)) + part[1:] for part in parts)
        return (replace(message, pubnonce=opposite),)

    with pump.tampering(once(bad, good, m.CommitmentSigned, negated)):
        start_payment(pump, bad)
        pump.run()
    assert_failed(pump, good, bad, "partial_signature_with_nonce")


@pytest.mark.sampled(2)
@CULPRITS
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(per_commitment_secret=b"\x07" * 32), "per_commitment_secret: expected"),
        (changed(per_commitment_secret=bytes(32)), "per_commitment_secret: expected"),
        (changed(next_per_commitment_point=bytes(33)), "next_per_commitment_point: expected a"),
        (changed(next_pubnonce=bytes(66)), "next_pubnonce: expected two points"),
        (twice, ": expected"),
    ],
    ids=["another secret", "no secret", "no point", "no nonce", "twice"],
)
def test_a_revocation_that_is_not_one_ends_the_channel(
    pump: Pump, culprit: str, change: Change, reason: str
) -> None:
    bad, good = roles(pump, culprit)
    with pump.tampering(once(bad, good, m.RevokeAndAck, change)):
        start_payment(pump, bad)
        pump.run()
    assert_failed(pump, good, bad, reason)


@CULPRITS
def test_a_signature_of_nothing_new_ends_the_channel(pump: Pump, culprit: str) -> None:
    bad, good = roles(pump, culprit)
    link = link_of(pump, bad)
    nothing = m.CommitmentSigned(
        channel_id=link.channel_id,
        pubnonce=link.pubnonce,
        partial_sig=bytes(32),
        htlc_signatures=(),
    )
    pump.tell(good, bad, nothing)
    assert_failed(pump, good, bad, "commitment_signed: expected an update, received none")


@CULPRITS
def test_updates_in_another_order_end_the_channel(pump: Pump, culprit: str) -> None:
    bad, good = roles(pump, culprit)
    alice, bob, _ = pump.clients
    kept: list[m.Message] = []

    def swapped(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender is not bad or not isinstance(message, m.UpdateAddHtlc):
            return (message,)
        kept.append(message)
        return () if len(kept) == 1 else (message, kept[0])

    payee = bob if bad is alice else alice
    with pump.tampering(swapped):
        for _ in range(3):
            pump.handle(bad, make_invoice(pump, payee, 1_000_000))
        pump.run()
    assert link_of(pump, good).failure is not None
    assert_failed(pump, good, bad, "expected")


def told_again(pump: Pump, culprit: PumpNode, victim: PumpNode, change: Change) -> None:
    """Break Alice's connection, and let the culprit tell something else about the channel."""
    with pump.tampering(once(culprit, victim, m.ChannelReestablish, change)):
        pump.disconnect(pump.clients[0])
        pump.connect(pump.clients[0])
        pump.run()


@pytest.mark.sampled(2)
@CULPRITS
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(your_last_per_commitment_secret=b"\x07" * 32), "your_last_per_commitment_secret"),
        (changed(your_last_per_commitment_secret=bytes(32)), "your_last_per_commitment_secret"),
        (changed(next_revocation_number=0), PEER_LOST_STATE),
        (
            changed(next_revocation_number=0, your_last_per_commitment_secret=bytes(32)),
            PEER_LOST_STATE,
        ),
        (changed(next_revocation_number=9), "your_last_per_commitment_secret"),
        (changed(next_revocation_number=(1 << 64) - 1), "next_revocation_number: expected at most"),
        (changed(next_commitment_number=0), PEER_LOST_STATE),
        (changed(next_commitment_number=2), PEER_LOST_STATE),
        (changed(next_commitment_number=4), "next_commitment_number: expected 3..3, received 4"),
        (changed(next_commitment_number=(1 << 64) - 1), "next_commitment_number: expected 3..3"),
        (changed(next_pubnonce=bytes(66)), "next_pubnonce: expected two points"),
    ],
)
def test_a_channel_that_cannot_stand_where_a_peer_says_is_over(
    pump: Pump, culprit: str, change: Change, reason: str
) -> None:
    bad, good = roles(pump, culprit)
    told_again(pump, bad, good, change)
    assert not link_of(pump, good).is_behind
    assert_failed(pump, good, bad, reason)


@CULPRITS
def test_a_number_beyond_the_last_commitment_proves_no_lost_state(pump: Pump, culprit: str) -> None:
    """BOLT 3's secrets repeat after 2^48: an old one shown for such a number proves nothing."""
    bad, good = roles(pump, culprit)

    def far_ahead(message: m.ChannelReestablish) -> tuple[m.Message, ...]:
        number = message.next_revocation_number + N_COMMITMENTS_MAX
        return (replace(message, next_revocation_number=number),)

    told_again(pump, bad, good, far_ahead)
    assert not link_of(pump, good).is_behind, "our own commitment may still be published"
    assert_failed(pump, good, bad, "next_revocation_number: expected at most")


@pytest.mark.sampled(1)
@CULPRITS
def test_who_lost_state_is_told_so_and_never_publishes_its_own(pump: Pump, culprit: str) -> None:
    honest, lost = roles(pump, culprit)
    alice, bob, _ = pump.clients
    backup = list(lost.store.entries)
    for payer, payee in ((pump.lsp, alice), (alice, bob)):
        assert pay(pump, payer, payee, 1_000_000).status == "paid"
    lost.store.entries[:] = backup
    lost._fold = None
    pump.restart(lost)
    pump.run()
    behind, other = link_of(pump, lost), link_of(pump, honest)
    assert behind.is_behind
    assert behind.failure is not None
    assert behind.failure.startswith("state was lost here: the peer knows later states")
    assert not other.is_behind
    assert other.peer_is_behind
    assert other.failure == PEER_LOST_STATE
    carol = pump.clients[2]
    assert pay(pump, pump.lsp, carol, 1_000_000).status == "paid"


@CULPRITS
def test_who_lost_state_learns_it_from_a_peer_that_gave_the_channel_up_before(
    pump: Pump, culprit: str
) -> None:
    """BOLT 2: a stale commitment is a gift to the peer, so the proof must arrive whenever."""
    honest, lost = roles(pump, culprit)
    alice, bob, _ = pump.clients
    backup = list(lost.store.entries)
    for payer, payee in ((pump.lsp, alice), (alice, bob)):
        assert pay(pump, payer, payee, 1_000_000).status == "paid"
    lost.store.entries[:] = backup
    lost._fold = None

    def one_way(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = receiver is lost and isinstance(message, m.ChannelMessage)
        return () if is_lost else (message,)

    with pump.tampering(one_way):
        pump.restart(lost)
        pump.run()
    assert link_of(pump, honest).failure is not None
    assert link_of(pump, lost).failure is None
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert link_of(pump, lost).is_behind


@CULPRITS
def test_who_gave_a_channel_up_still_learns_that_it_lost_state(pump: Pump, culprit: str) -> None:
    honest, lost = roles(pump, culprit)
    alice, bob, _ = pump.clients
    backup = list(lost.store.entries)
    for payer, payee in ((pump.lsp, alice), (alice, bob)):
        assert pay(pump, payer, payee, 1_000_000).status == "paid"
    channel_id = newest_link(alice).channel_id
    pump.disconnect(alice)
    lost.store.entries[:] = backup
    lost._fold = None
    pump.restart(lost)
    pump.tell(lost, honest, m.ChannelFailure(channel_id=channel_id, reason="no more"))
    assert link_of(pump, lost).failure == "the peer: no more"
    assert not link_of(pump, lost).is_behind
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert link_of(pump, lost).is_behind


def test_an_old_backup_without_a_revocation_since_goes_on(pump: Pump) -> None:
    alice = pump.clients[0]
    backup = list(alice.store.entries)
    make_invoice(pump, alice, 1_000_000)
    alice.store.entries[:] = backup
    alice._fold = None
    pump.restart(alice)
    pump.run()
    assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"


@CULPRITS
def test_a_preimage_counts_even_from_a_peer_that_breaks_the_rules(pump: Pump, culprit: str) -> None:
    """The payee shows the preimage and then spoils the update: the payment is paid all the same."""
    alice, bob, _ = pump.clients
    assert pay(pump, pump.lsp, bob, FIRST_MSAT).status == "paid"
    bad = alice if culprit == "client" else pump.lsp
    payer = bob if culprit == "client" else alice
    good = pump.lsp if culprit == "client" else alice
    payee = alice if culprit == "client" else bob
    request = make_invoice(pump, payee, 1_000_000)
    pump.handle(payer, request)
    shown: list[bool] = []

    def spoilt(sender: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if (sender, receiver) != (bad, good):
            return (message,)
        shown.extend([True] if isinstance(message, m.UpdateFulfillHtlc) else [])
        if shown and isinstance(message, m.CommitmentSigned):
            return (replace(message, htlc_signatures=(bytes(64),)),)
        return (message,)

    with pump.tampering(spoilt):
        pump.run()
    assert link_of(pump, good).failure is not None
    assert book(payer).payments[request.payment_hash].status == "paid"
    if payer is bob:
        fee_msat = 2000
        assert balance(bob).own_msat == FIRST_MSAT - 1_000_000 - fee_msat
        assert book(pump.lsp).earned_msat == fee_msat


def test_a_payee_that_takes_its_preimage_back_has_given_the_money_away(pump: Pump) -> None:
    """Bob shows the preimage, loses his journal's end, and gives the HTLC back as expired."""
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob, 1_000_000)
    backup: list[Entry] = []

    def watched(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender is pump.lsp and isinstance(message, m.RevokeAndAck):
            backup[:] = bob.store.entries
        return (message,)

    pump.handle(alice, request)
    with pump.tampering(watched):
        pump.run_to(m.UpdateFulfillHtlc)
    (fulfil,) = (one for one in pump.wire if isinstance(one.message, m.UpdateFulfillHtlc))
    pump.disconnect(alice)
    pump.tell(pump.lsp, bob, fulfil.message)
    pump.disconnect(bob)
    bob.store.entries[:] = backup
    bob._fold = None
    pump.restart(bob)
    pump.pass_deadline(bob, fx.InvoiceDeadline(payment_hash=request.payment_hash))
    pump.run()
    assert book(bob).invoices[request.payment_hash].status == "expired"
    assert balance(bob).own_msat == 0
    pump.connect(alice)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"
    assert balance(alice).own_msat == FIRST_MSAT - 1_000_000 - 2000
    assert [forward.status for forward in book(pump.lsp).finished.values()] == ["paid"]
    assert all(newest_link(client).failure is None for client in pump.clients)


@pytest.mark.sampled(1)
@CULPRITS
def test_a_signer_that_fails_ends_one_channel(pump: Pump, culprit: str) -> None:
    bad, good = roles(pump, culprit)
    start_payment(pump, bad)
    pump.run_to(m.CommitmentSigned)
    assert good.signer is not None
    pool_id = link_of(pump, good).pool_id
    assert pool_id is not None
    good.signer.drop_pool(pool_id)
    pump.run()
    assert_failed(pump, good, bad, "our signer: the nonce pool was dropped")


def test_a_reason_of_any_length_is_taken(pump: Pump) -> None:
    alice = pump.clients[0]
    channel_id = newest_link(alice).channel_id
    reason = "\N{SNOWMAN}" * m.REASON_SIZE_MAX
    pump.tell(pump.lsp, alice, m.ChannelFailure(channel_id=channel_id, reason=reason))
    failure = lsp_link(pump, newest_link(alice)).failure
    assert failure is not None
    assert failure.startswith("the peer: \N{SNOWMAN}")
    pump.handle(alice, make_invoice(pump, alice, 1_000_000))
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert newest_link(alice).failure is not None


@pytest.mark.parametrize("who", ["client", "lsp"])
def test_a_connection_that_comes_and_goes_leaves_no_nonce_behind(pump: Pump, who: str) -> None:
    alice = pump.clients[0]
    node = alice if who == "client" else pump.lsp
    assert node.signer is not None
    n_pools = len(node.signer._pools)
    for _ in range(5):
        pump.disconnect(alice)
        pump.connect(alice)
        pump.run()
    assert len(node.signer._pools) == n_pools
