"""Whatever a peer says about channels, whenever: the daemon lives, and only its own channel ends.

Two fuzzers. One puts changed messages into every state that channels of a factory go through, on
both sides. The other lets whole worlds run while some peers' messages are changed, lost, repeated
and sent late, so that the deep end of each step, with its nonces, is reached too.
"""

import random
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Final, get_args

import pytest
from tests.protocol.advances import buy, market
from tests.protocol.forge import NOT_A_POINT, stranger
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, restore
from tests.protocol.test_leaving import publish_branch
from tests.simulation.seeds import draw_start, seeds
from tests.simulation.sim_node import CLIENT_ROLE, LSP_ROLE, SimStore, durable
from tests.wire.declared import kind_of

from cromford import effects as fx
from cromford.adapters.memory import MemoryKeys
from cromford.bitcoin.network import REGTEST
from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX
from cromford.daemon.driver import Driver
from cromford.daemon.handover import HandedOver, HandoverEffect
from cromford.daemon.signing import perform_signing
from cromford.protocol import events as ev
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wire import messages as m

QUICK: Final = LspPolicy(
    min_clients=1, min_depth=1, step_blocks=4, states_per_layer=2, lstock_csv_blocks=4
)
EDGES: Final = (0, 1, 353, 354, 499_999_999, 500_000_000, 2**31, 2**32, 2**48, 2**63, U64_MAX)
ROUNDS: Final = 900
PAYING_ROUNDS: Final = 14  # And more, where by then nothing was spoilt.
MESSAGES_MAX: Final = 4
KEPT_OF_A_SIZE: Final = 120
SPOILS: Final = ("change", "change", "change", "drop", "twice", "late", "astray", "restart")
OF_FACTORIES: Final = (m.ChannelReady, m.LeafStates)
CHANNEL_KINDS: Final = (*get_args(m.ChannelMessage), *get_args(m.MarkMessage), *OF_FACTORIES)


