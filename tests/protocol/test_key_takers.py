"""Which keys an LSP takes, by name what it refuses, and that a lost file costs a question."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.attacks import nothing, only_from, only_to
from tests.protocol.movers import BALANCE_MSAT, World, dying_world, keychain_of, spent_world
from tests.protocol.paying_clients import make_invoice
from tests.protocol.pump import PumpNode

from cromford import effects as fx
from cromford.crypto.keys import pubkey_of
from cromford.protocol import events as ev
from cromford.protocol.channels.seats import GONE, is_own_seat
from cromford.protocol.handover.lsp import NO_SEAT, refusal_of
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.mark import StoreMark
from cromford.signing.handed_over import OfferedKeys
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.told import msat
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(6)

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def secrets_of(world: World, client: PumpNode) -> m.KeyHandover:
    """Return what a client would send, true to its seed."""
    number = world.attempt(client).key_attempt
    keychain = keychain_of(client)
    return m.KeyHandover(
        attempt_id=world.old_id,
        factory_secret=keychain.seckey(FactoryKey(attempt=number)),
        funding_secret=keychain.seckey(ChannelKey(attempt=number, channel=0)),
    )


def answer_to(world: World, sender: PumpNode, message: m.KeyHandover) -> str:
    """Let a client hand keys over, and return what the LSP says to it; it must keep no secret."""
    n_said = len(world.pump.sent(world.pump.lsp, m.KeyTaken))
    world.pump.tell(world.pump.lsp, sender, message)
    (answer,) = world.pump.sent(world.pump.lsp, m.KeyTaken)[n_said:]
    assert answer.attempt_id == message.attempt_id
    assert world.pump.lsp.signer is not None
    assert world.pump.lsp.signer._offered == {}
    return answer.refusal


def moved_unheard() -> tuple[World, PumpNode, PumpNode]:
    """Return a world with one who moved out and was not heard yet, and one with a balance."""
    world = dying_world(2)
    mover, stayer = world.pump.clients
    world.move(mover)
    with world.pump.tampering(only_from(mover, nothing, m.KeyHandover)):
        world.pump.mine()
    return world, mover, stayer


@cache
def unheard() -> tuple[World, PumpNode, PumpNode]:
    """Return the same for tests that change nothing, because all of it is refused."""
    return moved_unheard()


def wrong_keys(world: World, mover: PumpNode, stayer: PumpNode) -> Iterator[tuple[str, object]]:
    true, others = secrets_of(world, mover), secrets_of(world, stayer)
    yield "factory_pubkey: expected", others
    yield "factory_pubkey: expected", replace(true, factory_secret=others.factory_secret)
    yield "funding_pubkey: expected", replace(true, funding_secret=others.funding_secret)
    yield (
        "factory_pubkey: expected",
        replace(true, factory_secret=true.funding_secret, funding_secret=true.factory_secret),
    )
    for secret in (bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32):
        yield "no key: its secret is out of range", replace(true, factory_secret=secret)
        yield "no key: its secret is out of range", replace(true, funding_secret=secret)
    # The largest that is one, and another than the client's.
    largest = (ORDER - 1).to_bytes(32, "big")
    yield f"received {pubkey_of(largest).hex()}", replace(true, funding_secret=largest)


def test_keys_that_are_not_the_seats_are_refused_by_name() -> None:
    world, mover, stayer = unheard()
    for reason, message in wrong_keys(world, mover, stayer):
        assert isinstance(message, m.KeyHandover)
        assert reason in answer_to(world, mover, message)
    assert not world.factory.held_keys
    assert not world.pump.lsp.handed_over_keys.entries


def test_another_clients_keys_are_not_taken_from_whoever_sends_them() -> None:
    """A thief of the mover's keys has a seat in the same factory, or none."""
    world, mover, stayer = unheard()
    stolen = secrets_of(world, mover)
    assert "factory_pubkey: expected" in answer_to(world, stayer, stolen)
    assert not world.factory.held_keys


def test_keys_of_a_factory_in_which_the_sender_has_no_seat_are_refused_and_wake_nobody() -> None:
    world = dying_world(2, movers=1)
    mover, stayer = world.pump.clients
    newer = world.pump.held(mover).attempt_id
    for attempt_id in (bytes(32), b"\xab" * 32, newer):
        message = replace(secrets_of(world, stayer), attempt_id=attempt_id)
        assert answer_to(world, stayer, message) == NO_SEAT
    assert not any(factory.held_keys for factory in world.pump.lsp.state.all_factories())


