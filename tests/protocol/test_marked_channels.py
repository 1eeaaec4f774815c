"""A channel of a restored store: what it signs and says, against honest peers and liars."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
    FIRST_MSAT,
    QUICK,
    STEP_MSAT,
    Backup,
    Past,
    backup_of,
    is_marked_at,
    link_of,
    live_through,
    restore,
    signed_for_channels,
)

from cromford.changed import changed
from cromford.channel.errors import PeerViolation
from cromford.crypto.signature_proof import prove
from cromford.protocol import events as ev
from cromford.protocol.channels.marks import (
    HTLCS_PENDING,
    PEER_MARKED,
    agreed_msat,
    hash_of,
    least_close_msat,
    revealed,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import Complete, RootSent
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.restored import ATTEMPTS_SKIPPED
from cromford.wire import messages as m

SIDES: Final = pytest.mark.parametrize("side", ["client", "lsp"])
UPDATES_MSAT: Final = [STEP_MSAT, -2 * STEP_MSAT, STEP_MSAT]


def used_factory(**options: bool) -> tuple[Pump, Past]:
    pump = live_factory(2, policy=QUICK, **options)
    return pump, live_through(pump, UPDATES_MSAT)


def side_of(pump: Pump, side: str) -> tuple[PumpNode, PumpNode]:
    """Return whose store is restored, and the other one."""
    alice = pump.clients[0]
    return (alice, pump.lsp) if side == "client" else (pump.lsp, alice)


def agreed(link: Link) -> int | None:
    """Return what both stores found to be ours of a marked channel, in msat."""
    assert link.mark is not None
    return link.mark.agreed_msat


def backups(past: Past, side: str) -> list[Backup]:
    return past.alice if side == "client" else past.lsp


@SIDES
@pytest.mark.parametrize("n_lost", [0, 1, 2, 3])
def test_a_restored_store_marks_its_channels_and_signs_nothing(side: str, n_lost: int) -> None:
    """Even if nothing is lost: no word of the peer's proves that."""
    pump, past = used_factory(watches_folds=True)
    node, other = side_of(pump, side)
    n_signed = signed_for_channels(pump, node)
    restore(pump, (node, backups(past, side)[-1 - n_lost]))
    marked = link_of(pump, node)
    assert is_marked_at(pump, node)
    assert not marked.is_open
    assert not is_marked_at(pump, other)
    assert link_of(pump, other).peer_is_behind
    assert link_of(pump, other).failure == PEER_MARKED
    assert marked.is_behind == (n_lost > 0), "the honest peer's numbers prove it"
    assert signed_for_channels(pump, node) == n_signed
    assert pump.sent(node, m.MarkRevealed) == []
    pump.restart(node)
    pump.run()
    assert is_marked_at(pump, node), "also after a restart"
    alice, bob = pump.clients
    assert balance(alice).spendable_msat == balance(alice).receivable_msat == 0
    if side == "client":
        assert pay(pump, pump.lsp, bob, 1_000_000).status == "paid", "others go on"


@SIDES
def test_a_marked_side_shows_no_number_of_its_own(side: str) -> None:
    pump, past = used_factory()
    node, _ = side_of(pump, side)
    before = len(pump.sent(node, m.ChannelReestablish))
    restore(pump, (node, backups(past, side)[-2]))
    own = [
        message
        for message in pump.sent(node, m.ChannelReestablish)[before:]
        if message.channel_id == newest_link(pump.clients[0]).channel_id
    ]
    assert own == []
    assert pump.sent(node, m.StoreMarked)


