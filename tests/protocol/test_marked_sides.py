"""Two restored stores: both bind themselves, both prove what they have, the later one counts."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    live_factory,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
    FIRST_MSAT,
    QUICK,
    Past,
    backup_of,
    begin_payment_to_absent,
    link_of,
    restore,
    signed_for_channels,
)
from tests.protocol.test_marked_channels import used_factory

from cromford.changed import changed
from cromford.channel.errors import PeerViolation
from cromford.channel.stage import HtlcStage, Removal
from cromford.crypto.signature_proof import prove
from cromford.protocol.channels.marks import (
    HTLCS_PENDING,
    agreed_msat,
    hash_of,
    least_close_msat,
    revealed,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m


def agreed(link: Link) -> int | None:
    """Return what both stores found to be ours of a marked channel, in msat."""
    assert link.mark is not None
    return link.mark.agreed_msat


@pytest.mark.sampled(3)
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


@pytest.mark.sampled(2)
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


@pytest.mark.sampled(1)
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


@pytest.mark.sampled(1)
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


def test_an_htlc_whose_preimage_was_shown_is_of_whoever_took_it() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    begin_payment_to_absent(pump, alice, bob)
    (live,) = newest_link(alice).state.htlcs
    taken = live.at(HtlcStage.REMOVE_PROPOSED, Removal(preimage=bytes(32)))
    for node, sign in ((alice, -1), (pump.lsp, 1)):
        link = link_of(pump, node)
        after = changed(link, state=link.state.with_changed(taken))
        assert least_close_msat(after) - least_close_msat(link) == sign * live.htlc.amount_msat