class Forger:
    """Makes well-formed messages out of real ones; everything follows from one seed."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.by_size: dict[int, list[bytes]] = {}
        self.lists: dict[tuple[type[Any], str], list[tuple[Any, ...]]] = {}

    def collect(self, value: Any) -> None:
        """Remember byte strings, to put one where another of its size was, and lists of more."""
        if isinstance(value, bytes):
            kept = self.by_size.setdefault(len(value), [])
            if value not in kept and len(kept) < KEPT_OF_A_SIZE:
                kept.append(value)
        elif isinstance(value, tuple):
            for item in value:
                self.collect(item)
        elif is_dataclass(value):
            for item in fields(value):
                held = getattr(value, item.name)
                self.collect(held)
                if isinstance(held, tuple) and held and is_dataclass(held[0]):
                    self.lists.setdefault((type(value), item.name), []).append(held)

    def well_formed(self, message: m.Message) -> m.Message:
        """Return a message with something changed, so that it still survives the wire."""
        while True:
            try:
                decoded = m.decode_message(m.encode_message(self.changed(message)))
            except MalformedBytes:
                continue
            assert decoded is not None
            return decoded

    def changed(self, value: Any) -> Any:
        """Return a value of the same kind with something changed."""
        match value:
            case bytes():
                return self._bytes(value)
            case str():
                return self.rng.choice(["", "\x00", "\N{SNOWMAN}" * 400, value + "?"])
            case int():
                near = [*EDGES, value - 1, value + 1, 2 * value]
                return self.rng.choice([number for number in near if 0 <= number <= U64_MAX])
            case tuple():
                return self._tuple(value)
        item = self.rng.choice(fields(value))
        held = getattr(value, item.name)
        known = self.lists.get((type(value), item.name))
        if held == () and (known or kind_of(item).is_late):
            return replace(value, **{item.name: self.rng.choice(known) if known else ()})
        return replace(value, **{item.name: self.changed(held)})

    def _bytes(self, value: bytes) -> bytes:
        how = self.rng.choice(["other", "other", "flip", "zero", "noise"])
        if how == "other" and self.by_size.get(len(value)):
            return self.rng.choice(self.by_size[len(value)])
        if how == "flip" and value:
            place = self.rng.randrange(len(value))
            flipped = value[place] ^ (1 << self.rng.randrange(8))
            return value[:place] + bytes((flipped,)) + value[place + 1 :]
        if how == "noise":
            return NOT_A_POINT if len(value) == len(NOT_A_POINT) else b"\xff" * len(value)
        return bytes(len(value))

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            return (bytes(64),) * self.rng.choice([1, 2, 12])
        how = self.rng.choice(["change", "drop", "repeat", "turn", "empty"])
        place = self.rng.randrange(len(value))
        match how:
            case "change":
                return (*value[:place], self.changed(value[place]), *value[place + 1 :])
            case "drop":
                return value[:place] + value[place + 1 :]
            case "repeat":
                return (*value, value[place])
            case "turn":
                return value[place + 1 :] + value[: place + 1]
        return ()


class Material:
    """Every state that channels go through, on both sides, and every message about them."""

    def __init__(self) -> None:
        self.forger = Forger(f"channel states {draw_start()}")
        self.lsp_states: list[Any] = []
        self.client_states: list[Any] = []
        self.messages: dict[type[m.Message], list[m.Message]] = {}
        self.pump = pump = Pump(4, policy=QUICK)
        self.node_ids = [client.node_id for client in pump.clients]
        pump.tamper = self.watch
        pump.join()
        pump.build()
        pump.run()
        self.take()
        pump.mine()
        self.buy_and_break_off()
        self.pay_and_break_off()
        self.leave_and_cheat()

    def buy_and_break_off(self) -> None:
        """Take states of channels that move to another funding, with payments across, cut off.

        All of it is undone: leaves that were never advanced are what the rest is about.
        """
        pump = self.pump
        kept = [(node, backup_of(node)) for node in (pump.lsp, *pump.clients)]
        with market():
            for client in pump.clients:
                pay(pump, pump.lsp, client, 20_000_000)
            alice, bob, *_ = (pump.client_at(seat) for seat in (1, 2, 3))
            buy(pump, 1)
            for step in (m.AdvanceCommit, m.AdvanceSign, m.AdvanceDone, m.AdvanceHeld):
                pump.run_to(step)
                self.take()
            pump.handle(alice, make_invoice(pump, bob, 1_000_000))
            pump.handle(pump.lsp, make_invoice(pump, alice, 1_000_000))
            pump.run_to(m.UpdateRebase)
            pump.disconnect(alice)
            self.take()
            pump.connect(alice)
            pump.run()
        self.take()
        restore(pump, next(one for one in kept if one[0] is alice))
        self.take()
        restore(pump, *kept, is_told=False)
        pump.run()

    def pay_and_break_off(self) -> None:
        """Take states with HTLCs on their way, held, cut off, and one of a channel that is over."""
        pump = self.pump
        alice, bob, carol, dave = pump.clients
        for client in pump.clients:
            pay(pump, pump.lsp, client, 20_000_000)
        self.old = {client: newest_link(client) for client in pump.clients}
        self.old_lsp = lsp_link(pump, newest_link(alice))
        self.restore_both()
        pay(pump, alice, bob, 7_000_000)
        pay(pump, alice, bob, 1_000_000, payment_secret=bytes(32))
        pump.disconnect(bob)
        pump.handle(alice, make_invoice(pump, bob, 3_000_000))
        pump.run()
        self.take()
        pump.connect(bob)
        pump.run_to(m.UpdateFulfillHtlc)
        pump.disconnect(bob)
        pump.run()
        self.take()
        pump.restart(pump.lsp)
        self.take()
        pump.connect(bob)
        pump.run()
        for payer, payee in ((alice, carol), (carol, alice), (bob, alice)):
            pump.handle(payer, make_invoice(pump, payee, 2_000_000))
        pump.run()
        over = m.ChannelFailure(channel_id=newest_link(dave).channel_id, reason="no more")
        pump.tell(pump.lsp, dave, over)
        pump.run()
        self.take()

    def restore_both(self) -> None:
        """Take states of stores that were restored, on both sides; then undo that."""
        pump = self.pump
        nodes = (pump.lsp, *pump.clients)
        kept = [(node, backup_of(node)) for node in nodes]
        restore(pump, *kept[:2])
        self.take()
        restore(pump, *kept, is_told=False)

    def leave_and_cheat(self) -> None:
        """Take states of channels that are left, on chain, cheated on, and reorganised."""
        pump = self.pump
        alice, bob, carol, _ = pump.clients
        pump.handle(alice, make_invoice(pump, carol, 4_000_000))
        pump.run_to(m.UpdateFulfillHtlc)
        pump.disconnect(carol)
        pump.run()
        for client in (alice, bob, carol):
            pump.handle(client, ev.ExitRequested(attempt_id=newest_link(client).attempt_id))
        self.take()
        for client in (alice, bob, carol):
            publish_branch(pump, newest_link(client))
        self.pump.chain.mempool.clear()
        for tx in (
            self.old_lsp.finished.tx,
            self.old[bob].finished.tx,
            newest_link(carol).finished.tx,
        ):
            pump.chain.broadcast(tx)
        for _ in range(3):
            pump.mine()
            self.take()
        for node in (pump.lsp, *pump.clients):
            for height in range(pump.chain.height, pump.chain.height - 3, -1):
                pump.handle(node, ev.BlockRemoved(height=height))
        self.take()

    def watch(self, _by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        """Remember where everybody is, and what is said."""
        if isinstance(message, CHANNEL_KINDS):
            self.take()
            self.messages.setdefault(type(message), []).append(message)
        self.forger.collect(message)
        return (message,)

    def take(self) -> None:
        """Remember where everybody is."""
        for node in (self.pump.lsp, *self.pump.clients):
            known = self.lsp_states if node is self.pump.lsp else self.client_states
            if not any(state is node.state for state in known):
                known.append(node.state)

    def message(self, state: Any) -> m.Message:
        """Return a message for a state: a real one, mostly changed, about one of its channels."""
        rng = self.forger.rng
        message: Any = rng.choice(self.messages[rng.choice(CHANNEL_KINDS)])
        links = list(state.book.links)
        if links and not isinstance(message, OF_FACTORIES):
            message = replace(message, channel_id=rng.choice(links))
        for _ in range(rng.randrange(3)):
            message = self.forger.well_formed(message)
        result: m.Message = message
        return result


@cache
def material() -> Material:
    return Material()


def fork(role: Any, state: Any) -> Driver[Any]:
    """Return a driver in a state, with a signer that has lost every nonce, as after a crash."""
    signer = Signer(Keychain(bytes(32), REGTEST, journal_number=1))

    def perform(effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(message=message):
                assert type(m.decode_message(m.encode_message(message))) is type(message)
                return ()
            case (
                fx.Disconnect()
                | fx.SetDeadline()
                | fx.ClearDeadline()
                | fx.Broadcast()
                | fx.LookUpCoins()
                | fx.LookUpSpenders()
                | fx.PublishBumped()
                | fx.HandOverKeys()
            ):
                return ()
        if isinstance(effect, HandoverEffect):
            return HandedOver(signer, MemoryKeys()).perform(effect)
        return perform_signing(signer, lambda: bytes(32), effect)

    return Driver(role, state, SimStore(), perform)


def folded(role: Any, state: Any, driver: Driver[Any]) -> Any:
    """Return the fold of what a driver remembered since a state, as a restart would find it."""
    store: Any = driver._store
    for stream, record in store.told:
        state = role.apply(state, stream, record)
    return durable(state)


def facts(link: Link) -> tuple[Any, ...]:
    """Return what no other peer may change of a channel."""
    state = link.state
    return link.failure, link.is_behind, state.own_signed, state.own_revoked, state.peer_revoked


@pytest.mark.sampled(1)
@pytest.mark.parametrize("victim", ["lsp", "client"])
def test_any_message_in_any_state_is_taken_and_changes_no_other_channel(victim: str) -> None:
    known = material()
    rng = known.forger.rng
    role = LSP_ROLE if victim == "lsp" else CLIENT_ROLE
    states = known.lsp_states if victim == "lsp" else known.client_states
    for number in range(ROUNDS):
        this = f"seed {draw_start()}, round {number}"
        before = rng.choice(states)
        driver = fork(role, before)
        sender = known.pump.lsp.node_id
        if victim == "lsp":
            sender = rng.choice([*known.node_ids, stranger()])
        for _ in range(rng.randrange(1, MESSAGES_MAX)):
            message = known.message(before)
            try:
                driver.handle(ev.MessageReceived(node_id=sender, message=message))
            except Exception as error:
                raise AssertionError(f"{this}: {message}") from error
            if rng.random() < 0.2:
                driver.handle(ev.ConnectionClosed(node_id=sender))
                driver.handle(ev.ConnectionOpened(node_id=sender))
        assert victim == "client" or not driver.state.stopped, this
        assert folded(role, before, driver) == durable(driver.state), this
        for channel_id, link in before.book.links.items():
            if link.node_id != sender:
                assert facts(driver.state.book.links[channel_id]) == facts(link), this


def test_the_material_has_every_message_and_every_kind_of_channel() -> None:
    known = material()
    assert set(known.messages) == set(CHANNEL_KINDS)
    for states in (known.lsp_states, known.client_states):
        links = [link for state in states for link in state.book.links.values()]
        assert any(not state.book.links for state in states), "before ready"
        assert any(link.is_open and link.state.htlcs for link in links)
        assert any(not link.state.is_connected and link.state.htlcs for link in links)
        assert any(link.failure is not None for link in links)
        assert any(link.mark is not None and link.mark.agreed_msat for link in links)
        following = [link.next for link in links if link.next is not None]
        assert {one.is_dual for one in following} == {False, True}
        assert any(one.may_rebase for one in following)
        assert any(link.state.rebase is not None for link in links)
        assert any(link.superseded and link.is_open for link in links)
    spent = [
        link
        for state in known.lsp_states
        for link in state.book.links.values()
        if link.setting.funding.outpoint in state.chain.spends
    ]
    assert any(link.breach is not None for link in spent)
    assert any(link.breach is None and link.state.htlcs for link in spent)


class Spoiler:
    """Changes what some peers say on its way; the others' words arrive as they were said."""

    def __init__(self, pump: Pump, evil: list[PumpNode], seed: str, *, speaks: str) -> None:
        self.pump = pump
        self.evil = evil
        self.speaks = speaks
        self.forger = Forger(seed)
        self.rng = self.forger.rng
        self.late: list[tuple[PumpNode, m.Message]] = []
        self.n_spoilt = 0

    def __call__(self, by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        self.forger.collect(message)
        client = to if by is self.pump.lsp else by
        is_evil = client in self.evil and (by is self.pump.lsp) == (self.speaks == "lsp")
        if not is_evil or not isinstance(message, CHANNEL_KINDS) or self.rng.random() > 0.06:
            return (message,)
        self.n_spoilt += 1
        kept = [told for hearer, told in self.late if hearer is to]
        match self.rng.choice(SPOILS):
            case "drop":
                return ()
            case "twice":
                return (message, message)
            case "late":
                self.late.append((to, message))
                return (*kept[-1:], message)
            case "astray" if not isinstance(message, m.ChannelReady):
                other = self.rng.choice(list(book(self.pump.lsp).links))
                return (replace(message, channel_id=other), message)
            case "restart":
                self.pump.closing.append(client)
                return (message,)
        return (self.forger.well_formed(message),)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("speaks", ["client", "lsp"])
@pytest.mark.parametrize("seed", seeds(3))
def test_a_world_with_spoiled_channels_goes_on_in_all_others(seed: int, speaks: str) -> None:
    pump = live_factory(5, policy=QUICK, watches_folds=True)
    for client in pump.clients:
        pay(pump, pump.lsp, client, 20_000_000)
    evil, good = pump.clients[:3], pump.clients[3:]
    spoiler = Spoiler(pump, evil, f"world {seed} {speaks}", speaks=speaks)
    rng = spoiler.rng
    with pump.tampering(spoiler):
        n_rounds = 0
        while n_rounds < PAYING_ROUNDS or not spoiler.n_spoilt:
            n_rounds += 1
            payer, payee = rng.sample([pump.lsp, *pump.clients], 2)
            if payee is not pump.lsp:
                pump.handle(payer, make_invoice(pump, payee, rng.randrange(1, 4_000_000)))
            pump.run()
            for client in evil:
                if client.name not in pump.links:
                    pump.connect(client)
        pump.run()
    for client in good:
        assert newest_link(client).failure is None
        assert lsp_link(pump, newest_link(client)).failure is None
    assert pay(pump, pump.lsp, good[0], 1_000_000).status == "paid"
    assert pay(pump, good[0], good[1], 1_000_000).status == "paid"