def test_a_client_with_a_balance_is_refused_and_nothing_of_it_is_kept() -> None:
    world, _, stayer = unheard()
    refusal = answer_to(world, stayer, secrets_of(world, stayer))
    assert refusal == f"balance_msat: expected less than 330 sat, received {msat(BALANCE_MSAT)}"
    assert not world.factory.held_keys
    assert not world.pump.lsp.handed_over_keys.entries


@pytest.mark.parametrize(("left_msat", "is_taken"), [(329_999, True), (330_000, False)])
def test_the_lsp_takes_keys_below_330_sat_and_not_at_330(left_msat: int, is_taken: bool) -> None:  # noqa: FBT001 - a column
    world, spender = spent_world(left_msat)
    refusal = answer_to(world, spender, secrets_of(world, spender))
    assert (refusal == "") is is_taken
    assert (world.seat(spender) in world.factory.held_keys) is is_taken


def test_keys_come_again_while_an_htlc_is_under_way() -> None:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    request = make_invoice(world.pump, mover, 90_000_000)
    world.pump.handle(world.pump.lsp, request)
    assert world.lsp_link(mover).state.htlcs
    refusal = answer_to(world, mover, secrets_of(world, mover))
    assert refusal == "the channel is not at rest: an HTLC or an update is under way"


def test_keys_come_again_while_a_close_is_agreed_on_for_which_their_client_was_asked() -> None:
    """Neither it nor we would speak for its seat: it would be named for a deadline."""
    world, mover, _ = moved_unheard()
    pump, agreed = world.pump, []

    def late(message: m.CloseAgree) -> tuple[m.Message, ...]:
        agreed.append(message)
        return ()

    with pump.tampering(only_from(mover, late, m.CloseAgree)):
        pump.handle(pump.lsp, ev.CloseRequested(attempt_id=world.old_id))
        pump.run()
    assert answer_to(world, mover, secrets_of(world, mover)) == "a close is being agreed on"
    assert not world.factory.held_keys
    pump.tell(pump.lsp, mover, *agreed)
    pump.run()
    assert len(world.factory.closed) == 1


def test_the_same_keys_twice_are_taken_twice_and_held_once() -> None:
    world, mover, _ = moved_unheard()
    for _ in range(3):
        assert answer_to(world, mover, secrets_of(world, mover)) == ""
    held = [r for r in world.pump.lsp.store.remembered if isinstance(r, hr.KeysHeld)]
    assert held == [hr.KeysHeld(attempt_id=world.old_id, client=world.seat(mover))]
    assert len(world.pump.lsp.handed_over_keys.entries) == 1


def test_state_that_was_lost_is_no_balance_of_nothing() -> None:
    world, mover, _ = unheard()
    seat = world.seat(mover)
    link = world.lsp_link(mover)
    keys = world.old.attempt.seats[seat - 1]
    offered = OfferedKeys(
        factory_pubkey=keys.factory_pubkey, funding_pubkey=keys.channel.funding_pubkey
    )

    def with_link(**changes: Any) -> Factory:
        links = world.factory.book.links.set(link.channel_id, replace(link, **changes))
        return replace(world.factory, book=replace(world.factory.book, links=links))

    assert refusal_of(world.factory, seat, offered) is None
    for lost in ({"is_behind": True}, {"peer_is_behind": True}, {"mark": StoreMark()}):
        assert refusal_of(with_link(**lost), seat, offered) == "state of this channel was lost"


# The file


def test_a_lost_file_costs_one_question_to_a_client_that_is_there() -> None:
    world, mover, _ = moved_unheard()
    world.pump.mine()
    seat = world.seat(mover)
    assert seat in world.factory.held_keys
    world.pump.lsp.handed_over_keys.entries.clear()
    world.pump.restart(world.pump.lsp)
    world.pump.run()
    lost = [r for r in world.pump.lsp.store.remembered if isinstance(r, hr.KeysLost)]
    assert [(r.client, r.reason) for r in lost] == [(seat, "not there any more")]
    assert GONE in {answer.refusal for answer in world.pump.sent(world.pump.lsp, m.KeyTaken)}
    assert seat in world.factory.held_keys, "it was asked, and answered"
    assert world.attempt(mover).keys_taken
    assert len(world.pump.lsp.handed_over_keys.entries) == 1


