"""The ways to cheat with a cooperative close: pinned, refused, kept back, outbid, signed twice."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.protocol import events as ev
from cromford.protocol.closing.rules import LATEST_BLOCKS
from cromford.wire import messages as m
from tests.matrix.attempts import pin, pin_ahead
from tests.matrix.closes import (
    DEARER,
    close_together,
    closes_next,
    move_balances,
    outbid,
    pay_surely,
    pin_by_anchor,
    pin_by_own_output,
    refuse_at_last,
    tell_of,
    tell_the_lsp_of,
    withhold,
)
from tests.matrix.histories import (
    FIRST_MSAT,
    HTLC_MSAT,
    all_but,
    anybody,
    branch_of,
    give_everybody,
    neighbours_of,
    offer_and_be_owed,
    rogue,
    spend,
)
from tests.matrix.scenario import ASLEEP, Scenario
from tests.matrix.thief import Thief, favourite
from tests.matrix.world import MatrixNode, MatrixWorld
from tests.protocol.paying_clients import lsp_link, newest_link
from tests.protocol.pump import PumpNode
from tests.protocol.signed_closes import change_link

OUTSIDE_MSAT: Final = 5_000_000
WAY_BLOCKS_MAX: Final = 400


def give_all(world: MatrixWorld) -> None:
    """Let everybody have money, the outsider, too, and some have spent of it."""
    give_everybody(world)
    world.give(world.outsider, OUTSIDE_MSAT)


def doze(world: MatrixWorld, *nodes: PumpNode) -> None:
    """Let those look no more often than they must who have not gone rogue."""
    world.dozing.update(node.name for node in nodes if node.driver is not None)


# Pinned


def pinned_close(world: MatrixWorld, *, lsp_cheats: bool, is_asleep: bool) -> Thief:
    """All signed; then blocks become dear, and a large, cheap child hangs on the close."""
    give_everybody(world)
    spend(world, anybody(world))
    close_together(world, 1)
    pins = pin_by_own_output if lsp_cheats else pin_by_anchor
    thief = rogue(world, world.node("lsp") if lsp_cheats else anybody(world), first=pins)
    thief.tasks.append(partial(pins, thief))
    assert thief.n_pins
    if is_asleep:
        doze(world, *world.everybody)
    branches = [world.attempt_of(one).branch for one in world.members if one.driver is not None]
    deadline = min(branch.exit_deadline_height for branch in branches)
    is_closed = world.mine_until(
        lambda: world.closes.keys() & world.chain.confirmed.keys(),
        most=deadline - world.chain.height,
    )
    assert is_closed, "nobody is pinned"
    return thief


def pinned_at_the_deadline(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """The same by all others, at the last height at which anybody signs; the way out, too."""
    victim = anybody(world)
    give_everybody(world)
    branch = branch_of(world, victim)
    deadlines = [world.attempt_of(one).branch.exit_deadline_height for one in world.members]
    world.mine_to(min(deadlines) - LATEST_BLOCKS - 1)
    close_together(world, 1)
    thief = all_but(world, victim, is_asleep=is_asleep, first=pin_by_anchor)
    assert thief.n_pins
    thief.tasks.insert(0, partial(pin_by_anchor, thief))
    thief.tasks.insert(0, partial(pin_ahead, thief, branch))
    thief.tasks.append(partial(pin, thief))
    thief.act()
    return thief


# Refused at the last message


def refused_by_a_client(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """A client keeps its last message; the others go on, and it leaves with an old commitment."""
    cheater = anybody(world)
    give_all(world)
    spend_outside(world, cheater)
    refuse_at_last(world, cheater)
    move_balances(world, cheater)
    pay_surely(world, cheater, world.outsider, HTLC_MSAT)
    return leaves_with_an_old_commitment(world, cheater, is_asleep=is_asleep)


def spend_outside(world: MatrixWorld, client: PumpNode) -> None:
    """Let a client pay the outsider half of what it has: its older states are worth more."""
    pay_surely(world, client, world.outsider, FIRST_MSAT // 2)


def leaves_with_an_old_commitment(
    world: MatrixWorld, cheater: MatrixNode, *, is_asleep: bool
) -> Thief:
    """Let a client leave, and publish its best old commitment as soon as its channel is there."""
    branch = branch_of(world, cheater)
    thief = rogue(world, cheater)
    held = favourite(world, cheater, world.node("lsp"))
    thief.tasks.append(partial(thief.leave, branch))
    outpoint = world.channel_outpoint(cheater)
    world.mine_until(lambda: outpoint.txid in world.chain.confirmed, most=branch.branch.exit_blocks)
    if is_asleep:
        world.sleep(world.lsp, world.absence_blocks(world.node("lsp")))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


def finished_late(world: MatrixWorld, *, has_htlcs: bool, is_asleep: bool) -> Thief:
    """The LSP says that a close came to nothing, and finishes it once balances have moved.

    With HTLCs: one that a client offered, and one of which it showed the preimage.
    """
    give_all(world)
    victim = anybody(world)
    close = withhold(world)
    move_balances(world, leaves_room=has_htlcs)
    if has_htlcs:
        offer_and_be_owed(world, victim, world.outsider)
    thief = rogue(world, world.node("lsp"))
    if is_asleep:
        doze(world, *world.members)
    thief.tasks.append(partial(closes_next, thief, close))
    thief.act()
    return thief


def paid_beyond_it(world: MatrixWorld) -> Thief:
    """The LSP forgets its own limit, pays beyond it, fails what was offered, and finishes.

    Its client offers 10 to somebody who does not answer; the LSP offers 10, and waits for the
    preimage.
    """
    give_all(world)
    victim = anybody(world)
    close = withhold(world)
    link = newest_link(victim)
    change_link(world.lsp, link.channel_id, lambda own: changed(own, closes=()))
    world.disconnect(world.outsider)
    world.handle(victim, world.invoice(world.outsider, HTLC_MSAT))
    world.run()
    assert lsp_link(world, link).state.htlcs, "the first is offered"
    beyond = world.invoice(victim, HTLC_MSAT)
    world.handle(world.lsp, beyond)
    world.run()
    _, preimage = world.invoices[beyond.payment_hash]
    offered = [sent.payment_hash for sent in world.sent(world.lsp, m.UpdateAddHtlc)]
    assert beyond.payment_hash in offered
    assert not world.knows(world.lsp, preimage), "and was shown nothing"
    world.pass_holds()
    thief = rogue(world, world.node("lsp"))
    thief.tasks.append(partial(closes_next, thief, close))
    thief.act()
    return thief


def told_of(world: MatrixWorld) -> Thief:
    """The LSP tells of an old close, after some that are none, and publishes nothing of it."""
    give_all(world)
    close = withhold(world)
    move_balances(world)
    tell_the_lsp_of(world, anybody(world), close)
    attempt_id = world.attempt.attempt_id
    thief = rogue(world, world.node("lsp"))
    tell_of(world, close, attempt_id)
    return thief


def finished_beside_an_exit(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """A client leaves; then the LSP finishes an old close in the place of what it publishes."""
    give_all(world)
    victim = anybody(world)
    close = withhold(world)
    move_balances(world)
    world.handle(victim, ev.ExitRequested(attempt_id=world.attempt.attempt_id))
    world.run()
    assert world.chain.mempool
    thief = rogue(world, world.node("lsp"))
    if is_asleep:
        doze(world, *world.members)
    thief.tasks.append(partial(outbid, thief, "close", close.txs[0]))
    thief.act()
    return thief


# Two signed closes


def signed_twice(world: MatrixWorld, *, number: int) -> Thief:
    """Two closes of the funding wait to be finished, of other balances and feerates."""
    give_all(world)
    closes = [withhold(world, DEARER)]
    move_balances(world)
    closes.append(withhold(world))
    move_balances(world)
    thief = rogue(world, world.node("lsp"))
    thief.tasks.append(partial(closes_next, thief, closes[number]))
    thief.tasks.append(partial(closes_next, thief, closes[1 - number]))
    thief.act()
    return thief


def whole_and_part(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """A close of the funding was signed, then a client left, then one of a part is signed.

    The one who left is the LSP's own. The part is whatever the dice say of what is on chain then.
    """
    give_all(world)
    leaver = anybody(world)
    first = withhold(world)
    move_balances(world)
    world.handle(leaver, ev.ExitRequested(attempt_id=world.attempt.attempt_id))
    world.mine_until(lambda: on_chain_without(world, leaver), most=WAY_BLOCKS_MAX)
    parts = on_chain_without(world, leaver)
    assert parts
    second = withhold(world, **world.dice.choice(parts))
    move_balances(world, leaver)
    thief = rogue(world, world.node("lsp"), leaver)
    if is_asleep:
        doze(world, *world.members)
    for close in (first, second):
        thief.tasks.append(partial(closes_next, thief, close))
    thief.act()
    return thief


def on_chain_without(world: MatrixWorld, leaver: PumpNode) -> list[dict[str, Any]]:
    """Return what of the tree can be closed now without one client, as an operator asks for it."""
    place = world.attempt.client_of(leaver.node_id)
    found: list[dict[str, Any]] = [
        {"vertex": vertex.first.shape.name}
        for vertex in world.attempt.tree.vertices
        if place not in vertex.first.shape.clients
        and is_there(world, vertex.first.tx.inputs[0].outpoint)
    ]
    for client in world.members:
        number = world.attempt.client_of(client.node_id)
        assert number is not None
        outpoint = world.attempt.setting(number).funding.outpoint
        if client is not leaver and is_there(world, outpoint):
            found.append({"client": number})
    return found


def is_there(world: MatrixWorld, outpoint: OutPoint) -> bool:
    """Say whether an output is in a block, and unspent."""
    return outpoint.txid in world.chain.confirmed and outpoint not in world.chain.spends


# A race


def beaten_by_a_kickoff(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """All signed; a client gets its own way into a block first, and an old commitment."""
    cheater = anybody(world)
    give_everybody(world)
    spend(world, cheater)
    branch = branch_of(world, cheater)
    close_together(world)
    assert world.closes
    thief = rogue(world, cheater)
    held = favourite(world, cheater, world.node("lsp"))
    root = branch.txs[0]
    thief.tasks.append(partial(outbid, thief, "root", root))
    thief.act()
    assert world.mine_until(lambda: root.txid in world.chain.confirmed, most=2)
    thief.tasks.append(partial(thief.leave, branch))
    outpoint = world.channel_outpoint(cheater)
    world.mine_until(lambda: outpoint.txid in world.chain.confirmed, most=branch.branch.exit_blocks)
    if is_asleep:
        world.sleep(world.lsp, world.absence_blocks(world.node("lsp")))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


def channel_closed(world: MatrixWorld, *, lsp_cheats: bool, is_asleep: bool) -> Thief:
    """A channel on chain is closed, and one of the two publishes an old commitment instead."""
    give_all(world)
    client = anybody(world)
    leaver = world.dice.choice(neighbours_of(world, client))
    spend_outside(world, client)
    world.handle(leaver, ev.ExitRequested(attempt_id=world.attempt.attempt_id))
    number = world.attempt.client_of(client.node_id)
    assert number is not None
    outpoint = world.attempt.setting(number).funding.outpoint
    assert world.mine_until(lambda: is_there(world, outpoint), most=WAY_BLOCKS_MAX)
    if lsp_cheats:
        withhold(world, client=number)
        pay_surely(world, client, world.outsider, HTLC_MSAT)
    else:
        close_together(world, 1, client=number)
    cheater, victim = (world.node("lsp"), client) if lsp_cheats else (client, world.node("lsp"))
    thief = rogue(world, cheater)
    held = favourite(world, cheater, victim)
    if is_asleep:
        world.sleep(victim, world.absence_blocks(victim))
    thief.tasks.append(partial(outbid, thief, "old commitment", held.finished.tx))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


def _all() -> Iterator[Scenario]:
    for (who, lsp_cheats), is_asleep in itertools.product(
        (("client", False), ("LSP", True)), (False, True)
    ):
        yield Scenario(
            name=f"close pinned by the {who}{ASLEEP * is_asleep}",
            cheat=partial(pinned_close, lsp_cheats=lsp_cheats, is_asleep=is_asleep),
            happens="close",
            markets=("high",),
        )
        yield Scenario(
            name=f"channel closed, old commitment of the {who}{ASLEEP * is_asleep}",
            cheat=partial(channel_closed, lsp_cheats=lsp_cheats, is_asleep=is_asleep),
            happens="old commitment",
            has_outsider=True,
        )
    for has_htlcs, is_asleep in itertools.product((False, True), (False, True)):
        yield Scenario(
            name=f"close finished late by the LSP{', HTLCs' * has_htlcs}{ASLEEP * is_asleep}",
            cheat=partial(finished_late, has_htlcs=has_htlcs, is_asleep=is_asleep),
            happens="close",
            has_outsider=True,
        )
    for is_asleep in (False, True):
        yield Scenario(
            name=f"close pinned at the deadline{ASLEEP * is_asleep}",
            cheat=partial(pinned_at_the_deadline, is_asleep=is_asleep),
            happens="",
            markets=("high",),
        )
        for name, cheat, happens, has_outsider in (
            ("close refused by a client", refused_by_a_client, "old commitment", True),
            ("close finished beside an exit", finished_beside_an_exit, "close", True),
            ("close of the whole and of a part", whole_and_part, "close", True),
            ("close beaten by a kickoff", beaten_by_a_kickoff, "old commitment", False),
        ):
            yield Scenario(
                name=name + ASLEEP * is_asleep,
                cheat=partial(cheat, is_asleep=is_asleep),
                happens=happens,
                has_outsider=has_outsider,
            )
    for name, number in (("older", 0), ("newer", 1)):
        yield Scenario(
            name=f"two closes signed, the {name} one finished",
            cheat=partial(signed_twice, number=number),
            happens="close",
            has_outsider=True,
        )
    for name, alone in (
        ("close finished after paying beyond it", paid_beyond_it),
        ("close told of and not published", told_of),
    ):
        yield Scenario(name=name, cheat=alone, happens="close", has_outsider=True)


CLOSE_SCENARIOS: Final = tuple(_all())
