"""A secret that was handed over is on the wire and in a signer, and nowhere else."""

import pickle
from typing import Any

import pytest
from tests.protocol.movers import World, dying_world, keychain_of
from tests.protocol.pump import PumpNode

from cromford import effects as fx
from cromford.daemon.event_log import EventLog
from cromford.daemon.handover import heard, key_message
from cromford.protocol import events as ev
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.wire import messages as m


def secrets_of(world: World, client: PumpNode) -> tuple[bytes, bytes]:
    number = world.attempt(client).key_attempt
    keychain = keychain_of(client)
    channel = ChannelKey(attempt=number, channel=0)
    return keychain.seckey(FactoryKey(attempt=number)), keychain.seckey(channel)


def forms_of(secret: bytes) -> list[str]:
    """Return how a secret may look in text."""
    return [secret.hex(), secret[:16].hex(), repr(secret)[2:-1], str(int.from_bytes(secret, "big"))]


def check_is_not_in(text: str, secrets: tuple[bytes, ...]) -> None:
    for secret in secrets:
        assert not any(form in text for form in forms_of(secret))


def test_no_record_state_event_effect_or_stored_key_holds_a_secret() -> None:
    world = dying_world(2)
    mover = world.pump.clients[0]
    world.move(mover)
    seen: list[Any] = []
    for node in (world.pump.lsp, mover):
        node.handle = _recorded(node, seen)  # type: ignore[method-assign]  # to see what it hears
    world.pump.mine()
    world.pump.restart(world.pump.lsp)
    world.pump.run()
    assert world.attempt(mover).keys_taken
    assert any(isinstance(event, ev.KeysOffered) for event in seen)
    secrets = secrets_of(world, mover)
    for node in (world.pump.lsp, mover):
        for entry in node.store.entries:
            assert not any(secret in entry.record for secret in secrets)
        check_is_not_in(repr(node.state), secrets)
        node.checkpoint()
        for checkpoint in node.store.checkpoints.values():
            assert not any(secret in repr(checkpoint).encode() for secret in secrets)
            check_is_not_in(repr(checkpoint), secrets)
        log = EventLog(node.store, journal_number=1)
        check_is_not_in(repr(log.after(0)), secrets)
    check_is_not_in(repr(seen), secrets)
    check_is_not_in(repr(world.pump.wished), secrets)
    (kept,) = world.pump.lsp.handed_over_keys.entries.values()
    assert not any(secret in kept.sealed for secret in secrets)
    check_is_not_in(repr(kept), secrets)


def _recorded(node: PumpNode, seen: list[Any]) -> Any:
    handle = node.handle

    def watching(event: ev.Event) -> None:
        seen.append(event)
        handle(event)

    return watching


def test_the_message_prints_none_of_its_secrets_and_its_bytes_hold_both() -> None:
    world = dying_world(1)
    (client,) = world.pump.clients
    secrets = secrets_of(world, client)
    message = m.KeyHandover(
        attempt_id=world.old_id, factory_secret=secrets[0], funding_secret=secrets[1]
    )
    for text in (
        repr(message),
        str(message),
        f"{[message]}",
        repr(fx.Send(node_id=b"", message=message)),
    ):
        check_is_not_in(text, secrets)
        assert world.old_id.hex() in text or repr(world.old_id) in text
    assert all(secret in m.encode_message(message) for secret in secrets)


def test_a_message_with_secrets_becomes_an_event_without() -> None:
    world = dying_world(1)
    (client,) = world.pump.clients
    secrets = secrets_of(world, client)
    assert world.pump.lsp.signer is not None
    message = m.KeyHandover(
        attempt_id=world.old_id, factory_secret=secrets[0], funding_secret=secrets[1]
    )
    event = heard(world.pump.lsp.signer, client.node_id, message)
    assert isinstance(event, ev.KeysOffered)
    seat = world.old.attempt.seats[world.seat(client) - 1]
    assert event.offered.factory_pubkey == seat.factory_pubkey
    assert event.offered.funding_pubkey == seat.channel.funding_pubkey
    assert not any(secret in pickle.dumps(event) for secret in secrets)
    usual = m.Leave(factory_pubkey=bytes(33))
    assert heard(world.pump.lsp.signer, client.node_id, usual) == ev.MessageReceived(
        node_id=client.node_id, message=usual
    )


def test_what_a_client_sends_is_the_two_keys_of_that_attempt() -> None:
    world = dying_world(1)
    (client,) = world.pump.clients
    number = world.attempt(client).key_attempt
    effect = fx.HandOverKeys(
        node_id=world.pump.lsp.node_id,
        attempt_id=world.old_id,
        factory=FactoryKey(attempt=number),
        channel=world.link(client).key,
    )
    assert client.signer is not None
    sent = key_message(client.signer, effect)
    assert isinstance(sent.message, m.KeyHandover)
    assert sent.node_id == world.pump.lsp.node_id
    assert (sent.message.factory_secret, sent.message.funding_secret) == secrets_of(world, client)


@pytest.mark.parametrize("field", ["factory_secret", "funding_secret"])
def test_a_secret_of_another_length_is_no_message(field: str) -> None:
    values = {"factory_secret": b"\1" * 32, "funding_secret": b"\2" * 32, field: b"\3" * 31}
    message = m.KeyHandover(attempt_id=bytes(32), **values)
    with pytest.raises(ValueError, match=f"KeyHandover.{field}: expected 32 bytes, received 31"):
        m.encode_message(message)
