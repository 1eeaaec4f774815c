"""A pump whose clients move by themselves when their factory dies."""

from dataclasses import replace
from typing import Any, Final

from tests.protocol.paying_clients import book, open_factory, pay
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import LENIENT

from cromford.protocol.channels.balances import balance_of
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.policy import ClientPolicy, LspPolicy, WhenDying

DYING_BLOCKS: Final = 288
POLICY: Final = LspPolicy(
    min_clients=2,
    min_depth=1,
    active_blocks=150,
    ready_min_blocks=100,
    dying_blocks=DYING_BLOCKS,
)
MOVING: Final = replace(LENIENT, when_dying=WhenDying.MOVE, dying_blocks=(1, 4320))


class MovingNode(PumpNode):
    """A participant with the default policy of a client about factories that die."""

    client_policy = MOVING


def node_with(policy: ClientPolicy) -> type[PumpNode]:
    """Return what clients of this policy are like."""
    return type("PolicyNode", (PumpNode,), {"client_policy": policy})


class MovingPump(Pump):
    """A world about moving."""

    client_kind = MovingNode


def factory_with_money(
    n_clients: int = 2,
    *,
    amounts_msat: tuple[int, ...] = (30_000_123, 0, 5_000_000, 330_000),
    policy: LspPolicy = POLICY,
    kind: type[Pump] = MovingPump,
    **options: Any,
) -> Pump:
    """Return a live factory in which the clients have these amounts."""
    pump = kind(n_clients, policy=policy, **options)
    open_factory(pump)
    for client, amount_msat in zip(pump.clients, amounts_msat, strict=False):
        if amount_msat:
            assert pay(pump, pump.lsp, client, amount_msat).status == "paid"
    return pump


def old_of(client: PumpNode) -> ClientAttempt:
    """Return a client's first factory."""
    found: ClientAttempt = next(a for a in client.state.attempts.values() if a.ready_sent)
    return found


def mine_to(pump: Pump, height: int) -> None:
    """Find blocks until the chain has this height."""
    pump.mine(height - pump.chain.height)


def mine_to_dying(pump: Pump) -> None:
    """Find blocks until the dying period begins, that block included."""
    mine_to(pump, old_of(pump.clients[0]).lifetime.dying_height)


def links_of(pump: Pump, client: PumpNode) -> tuple[Link, ...]:
    """Return a client's channels, oldest first."""
    return book(client).links_with(pump.lsp.node_id)


def own_msat(pump: Pump, client: PumpNode) -> tuple[int, ...]:
    """Return what a client has in each of its channels, oldest first."""
    return tuple(balance_of(link).own_msat for link in links_of(pump, client))


def told(node: PumpNode, kind: type[AnyRecord]) -> list[Any]:
    """Return what a node remembered of one kind, in order."""
    return [record for record in node.store.remembered if isinstance(record, kind)]
