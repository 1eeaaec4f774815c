"""What happened before anybody cheats: who was paid, what was kept, and who goes rogue."""

from collections.abc import Callable
from functools import partial
from typing import Final

from cromford.channel.terms import Party
from cromford.factory.branch import SignedBranch
from cromford.wire import messages as m
from tests.matrix.thief import Thief
from tests.matrix.world import Held, MatrixNode, MatrixWorld
from tests.protocol.paying_clients import lsp_link
from tests.protocol.pump import PumpNode, Tamper

FIRST_MSAT: Final = 40_000_000
AWAY_MSAT: Final = 25_000_000
HTLC_MSAT: Final = 9_000_000
N_COINS: Final = 16


def give_everybody(world: MatrixWorld, *but: PumpNode) -> None:
    """Let the LSP pay each client."""
    for client in world.members:
        if client not in but:
            world.give(client, FIRST_MSAT)


def spend(world: MatrixWorld, payer: PumpNode) -> None:
    """Let a client pay the others most of what it has: its older states are worth more."""
    others = [client for client in world.members if client is not payer]
    for payee in others:
        world.pay(payer, payee, AWAY_MSAT // len(others) // 1000 * 1000)


def spend_through_htlcs(world: MatrixWorld, payer: PumpNode) -> None:
    """The same, with a state on the way that has HTLCs of both directions."""
    payee = another(world, payer)
    world.disconnect(payee)
    held = world.invoice(payee, HTLC_MSAT)
    world.handle(payer, held)
    world.run()
    world.give(payer, HTLC_MSAT)
    world.connect(payee)
    world.run()
    spend(world, payer)


def offer_and_be_owed(world: MatrixWorld, victim: PumpNode, payee: PumpNode) -> None:
    """Let a client have HTLCs of both directions with its LSP, neither of them answered.

    One it offered, to a payee that keeps the preimage to itself. Of the other, from its LSP, it has
    shown the preimage, and hears nothing of it.
    """
    world.tamper = silent_from(payee, world.lsp, m.UpdateFulfillHtlc)
    world.handle(victim, world.invoice(payee, HTLC_MSAT // 2))
    world.run()
    owed = world.invoice(victim, HTLC_MSAT)
    _, preimage = world.invoices[owed.payment_hash]
    world.handle(world.lsp, owed)
    world.run(until=lambda: world.knows(world.lsp, preimage))
    content = lsp_link(world, world.link_of(victim)).finished.commitment.content
    assert len(content.htlcs) == 2, "an HTLC of each direction is on the commitments"


def silent_from(speaker: PumpNode, listener: PumpNode, first: type[m.Message]) -> Tamper:
    """Return a tamper: from some kind of message on, nothing arrives on this way."""
    lost: list[m.Message] = []

    def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if (by, to) == (speaker, listener) and (lost or isinstance(message, first)):
            lost.append(message)
            return ()
        return (message,)

    return tamper


def another(world: MatrixWorld, client: PumpNode) -> MatrixNode:
    """Return another client, by the world's dice."""
    found = world.dice.choice([one for one in world.members if one is not client])
    return world.node(found.name)


def anybody(world: MatrixWorld) -> MatrixNode:
    """Return a client, by the world's dice."""
    return world.node(world.dice.choice(world.members).name)


def branch_of(world: MatrixWorld, client: PumpNode) -> SignedBranch:
    """Return a client's signed branch, as it or its LSP holds it."""
    signed = world.attempt.signed
    assert signed is not None
    place = world.attempt.client_of(client.node_id)
    assert place is not None
    return signed.branch(place)


def latest(world: MatrixWorld, node: MatrixNode, client: PumpNode) -> Held:
    """Return what a participant held of a client's channel when the cheating began."""
    ends = {end.me: end for end in world.ends[client.name]}
    end = ends[Party.OPENER if node is world.lsp else Party.ACCEPTER]
    return Held(node=node, link=end, finished=end.finished, own_point=end.own_point)


def rogue(
    world: MatrixWorld, *nodes: MatrixNode, first: Callable[[Thief], None] | None = None
) -> Thief:
    """Let participants go rogue now. An LSP goes on taking what it may take anyhow.

    Args:
        world: Where.
        nodes: Who.
        first: What they do before any of the others sees how dear blocks are.
    """
    for node in nodes:
        world.give_coins(node, N_COINS)
    world.begin()
    thief = Thief(world=world, nodes=nodes)
    if first is not None:
        first(thief)
    world.sync()
    # Whatever was on its way is lost; the honest find each other again.
    world.wire.clear()
    for client in world.members:
        if client not in nodes and world.lsp not in nodes:
            world.disconnect(client)
            world.connect(client)
    world.run()
    if world.lsp in nodes:
        thief.tasks.append(thief.sweep_tree)
        for client in world.members:
            if client not in nodes:
                held = latest(world, world.node("lsp"), client)
                thief.tasks.append(partial(thief.claim_from_peer, held))
    return thief


def all_but(
    world: MatrixWorld,
    victim: MatrixNode,
    *,
    is_asleep: bool,
    first: Callable[[Thief], None] | None = None,
) -> Thief:
    """Let everybody but one client go rogue."""
    others = [world.node(one.name) for one in world.members if one is not victim]
    thief = rogue(world, world.node("lsp"), *others, first=first)
    if is_asleep:
        world.dozing.add(victim.name)
    return thief


def neighbours_of(world: MatrixWorld, client: PumpNode) -> list[PumpNode]:
    """Return the other clients of a client's leaf."""
    leaf = branch_of(world, client).branch.vertices[-1].first.shape.clients
    return [
        one
        for one in world.members
        if one is not client and world.attempt.client_of(one.node_id) in leaf
    ]


def deliver(world: MatrixWorld, n_messages: int) -> None:
    """Deliver so many messages, or fewer if there are no more."""
    budget = iter(range(n_messages))
    world.run(until=lambda: next(budget, None) is None)


def unrevoked(world: MatrixWorld, cheater: MatrixNode, client: PumpNode) -> list[Held]:
    """Return the commitments of one side of a channel that the other holds no secret of."""
    lsp_end, client_end = world.ends[client.name]
    mine, theirs = (lsp_end, client_end) if cheater is world.lsp else (client_end, lsp_end)
    return [
        held
        for held in world.kept.values()
        if (held.link.channel_id, held.party) == (mine.channel_id, mine.me)
        and held.number >= theirs.state.peer_revoked
    ]
