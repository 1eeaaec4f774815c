"""Clients that move from a factory that dies to the next one, and are paid and spend before."""

from dataclasses import dataclass, replace
from typing import Final

from tests.protocol.paying_clients import POLICY, book, open_factory, pay
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import LENIENT

from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.signing.keychain import Keychain

# Its fees are 0, so that a balance moves whole.
DYING_SOON: Final = LspPolicy(
    min_clients=1,
    min_depth=POLICY.min_depth,
    step_blocks=4,
    states_per_layer=2,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
    active_blocks=12,
    ready_min_blocks=4,
    dying_blocks=300,
    fee_base_msat=0,
    fee_proportional_millionths=0,
)
BALANCE_MSAT: Final = 20_000_000


class Hasty(PumpNode):
    """A client that takes a factory which soon dies."""

    client_policy = replace(LENIENT, active_blocks=(1, 52_560))


class HastyPump(Pump):
    """A pump of such clients."""

    client_kind = Hasty


@dataclass(frozen=True)
class World:
    """A pump whose first factory dies, and who is in the second."""

    pump: Pump
    old: Factory

    @property
    def old_id(self) -> bytes:
        """The name of the factory that dies."""
        return self.old.attempt.attempt_id

    @property
    def factory(self) -> Factory:
        """The factory that dies, as its LSP has it now."""
        factory: Factory = self.pump.lsp.state.factory(self.old.number)
        return factory

    def seat(self, client: PumpNode) -> int:
        """Return a client's place in the factory that dies."""
        found = self.old.attempt.client_of(client.node_id)
        assert found is not None
        return found

    def attempt(self, client: PumpNode) -> ClientAttempt:
        """Return what a client remembers of the factory that dies."""
        attempt: ClientAttempt = client.state.attempts[self.old_id]
        return attempt

    def link(self, client: PumpNode) -> Link:
        """Return a client's channel in it."""
        return book(client).links[self.attempt(client).setting.channel_id]

    def new_link(self, client: PumpNode) -> Link:
        """Return its channel in the newest factory."""
        setting = self.pump.held(client).setting
        return book(client).links[setting.channel_id]

    def lsp_link(self, client: PumpNode) -> Link:
        """Return the LSP's end of it."""
        return self.factory.book.links[self.link(client).channel_id]

    def move(self, client: PumpNode) -> None:
        """Let a client move all that it has to its newest channel, as its operator asks."""
        self.pump.handle(client, ev.MoveRequested(attempt_id=self.old_id))
        self.pump.run()
        assert self.new_link(client).state.accepter_msat == BALANCE_MSAT


def spent_world(left_msat: int) -> tuple[World, PumpNode]:
    """Return such a world, and a client that paid another one all but this, in msat."""
    world = dying_world(2)
    spender, payee = world.pump.clients
    payment = pay(world.pump, spender, payee, BALANCE_MSAT - left_msat)
    assert payment.status == "paid"
    return world, spender


def dying_world(n_clients: int = 3, *, movers: int | None = None) -> World:
    """Return a world in which all clients have a balance and a factory that dies, some a newer one.

    Args:
        n_clients: How many are in the factory that dies.
        movers: How many of them, the first ones, have a channel in the next; None for all.
    """
    pump = HastyPump(n_clients, policy=DYING_SOON)
    open_factory(pump)
    old = pump.factory
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, BALANCE_MSAT).status == "paid"
    pump.mine(DYING_SOON.active_blocks)
    going = pump.clients if movers is None else pump.clients[:movers]
    if going:
        pump.join(*going)
        pump.build()
        pump.run()
    pump.mine(DYING_SOON.min_depth)
    return World(pump, old)


def keychain_of(node: PumpNode) -> Keychain:
    """Return a node's keys: what a thief of its seed would have."""
    assert node.signer is not None
    return node.signer._keychain