def test_damaged_keys_are_found_when_the_client_comes_and_named() -> None:
    world, mover, _ = moved_unheard()
    world.pump.mine()
    entries = world.pump.lsp.handed_over_keys.entries
    ((place, kept),) = entries.items()
    entries[place] = replace(kept, sealed=bytes([kept.sealed[0] ^ 1]) + kept.sealed[1:])
    with world.pump.tampering(only_to(mover, nothing, m.KeyTaken)):
        world.pump.restart(mover)
        world.pump.run()
    (lost,) = [r for r in world.pump.lsp.store.remembered if isinstance(r, hr.KeysLost)]
    assert lost.reason == "damaged, or sealed for another seat, journal or seed"
    assert not world.factory.held_keys
    assert not is_own_seat(world.factory, world.seat(mover))
    world.pump.restart(mover)
    world.pump.run()
    assert world.factory.held_keys == {world.seat(mover)}, "it is asked until it has answered"
    assert not world.factory.lost_keys


def test_a_crash_between_the_file_and_the_record_is_as_if_the_keys_had_not_come() -> None:
    world, mover, _ = moved_unheard()
    lsp = world.pump.lsp
    perform = lsp._perform

    def dying(_node: object, effect: fx.Performed) -> object:
        answer = perform(lsp, effect)
        return () if isinstance(effect, fx.KeepKeys) else answer

    lsp._perform = dying  # type: ignore[assignment]  # as if it died once the file was written
    world.pump.tell(lsp, mover, secrets_of(world, mover))
    lsp._perform = perform
    assert len(lsp.handed_over_keys.entries) == 1
    assert not world.factory.held_keys
    world.pump.restart(lsp)
    world.pump.run()
    assert world.factory.held_keys == {world.seat(mover)}
    assert world.attempt(mover).keys_taken


def test_a_disk_that_refuses_is_our_own_affair_and_the_keys_come_later() -> None:
    world, mover, _ = moved_unheard()
    asked = fx.KeepKeys(
        attempt_id=world.old_id,
        node_id=mover.node_id,
        attempt=world.old.number,
        client=world.seat(mover),
        offered=OfferedKeys(factory_pubkey=bytes(33), funding_pubkey=bytes(33)),
    )
    world.pump.handle(world.pump.lsp, ev.KeysNotKept(asked=asked, reason="No space left on device"))
    (answer,) = world.pump.sent(world.pump.lsp, m.KeyTaken)
    assert answer.refusal == "the keys could not be kept: send them again later"
    assert not world.factory.held_keys
    world.pump.run()
    world.pump.mine()
    assert world.factory.held_keys == {world.seat(mover)}


def test_a_channel_that_failed_is_not_taken() -> None:
    world, mover, _ = moved_unheard()
    failure = m.ChannelFailure(channel_id=world.link(mover).channel_id, reason="I want to")
    world.pump.tell(world.pump.lsp, mover, failure)
    refusal = answer_to(world, mover, secrets_of(world, mover))
    assert refusal == "the channel failed: the peer: I want to"


def test_who_gave_its_keys_away_fails_no_channel_and_so_no_close() -> None:
    world, mover, _ = moved_unheard()
    world.pump.mine()
    before = world.lsp_link(mover)
    channel_id = before.channel_id
    for message in (
        m.ChannelFailure(channel_id=channel_id, reason="I want to"),
        m.UpdateFailHtlc(channel_id=channel_id, htlc_id=7, reason=b""),
        m.RevokeAndAck(
            channel_id=channel_id,
            per_commitment_secret=b"\1" * 32,
            next_per_commitment_point=pubkey_of(b"\1" * 32),
            next_pubnonce=pubkey_of(b"\1" * 32) * 2,
        ),
    ):
        world.pump.tell(world.pump.lsp, mover, message)
    assert world.lsp_link(mover) == before
    assert is_own_seat(world.factory, world.seat(mover))


def test_keys_count_only_if_the_channel_is_still_at_rest_once_they_are_durable() -> None:
    """A daemon writes them beside its loop: an HTLC may be offered meanwhile."""
    world, mover, _ = moved_unheard()
    lsp = world.pump.lsp
    perform = lsp._perform
    asked: list[fx.KeepKeys] = []

    def slowly(node: object, effect: fx.Performed) -> object:
        if isinstance(effect, fx.KeepKeys):
            asked.append(effect)
            return ()
        return perform(node, effect)  # type: ignore[arg-type]  # a node's own

    lsp._perform = slowly  # type: ignore[assignment]  # a disk that takes its time
    world.pump.tell(lsp, mover, secrets_of(world, mover))
    lsp._perform = perform
    world.pump.handle(lsp, make_invoice(world.pump, mover, 90_000_000))
    assert world.lsp_link(mover).state.htlcs
    world.pump.handle(lsp, ev.KeysKept(asked=asked[0]))
    assert not world.factory.held_keys
    world.pump.run()
    assert not world.lsp_link(mover).state.htlcs, "it came back"
    world.pump.mine()
    assert world.factory.held_keys == {world.seat(mover)}