def test_a_marked_client_speaks_second() -> None:
    """What an LSP says of the channel it says without knowing that it could lie."""
    pump, past = used_factory()
    alice = pump.clients[0]
    heard: list[tuple[str, str]] = []

    def listen(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if alice in (by, _to) and isinstance(message, m.ChannelReestablish | m.StoreMarked):
            heard.append((by.name, type(message).__name__))
        return (message,)

    with pump.tampering(listen):
        restore(pump, (alice, past.alice[-2]))
    assert heard == [("lsp", "ChannelReestablish"), (alice.name, "StoreMarked")]


@pytest.mark.parametrize("n_lost", [1, 2, 3])
@pytest.mark.parametrize("lower", [0, 1, 2, 3])
def test_an_lsp_that_lies_about_its_numbers_gains_nothing(n_lost: int, lower: int) -> None:
    """It answers with the backup's own numbers, or lower ones, and asks for updates."""
    pump = live_factory(2, policy=QUICK)
    past = live_through(pump, [STEP_MSAT, STEP_MSAT, *UPDATES_MSAT])
    alice, bob = pump.clients
    backup = past.alice[-1 - n_lost]
    secrets = link_of(pump, pump.lsp).state.peer_secrets
    n_signed = signed_for_channels(pump, alice)

    def lie(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if to is pump.lsp and by is alice and isinstance(message, m.StoreMarked):
            return ()
        if by is pump.lsp and to is alice and isinstance(message, m.ChannelReestablish):
            n_revoked = newest_link(alice).state.own_revoked - lower
            return (
                replace(
                    message,
                    next_commitment_number=newest_link(alice).state.peer_revoked + 1 - lower,
                    next_revocation_number=n_revoked,
                    your_last_per_commitment_secret=secrets.secret_of(n_revoked - 1),
                ),
            )
        return (message,)

    with pump.tampering(lie):
        restore(pump, (alice, backup))
        link = newest_link(alice)
        assert not link.is_behind
        assert link.peer_is_behind == (lower > 0)
        pump.handle(pump.lsp, make_invoice(pump, bob, 1_000_000))
        update = m.UpdateAddHtlc(
            channel_id=link.channel_id,
            htlc_id=link.state.next_id(link.state.peer),
            amount_msat=1_000_000,
            payment_hash=bytes(32),
            cltv_expiry=pump.chain.height + 250,
            delivery=m.Delivery(payee=alice.node_id, payment_secret=bytes(32), amount_msat=1),
        )
        pump.tell(alice, pump.lsp, update)
        revocation = m.RevokeAndAck(
            channel_id=link.channel_id,
            per_commitment_secret=bytes(31) + b"\x01",
            next_per_commitment_point=link.own_point,
            next_pubnonce=bytes(66),
        )
        pump.tell(alice, pump.lsp, revocation)
        pump.run()
    after = newest_link(alice)
    assert after.state == link.state
    assert is_marked_at(pump, alice)
    assert signed_for_channels(pump, alice) == n_signed
    assert least_close_msat(after) == past.alice_msat[-1 - n_lost]


# The mark's end


@SIDES
def test_only_a_high_water_mark_takes_a_mark_off(side: str) -> None:
    pump, past = used_factory(watches_folds=True)
    node, other = side_of(pump, side)
    restored = backups(past, side)[-1]
    for client in pump.clients:
        pump.disconnect(client)
    restore_alone(pump, node, restored)
    assert is_marked_at(pump, node)
    pump.handle(node, ev.StoreProven())
    assert not is_marked_at(pump, node)
    assert not node.state.book.invoices or all(
        not one.is_doubtful for one in node.state.book.invoices.values()
    )
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    assert link_of(pump, node).is_open
    assert link_of(pump, other).is_open
    assert pay(pump, pump.lsp, pump.clients[0], 1_000_000).status == "paid"
    n_lifted = len([one for one in node.store.remembered if isinstance(one, r.MarkLifted)])
    assert n_lifted == (1 if side == "client" else 2), "the house's and the factory's"
    pump.handle(node, ev.StoreProven())
    assert n_lifted == len([one for one in node.store.remembered if isinstance(one, r.MarkLifted)])


def restore_alone(pump: Pump, node: PumpNode, backup: Backup) -> None:
    """Restore a store whose daemon meets nobody yet."""
    clients, pump.clients = pump.clients, []
    restore(pump, (node, backup))
    pump.clients = clients


def test_a_proof_that_comes_while_peers_are_connected_begins_anew_with_them() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]

    def unheard(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        return () if by is alice and isinstance(message, m.StoreMarked) else (message,)

    with pump.tampering(unheard):
        restore(pump, (alice, past.alice[-1]))
    pump.handle(alice, ev.StoreProven())
    pump.run()
    assert alice.name not in pump.links, "it hung up"
    pump.connect(alice)
    pump.run()
    assert newest_link(alice).is_open


def test_a_store_that_was_never_restored_needs_no_proof() -> None:
    pump, _ = used_factory()
    alice = pump.clients[0]
    n_records = len(alice.store.entries), len(pump.lsp.store.entries)
    for node in (alice, pump.lsp):
        pump.handle(node, ev.StoreProven())
    assert n_records == (len(alice.store.entries), len(pump.lsp.store.entries))
    assert newest_link(alice).is_open


@SIDES
def test_a_channel_that_had_failed_before_the_backup_takes_no_mark(side: str) -> None:
    """Nothing of it was revoked since, in whatever records came after."""
    pump, _ = used_factory()
    node, other = side_of(pump, side)
    channel_id = newest_link(pump.clients[0]).channel_id
    pump.tell(node, other, m.ChannelFailure(channel_id=channel_id, reason="no more"))
    restore(pump, (node, backup_of(node)))
    assert not is_marked_at(pump, node)
    assert not link_of(pump, node).withholds_commitment


# Both sides


@pytest.mark.parametrize("n_alice_lost", [0, 1, 3])
@pytest.mark.parametrize("n_lsp_lost", [0, 1, 3])
def test_two_marked_sides_close_at_the_balance_of_the_later_store(
    n_alice_lost: int, n_lsp_lost: int
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    n_signed = [signed_for_channels(pump, node) for node in (alice, pump.lsp)]
    restore(pump, (alice, past.alice[-1 - n_alice_lost]), (pump.lsp, past.lsp[-1 - n_lsp_lost]))
    later_msat = past.alice_msat[-1 - min(n_alice_lost, n_lsp_lost)]
    own, lsps = newest_link(alice), link_of(pump, pump.lsp)
    assert least_close_msat(own) == later_msat
    capacity_msat = own.state.opener_msat + own.state.accepter_msat
    assert least_close_msat(lsps) == capacity_msat - later_msat
    assert agreed(own) == later_msat
    assert agreed(lsps) == capacity_msat - later_msat
    assert n_signed == [signed_for_channels(pump, node) for node in (alice, pump.lsp)]
    assert own.failure is lsps.failure is None
    for node in (alice, pump.lsp):
        pump.restart(node)
        pump.run()
        compared = [one for one in node.store.remembered if isinstance(one, cr.MarksCompared)]
        assert len(compared) == 1, "once, and then remembered"


def revealing(pump: Pump, past: Past) -> list[m.MarkRevealed]:
    """Restore both sides of Alice's channel; return what was revealed, the LSP's first."""
    told: list[m.MarkRevealed] = []

    def listen(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.MarkRevealed):
            told.append(message)
        return (message,)

    with pump.tampering(listen):
        restore(pump, (pump.clients[0], past.alice[-2]), (pump.lsp, past.lsp[-2]))
    return told


def test_what_is_revealed_holds_no_signature_of_a_commitment() -> None:
    """Whoever had it could publish a revoked commitment of the other one's, and punish it."""
    pump, past = used_factory()
    told = revealing(pump, past)
    assert len(told) == 2
    for message, link in zip(
        told, (link_of(pump, pump.lsp), newest_link(pump.clients[0])), strict=True
    ):
        assert link.signature[32:].hex() not in m.encode_message(message).hex()
        assert message.nonce == link.signature[:32]
    assert told[0].commitment_number == link_of(pump, pump.lsp).state.own_signed, "the LSP first"


CHANGES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"opener_msat": 1}, "opener_msat"),
    ({"commitment_number": 1 << 48}, "commitment_number: expected below"),
    ({"commitment_number": 999}, "proof: expected that of our signature of commitment 999"),
    ({"per_commitment_point": bytes(33)}, "per_commitment_point: expected a point"),
    ({"nonce": bytes(32)}, "proof"),
    ({"proof": bytes(64)}, "proof"),
]


