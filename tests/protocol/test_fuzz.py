"""Whatever a peer says, in whatever order: a role decides, and nothing else is raised.

The states are real ones, taken along a ceremony; the messages are real ones with fields changed,
cut, repeated and exchanged, all of them well-formed on the wire. A second sighash, a failed
assertion or a missing key would raise here and end a daemon there.
"""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Final, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.protocol.advances import buy, market
from tests.protocol.closes import ask_for_close, close, finished, under_way
from tests.protocol.forge import NOT_A_POINT, stranger
from tests.protocol.paying_clients import pay
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.simulation.commitments import acknowledged
from tests.simulation.sim_node import CLIENT_ROLE, LSP_ROLE, SimStore

from cromford import effects as fx
from cromford.adapters.memory import MemoryKeys
from cromford.bitcoin.network import REGTEST
from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX
from cromford.daemon.driver import Driver
from cromford.daemon.handover import HandedOver, HandoverEffect
from cromford.daemon.signing import perform_signing
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.lsp_attempt import Acknowledging
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.records import AnyRecord, decode_record
from cromford.protocol.journal.streams import HOUSE
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wire import messages as m

EXAMPLES: Final = 150
MESSAGES_MAX: Final = 5


class Material:
    """What the fuzzer starts from: every state of a ceremony and every message in it."""

    def __init__(self) -> None:
        self.lsp_states: list[Any] = []
        self.client_states: list[Any] = []
        self.messages: list[m.Message] = []
        pump = Pump(3)
        self.chain = pump.chain
        self.node_ids = [client.node_id for client in pump.clients]
        self.lsp_id = pump.lsp.node_id

        def watching(_sender: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            self.take(pump)
            self.messages.append(message)
            return (message,)

        pump.tamper = watching
        pump.join()
        pump.build()
        pump.run_to(m.SignRoot)
        attempt = pump.attempt
        pump.tell(pump.lsp, pump.client_at(3), m.Abort(attempt_id=attempt.attempt_id, reason=""))
        pump.run()
        pump.mine(2)
        pump.join_again()
        pump.mine(2)
        pump.restart(pump.clients[0])
        pump.run()
        self.take(pump)
        pump.mine(pump.policy.min_depth)
        self.sell(pump)
        self.close(pump)
        ids = {"attempt_id": pump.attempt.attempt_id, "terms_hash": attempt.terms.terms_hash}
        self.messages += [
            m.Resume(**ids),
            m.Abort(attempt_id=ids["attempt_id"], reason="over"),
            m.AnnounceHash(payment_hash=bytes(32), hold_seconds=60, expiry_seconds=60),
            m.HashAnnounced(payment_hash=bytes(32), hold_seconds=60),
            m.Leave(factory_pubkey=pump.attempt.seats[0].factory_pubkey),
            m.Refused(factory_pubkey=stranger(), reason="no"),
        ]
        self.by_size: dict[int, list[bytes]] = {}
        for message in self.messages:
            self.collect(message)

    def sell(self, pump: Pump) -> None:
        """Let a client buy: once in vain, once cut off in the middle, and then to the end."""
        seats = range(1, len(pump.attempt.seats) + 1)
        for seat in seats:
            pay(pump, pump.lsp, pump.client_at(seat), 20_000_000)
        refuser = pump.client_at(seats[-1])
        with market():
            quote = buy(pump, 1)
            (advance,) = pump.factory.advances.values()
            abort = m.AdvanceAbort(
                attempt_id=quote.attempt_id, advance_id=advance.advance_id, reason="no"
            )
            pump.tell(pump.lsp, refuser, abort)
            pump.disconnect(refuser)
            pump.run()
            pump.connect(refuser)
            pump.run()
            pump.mine()
            buy(pump, 1)
            pump.run_to(m.AdvanceSign)
            self.take(pump)
            pump.disconnect(refuser)
            pump.run()
            for client in pump.clients:
                if client.name not in pump.links:
                    pump.connect(client)
            pump.run()
        assert not pump.factory.advances
        self.messages += [
            abort,
            quote,
            m.QuoteRequest(attempt_id=quote.attempt_id, amount_sat=20_000, payment_hash=b""),
            m.QuoteRefused(
                attempt_id=quote.attempt_id,
                quote_id=quote.quote_id,
                code="no",
                reason="no",
                missing_msat=1,
                next_factory=0,
            ),
        ]

    def close(self, pump: Pump) -> None:
        """Let everybody close the factory: once in vain, and once to the end."""
        ask_for_close(pump)
        pump.run_to(m.CloseSign)
        end = m.CloseEnd(close_id=under_way(pump).close_id, reason="no")
        refuser = pump.client_at(1)
        pump.tell(pump.lsp, refuser, end)
        pump.run()
        pump.pass_deadline(refuser, fx.CloseDeadline(close_id=end.close_id))
        close(pump)
        self.take(pump)
        assert finished(pump.lsp)

    def take(self, pump: Pump) -> None:
        """Remember where everybody is."""
        for node in (pump.lsp, *pump.clients):
            known = self.lsp_states if node is pump.lsp else self.client_states
            if not any(state is node.state for state in known):
                known.append(node.state)

    def collect(self, value: Any) -> None:
        """Remember byte strings, to put one where another of its size was."""
        if isinstance(value, bytes):
            kept = self.by_size.setdefault(len(value), [])
            if value not in kept and len(kept) < 40:
                kept.append(value)
        elif isinstance(value, tuple):
            for item in value:
                self.collect(item)
        elif is_dataclass(value):
            for item in fields(value):
                self.collect(getattr(value, item.name))


@cache
def material() -> Material:
    return Material()


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a value of the same kind with something changed."""
    match value:
        case bytes():
            return changed_bytes(draw, value)
        case str():
            return draw(st.text(max_size=40))
        case int():
            near = [0, 1, value - 1, value + 1, 2 * value, 2**32, 2**63, U64_MAX]
            return draw(st.sampled_from([n for n in near if 0 <= n <= U64_MAX]))
        case tuple():
            return changed_tuple(draw, value)
    name = draw(st.sampled_from([item.name for item in fields(value)]))
    return replace(value, **{name: changed(draw, getattr(value, name))})


def changed_bytes(draw: st.DrawFn, value: bytes) -> bytes:
    others = material().by_size.get(len(value), [value])
    how = draw(st.sampled_from(["other", "flip", "zero", "cut", "noise"]))
    match how:
        case "other":
            return draw(st.sampled_from(others))
        case "flip" if value:
            place = draw(st.integers(0, len(value) - 1))
            flip = 1 << draw(st.integers(0, 7))
            return value[:place] + bytes((value[place] ^ flip,)) + value[place + 1 :]
        case "cut":
            return value[: draw(st.integers(0, len(value)))]
        case "noise" if len(value) == len(NOT_A_POINT):
            return NOT_A_POINT
    return bytes(len(value))


def changed_tuple(draw: st.DrawFn, value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        return value
    place = draw(st.integers(0, len(value) - 1))
    how = draw(st.sampled_from(["change", "drop", "repeat", "turn", "empty"]))
    match how:
        case "change":
            return (*value[:place], changed(draw, value[place]), *value[place + 1 :])
        case "drop":
            return value[:place] + value[place + 1 :]
        case "repeat":
            return (*value, value[place])
        case "turn":
            return value[place:] + value[:place]
    return ()


@st.composite
def well_formed(draw: st.DrawFn) -> m.Message:
    """Return a message that survives the wire: a real one, with up to three changes."""
    message: Any = draw(st.sampled_from(material().messages))
    for _ in range(draw(st.integers(0, 3))):
        candidate = changed(draw, message)
        try:
            decoded = m.decode_message(m.encode_message(candidate))
        except MalformedBytes:
            continue
        assert decoded is not None
        message = decoded
    result: m.Message = message
    return result


def fork(role: Any, state: Any) -> Driver[Any]:
    """Return a driver in a state, with a signer that has lost every nonce, as after a crash."""
    signer = Signer(Keychain(bytes(32), REGTEST, journal_number=1))

    def perform(effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.LookUpCoins(outpoints=outpoints):
                coins = tuple((o, material().chain.coin(o)) for o in outpoints)
                return (ev.CoinsLookedUp(asked=effect, coins=coins),)
            case (
                fx.Send()
                | fx.Disconnect()
                | fx.SetDeadline()
                | fx.ClearDeadline()
                | fx.Broadcast()
                | fx.LookUpSpenders()
                | fx.PublishBumped()
                | fx.HandOverKeys()
            ):
                return ()
        if isinstance(effect, HandoverEffect):
            return HandedOver(signer, MemoryKeys()).perform(effect)
        return perform_signing(signer, lambda: bytes(32), effect)

    return Driver(role, state, SimStore(), perform)


def requests() -> st.SearchStrategy[ev.Event]:
    """Return what an operator may ask meanwhile, and what may happen by itself."""
    return st.sampled_from(
        [
            ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT),
            ev.LeaveRequested(),
            ev.BuildRequested(min_clients=1, max_clients=3),
            ev.AddressRequested(),
            ev.DeadlineReached(stream=HOUSE, deadline=fx.RejoinDeadline()),
            ev.DaemonStarted(),
        ]
    )


FUZZED: Final = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)


@pytest.mark.sampled(0)
@FUZZED
@given(data=st.data())
def test_nothing_a_client_says_raises_anything_at_the_lsp(data: st.DataObject) -> None:
    driver = fork(LSP_ROLE, data.draw(st.sampled_from(material().lsp_states), label="state"))
    for _ in range(data.draw(st.integers(1, MESSAGES_MAX))):
        node_id = data.draw(st.sampled_from([*material().node_ids, stranger()]), label="sender")
        message = data.draw(well_formed(), label="message")
        feed(driver, ev.MessageReceived(node_id=node_id, message=message))
        check_coins(driver)
        around = data.draw(st.none() | requests() | connections(node_id), label="meanwhile")
        if around is not None and not isinstance(around, ev.JoinRequested | ev.LeaveRequested):
            feed(driver, around)


@pytest.mark.sampled(0)
@FUZZED
@given(data=st.data())
def test_nothing_an_lsp_says_raises_anything_at_a_client(data: st.DataObject) -> None:
    driver = fork(CLIENT_ROLE, data.draw(st.sampled_from(material().client_states), label="state"))
    lsp_id = material().lsp_id
    for _ in range(data.draw(st.integers(1, MESSAGES_MAX))):
        message = data.draw(well_formed(), label="message")
        feed(driver, ev.MessageReceived(node_id=lsp_id, message=message))
        around = data.draw(st.none() | requests() | connections(lsp_id), label="meanwhile")
        if around is not None and not isinstance(around, ev.BuildRequested | ev.DeadlineReached):
            feed(driver, around)


def connections(node_id: bytes) -> st.SearchStrategy[ev.Event]:
    return st.sampled_from(
        [
            ev.ConnectionOpened(node_id=node_id),
            ev.ConnectionClosed(node_id=node_id),
            ev.MessageMalformed(node_id=node_id, reason="noise"),
        ]
    )


def feed(driver: Driver[Any], event: ev.Event) -> None:
    """Handle an event. An operator may be told no; a peer is never answered with an exception."""
    try:
        driver.handle(event)
    except Rejected:
        assert not isinstance(event, ev.MessageReceived)
    if isinstance(driver.state, LspState):
        assert not driver.state.stopped, "a bug was met while mail was taken"


def records_of(driver: Driver[Any]) -> list[AnyRecord]:
    store = driver._store
    return [decode_record(kept.record) for kept in store.history(after=0, limit=store.newest)]


def check_coins(driver: Driver[Any]) -> None:
    """No funding is signed that the honest ceremony of the state would not have signed."""
    for attempt in driver.state.attempts.values():
        before = driver.beginning.attempts.get(attempt.attempt_id)
        if attempt.funded is not None and (before is None or before.funded is None):
            said = acknowledged(records_of(driver), attempt.attempt_id)
            if before is not None and isinstance(before.stage, Acknowledging):
                said |= before.stage.done
            assert said == set(range(1, len(attempt.seats) + 1))


@settings(max_examples=300)
@example(data=b"")
@given(
    data=st.binary(max_size=200)
    | st.sampled_from([38400, 38402, 38410, 38426]).flatmap(
        lambda kind: st.binary(max_size=200).map(
            lambda rest: kind.to_bytes(2, "big") + b"\1" + rest
        )
    )
)
def test_bytes_that_are_no_message_are_malformed_and_nothing_else(data: bytes) -> None:
    try:
        message = m.decode_message(data)
    except MalformedBytes:
        return
    assert message is None or m.decode_message(m.encode_message(message)) == message


def test_the_material_covers_every_message_and_every_stage() -> None:
    # Those of a key handover are no events as they come: its own tests have them.
    in_channels = {
        *get_args(m.ChannelMessage),
        *get_args(m.HandoverMessage),
        *get_args(m.MarkMessage),
        m.LeafStates,
    }
    spoken = {type(message) for message in material().messages}
    assert spoken >= set(m.MESSAGE_TYPES) - in_channels
    stages = {
        type(attempt.stage).__name__
        for state in material().client_states
        for attempt in state.attempts.values()
    }
    assert stages >= {"BelowSent", "RootSent", "Complete"}
    phases = {
        attempt.stage.label
        for state in material().lsp_states
        for attempt in state.attempts.values()
    }
    closes = {
        factory.closing.stage.label
        for state in material().lsp_states
        for factory in state.all_factories()
        if factory.closing is not None
    }
    assert closes == {"agreeing", "signing"}
    advances = {
        (advance.is_committed, advance.has_poisons)
        for state in material().lsp_states
        for factory in state.all_factories()
        for advance in factory.advances.values()
    }
    assert advances == {(False, False), (True, False), (True, True)}
    assert phases == {"signing_below", "signing_root", "acknowledging", "funding", "aborted"}


def test_a_rejected_request_changes_nothing() -> None:
    driver = fork(CLIENT_ROLE, material().client_states[0])
    before = driver.state
    with pytest.raises(Rejected):
        driver.handle(ev.JoinRequested(capacity_sat=1, capacity_least_sat=2))
    assert driver.state is before
