"""A channel of a restored store: what it signs and says, against honest peers and liars."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
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

from cromford.protocol import events as ev
from cromford.protocol.channels.marks import (
    PEER_MARKED,
    least_close_msat,
)
from cromford.protocol.journal import records as r
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)

SIDES: Final = pytest.mark.parametrize("side", ["client", "lsp"])
UPDATES_MSAT: Final = [STEP_MSAT, -2 * STEP_MSAT, STEP_MSAT]


def used_factory(**options: bool) -> tuple[Pump, Past]:
    pump = live_factory(2, policy=QUICK, **options)
    return pump, live_through(pump, UPDATES_MSAT)


def side_of(pump: Pump, side: str) -> tuple[PumpNode, PumpNode]:
    """Return whose store is restored, and the other one."""
    alice = pump.clients[0]
    return (alice, pump.lsp) if side == "client" else (pump.lsp, alice)


def backups(past: Past, side: str) -> list[Backup]:
    return past.alice if side == "client" else past.lsp


@pytest.mark.sampled(2)
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


@pytest.mark.sampled(2)
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