@pytest.mark.parametrize(("changes", "reason"), CHANGES)
def test_a_liar_that_claims_to_be_marked_proves_what_it_says_or_gets_no_close(
    changes: dict[str, Any], reason: str
) -> None:
    """It bound itself to a lie: the numbers are wrong, or the signature is nobody's."""
    pump, past = used_factory()
    alice = pump.clients[0]

    def lied(message: m.MarkRevealed) -> m.MarkRevealed:
        return replace(message, **changes)

    def lie(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is pump.lsp and isinstance(message, m.StoreMarked):
            truth = revealed(link_of(pump, pump.lsp))
            assert truth is not None
            return (replace(message, revealed_hash=hash_of(lied(truth))),)
        if by is pump.lsp and isinstance(message, m.MarkRevealed):
            return (lied(message),)
        return (message,)

    with pump.tampering(lie):
        restore(pump, (alice, past.alice[-2]), (pump.lsp, past.lsp[-2]))
    link = newest_link(alice)
    assert agreed(link) is None
    assert str(link.failure).startswith(reason)
    assert least_close_msat(link) == past.alice_msat[-2], "the journal's balance or more"


@pytest.mark.parametrize("more", [-1, 0, 1, 1_000])
def test_a_number_that_nobody_can_prove_moves_no_balance(more: int) -> None:
    """How much a peer signed for us is its word; its own commitment is one that we know."""
    pump, past = used_factory()
    own = link_of(pump, pump.lsp)
    told = revealed(newest_link(pump.clients[0]))
    assert told is not None
    claimed = proved_again(pump, told, peer_number=told.peer_number + more)
    capacity_msat = own.state.opener_msat + own.state.accepter_msat
    assert agreed_msat(own, claimed) == capacity_msat - past.alice_msat[-1]


def proved_again(pump: Pump, told: m.MarkRevealed, **changes: Any) -> m.MarkRevealed:
    """Return what a liar with a store of its own proves who changes what needs no proof."""
    blank = replace(told, proof=bytes(64), **changes)
    signature = newest_link(pump.clients[0]).signature
    return replace(blank, proof=prove(signature, m.encode_message(blank)))


def test_of_two_stores_one_has_to_be_the_later_one() -> None:
    """A peer that has a commitment we never signed, and not the last one we had, lies."""
    pump, _ = used_factory()
    alice, lsps = newest_link(pump.clients[0]), link_of(pump, pump.lsp)
    told = revealed(alice)
    assert told is not None
    behind = changed(lsps, state=changed(lsps.state, peer_signed=lsps.state.peer_signed + 1))
    claimed = proved_again(pump, told, peer_number=told.peer_number + 1)
    with pytest.raises(PeerViolation, match="one store to be the later one"):
        agreed_msat(behind, claimed)


def test_nobody_adapts_what_it_reveals_to_what_it_heard() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    (lsps, _) = revealing(pump, past)
    other = replace(lsps, commitment_number=lsps.commitment_number + 1)
    pump.tell(alice, pump.lsp, other)
    assert newest_link(alice).failure is not None
    assert "revealed_hash" in str(newest_link(alice).failure)


def test_a_marked_peer_binds_itself_once_for_ever() -> None:
    """Else it could reconnect, and bind itself anew to what suits it better."""
    pump, past = used_factory()
    alice = pump.clients[0]
    revealing(pump, past)
    agreed = newest_link(alice).mark
    channel_id = newest_link(alice).channel_id
    pump.disconnect(alice)
    pump.connect(alice)
    pump.tell(alice, pump.lsp, m.StoreMarked(channel_id=channel_id, revealed_hash=b"\x07" * 32))
    assert newest_link(alice).mark == agreed
    assert "revealed_hash" in str(newest_link(alice).failure)


@pytest.mark.parametrize("n_proved", [0, 1, 2, 3])
def test_an_lsp_that_claims_to_be_marked_can_show_a_state_since_the_backup_and_no_other(
    n_proved: int,
) -> None:
    """The least balance since the backup was made: what a stale store is worth against a liar."""
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[0]), (pump.lsp, past.lsp[n_proved]))
    link = newest_link(alice)
    assert agreed(link) == past.alice_msat[n_proved]


def test_an_unmarked_peer_reveals_nothing() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    assert pump.sent(pump.lsp, m.MarkRevealed) == []
    assert pump.sent(alice, m.MarkRevealed) == []
    link = newest_link(alice)
    assert link.mark == StoreMark()


def test_two_marked_sides_with_an_htlc_say_that_they_cannot_be_compared() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    begin_payment_to_absent(pump, alice, bob)
    assert newest_link(alice).state.htlcs
    restore(pump, (alice, backup_of(alice)), (pump.lsp, backup_of(pump.lsp)))
    for node in (alice, pump.lsp):
        link = link_of(pump, node)
        assert agreed(link) is None
        assert HTLCS_PENDING in str(link.failure)
    assert least_close_msat(newest_link(alice)) == FIRST_MSAT, "as if it came back"
    assert pump.sent(alice, m.MarkRevealed) == pump.sent(pump.lsp, m.MarkRevealed) == []


def begin_payment_to_absent(pump: Pump, payer: PumpNode, payee: PumpNode) -> None:
    pump.connect(payee)
    pump.run()
    request = make_invoice(pump, payee, STEP_MSAT)
    pump.disconnect(payee)
    pump.handle(payer, request)
    pump.run()


# What else a restored store must not do


def test_an_invoice_of_a_restored_store_is_doubtful() -> None:
    """It may have been paid since, and who saw its preimage would keep what is paid for it now."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    request = make_invoice(pump, alice, STEP_MSAT)
    backup = backup_of(alice)
    pump.handle(pump.lsp, request)
    pump.run()
    assert book(alice).invoices[request.payment_hash].status == "paid"
    restore(pump, (alice, backup))
    assert book(alice).invoices[request.payment_hash].status == "expired"
    pump.handle(alice, ev.StoreProven())
    assert book(alice).invoices[request.payment_hash].status == "open"


def test_a_payment_of_a_restored_store_is_not_called_failed() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    begin_payment_to_absent(pump, alice, bob)
    (payment,) = book(alice).payments.values()
    restore(pump, (alice, backup_of(alice)))
    pump.mine(3)
    assert book(alice).payments[payment.payment_hash].status == "pending"


@SIDES
def test_keys_of_attempts_that_are_forgotten_are_never_used_again(side: str) -> None:
    """In a channel of a forgotten attempt, secrets were told that would revoke another's."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    node, _ = side_of(pump, side)
    before = backup_of(node)
    pump.join_again()
    pump.build(min_clients=2)
    pump.run()
    pump.mine(QUICK.min_depth)
    lost = newest_key(pump, alice)
    used = {*numbers_of(node)}
    restore(pump, (node, before))
    for client in pump.clients:
        if client.state.wish is None:
            pump.join(client)
    pump.build(min_clients=2)
    pump.run()
    fresh = newest_key(pump, alice)
    assert fresh != lost
    assert min({*numbers_of(node)} - used) >= ATTEMPTS_SKIPPED, "a factory was built since"
    skipped = [one for one in node.store.remembered if isinstance(one, r.KeysSkipped)]
    assert len(skipped) == 1
    pump.restart(node)
    assert len([one for one in node.store.remembered if isinstance(one, r.KeysSkipped)]) == 1


def newest_key(pump: Pump, alice: PumpNode) -> bytes:
    return pump.held(alice).join.factory_pool.pubkey


def numbers_of(node: PumpNode) -> list[int]:
    """Return the numbers of a node's attempts, by which its keys are made."""
    return [one.key_attempt for one in node.state.attempts.values()]


# Attempts that become channels only afterwards


@SIDES
def test_an_attempt_that_becomes_a_channel_after_the_restore_begins_marked(side: str) -> None:
    """In what was lost it may have become one before, and taken updates."""
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run()
    alice = pump.clients[0]
    node, other = side_of(pump, side)
    assert pump.is_funded()
    restore(pump, (node, backup_of(node)))
    pump.mine(QUICK.min_depth)
    assert is_marked_at(pump, node)
    assert not is_marked_at(pump, other)
    assert link_of(pump, node).withholds_commitment
    pump.handle(node, ev.StoreProven())
    assert not is_marked_at(pump, node)
    assert newest_link(alice).failure is not None or side == "lsp"


def test_a_client_that_had_signed_the_root_asks_for_it_and_its_channel_begins_marked() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    pump.run(until=lambda: pump.attempt.signed is not None)
    assert isinstance(pump.held(client).stage, RootSent)
    backup = backup_of(client)
    pump.run()
    pump.mine(QUICK.min_depth)
    assert pay(pump, pump.lsp, client, 1_000_000).status == "paid"
    restore(pump, (client, backup))
    pump.mine()
    link = newest_link(client)
    assert link.mark is not None
    assert isinstance(pump.held(client).stage, Complete)
    assert link.is_behind, "the LSP's numbers prove it"


def test_a_store_that_was_proved_marks_no_attempt_any_more() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run()
    alice = pump.clients[0]
    restore(pump, (alice, backup_of(alice)), (pump.lsp, backup_of(pump.lsp)))
    for node in (alice, pump.lsp):
        pump.handle(node, ev.StoreProven())
    pump.run()
    pump.connect(alice)
    pump.run()
    pump.mine(QUICK.min_depth)
    assert newest_link(alice).is_open
    assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"
