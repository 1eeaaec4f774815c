"""The ways to cheat, each from a factory that everybody has used to the moment it is decided."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Final

from cromford.wire import messages as m
from tests.matrix.advance_scenarios import ADVANCE_SCENARIOS
from tests.matrix.attempts import (
    pin,
    pin_ahead,
    try_claim_too_early,
    try_sweeps_too_early,
    try_without,
)
from tests.matrix.close_scenarios import CLOSE_SCENARIOS
from tests.matrix.histories import (
    FIRST_MSAT,
    HTLC_MSAT,
    all_but,
    another,
    anybody,
    branch_of,
    deliver,
    give_everybody,
    latest,
    neighbours_of,
    offer_and_be_owed,
    rogue,
    spend,
    spend_through_htlcs,
    unrevoked,
)
from tests.matrix.key_scenarios import KEY_SCENARIOS
from tests.matrix.restored_scenarios import RESTORED_SCENARIOS
from tests.matrix.scenario import ASLEEP, Scenario
from tests.matrix.thief import Thief, favourite
from tests.matrix.world import Held, MatrixWorld

MESSAGES_MAX: Final = 24  # More than a payment has.


# An old commitment


def old_commitment(
    world: MatrixWorld, *, lsp_cheats: bool, has_htlcs: bool, is_asleep: bool
) -> Thief:
    """Publish the revoked commitment that is worth most, once the channel is on chain."""
    client = anybody(world)
    give_everybody(world)
    (spend_through_htlcs if has_htlcs else spend)(world, client)
    cheater, victim = (world.node("lsp"), client) if lsp_cheats else (client, world.node("lsp"))
    branch = branch_of(world, client)
    thief = rogue(world, cheater)
    held = favourite(world, cheater, victim, has_htlcs=has_htlcs)
    thief.tasks.append(partial(thief.leave, branch))
    outpoint = world.channel_outpoint(client)
    world.mine_until(lambda: outpoint.txid in world.chain.confirmed, most=branch.branch.exit_blocks)
    if is_asleep and victim.driver is not None:
        world.sleep(victim, world.absence_blocks(victim))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


# The last moment


def late_kickoff(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """A client publishes the way to its channel in the last block before the LSP may sweep."""
    client = anybody(world)
    neighbours = neighbours_of(world, client)
    give_everybody(world, *neighbours)
    branch = branch_of(world, client)
    thief = rogue(world, client)
    if is_asleep:
        world.dozing.add("lsp")
    world.mine_to(world.expiry_height - 1)
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(thief.cheat, latest(world, client, client)))
    thief.act()
    return thief


def sweep_at_the_expiry(world: MatrixWorld, *, is_asleep: bool, is_alone: bool = False) -> Thief:
    """The LSP is silent, and takes at the expiry whatever is not on its way by then.

    Who is alone has the only balance, and nobody pays for a part of its way.
    """
    client = anybody(world)
    if is_alone:
        world.give(client, FIRST_MSAT)
    else:
        give_everybody(world)
        spend(world, client)
    deadlines = {
        one.name: world.attempt_of(one).branch.exit_deadline_height for one in world.members
    }
    thief = rogue(world, world.node("lsp"))
    if is_asleep:
        world.mine_to(min(deadlines.values()) - 1)
        for one in world.members:
            world.sleep(one, world.absence_blocks(one))
    return thief


# Too early


def sweep_too_early(world: MatrixWorld) -> Thief:
    """The LSP tries its own paths at heights at which they are not its own yet."""
    give_everybody(world)
    spend(world, anybody(world))
    thief = rogue(world, world.node("lsp"))
    thief.tasks.insert(0, partial(try_sweeps_too_early, thief))
    return thief


def claim_too_early(world: MatrixWorld) -> Thief:
    """A client leaves, and tries to have its balance before its delay is over."""
    client = anybody(world)
    give_everybody(world)
    spend(world, client)
    branch = branch_of(world, client)
    thief = rogue(world, client)
    held = latest(world, client, client)
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(thief.cheat, held))
    thief.tasks.append(partial(try_claim_too_early, thief, held))
    return thief


# Its own way, while the other sleeps


def own_way(world: MatrixWorld, *, lsp_cheats: bool) -> Thief:
    """Leave with the latest commitment while the other looks only as often as it must.

    An HTLC is on its way: of a client to a payee that is rogue and claims it at its last moment; or
    to a client whose preimage the LSP has, and for which it wants to be paid back.
    """
    give_everybody(world)
    payee = anybody(world)
    payer = another(world, payee)
    request = world.invoice(payee, HTLC_MSAT)
    world.handle(payer, request)
    world.run_to(m.UpdateFulfillHtlc)
    cheater, victim = (world.node("lsp"), payee) if lsp_cheats else (payee, world.node("lsp"))
    branch = branch_of(world, payee)
    if lsp_cheats:
        world.run(until=lambda: world.knows(world.lsp, world.invoices[request.payment_hash][1]))
    thief = rogue(world, cheater)
    world.dozing.add(victim.name)
    held = latest(world, cheater, payee)
    thief.tasks.append(partial(thief.leave, branch))
    task = thief.cheat if lsp_cheats else partial(late_claim, thief)
    thief.tasks.append(partial(task, held))
    return thief


def late_claim(thief: Thief, held: Held) -> None:
    """Publish a commitment as soon as possible, and take its HTLCs as late as possible.

    That is when the peer, who may take them back after their expiry, comes to do so: the thief's
    own transaction then takes the place of the peer's.
    """
    chain = thief.world.chain
    spent = [
        held.finished.tx.outpoint(vout)
        for vout, output in enumerate(held.finished.commitment.outputs)
        if output.htlc is not None
    ]
    is_landed = held.finished.tx.txid in chain.confirmed
    if not is_landed or chain.spenders(spent):
        thief.cheat(held)


# In the middle of a payment


def cut_short(world: MatrixWorld, *, lsp_cheats: bool, is_asleep: bool) -> Thief:
    """Go rogue between two messages, with any commitment that is not revoked yet.

    Which payments are on their way, how far they are, which commitment it is, and whether its HTLCs
    are taken at once or at the last moment, the dice decide.
    """
    give_everybody(world)
    payer = anybody(world)
    payee = another(world, payer)
    for one, other in ((payer, payee), (payee, payer))[: world.dice.randint(1, 2)]:
        request = world.invoice(other, HTLC_MSAT)
        world.handle(one, request)
        deliver(world, world.dice.randint(1, MESSAGES_MAX))
    client = world.dice.choice((payer, payee))
    cheater, victim = (world.node("lsp"), client) if lsp_cheats else (client, world.node("lsp"))
    branch = branch_of(world, client)
    thief = rogue(world, cheater)
    if is_asleep:
        world.dozing.add(victim.name)
    held = world.dice.choice(unrevoked(world, cheater, client))
    task = thief.cheat if world.dice.random() < 0.5 else partial(late_claim, thief)
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(task, held))
    return thief


# Everybody against one


def against_a_client(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """All others and the LSP: an old state of the LSP's, while HTLCs of both directions wait."""
    victim = anybody(world)
    give_everybody(world)
    spend_through_htlcs(world, victim)
    offer_and_be_owed(world, victim, another(world, victim))
    branch = branch_of(world, victim)
    thief = all_but(world, victim, is_asleep=is_asleep)
    held = favourite(world, world.node("lsp"), victim, has_htlcs=True)
    thief.tasks.append(partial(try_without, thief, victim))
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(thief.cheat, held))
    return thief


def withheld_from_a_client(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """HTLCs of both directions wait, and nobody moves; then all take what they can."""
    victim = anybody(world)
    give_everybody(world)
    offer_and_be_owed(world, victim, another(world, victim))
    thief = all_but(world, victim, is_asleep=is_asleep)
    thief.tasks.append(partial(pin, thief))
    return thief


def pinned_client(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """All others put large children beside each step of a client's way, from its first one on."""
    victim = anybody(world)
    world.give(victim, FIRST_MSAT)
    branch = branch_of(world, victim)
    thief = all_but(world, victim, is_asleep=is_asleep)
    thief.tasks.insert(0, partial(pin_ahead, thief, branch))
    thief.tasks.append(partial(pin, thief))
    return thief


def old_states_of_all(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """All clients publish the revoked commitments that are worth most, at the same time."""
    give_everybody(world)
    for client in world.members:
        spend(world, client)
    branches = [branch_of(world, client) for client in world.members]
    clients = [world.node(client.name) for client in world.members]
    thief = rogue(world, *clients)
    for branch in branches:
        thief.tasks.append(partial(thief.leave, branch))
    world.mine_until(
        lambda: all(world.channel_outpoint(one).txid in world.chain.confirmed for one in clients),
        most=max(branch.branch.exit_blocks for branch in branches),
    )
    if is_asleep:
        world.sleep(world.lsp, world.absence_blocks(world.lsp))
    for client in clients:
        thief.tasks.append(partial(thief.cheat, favourite(world, client, world.node("lsp"))))
    thief.act()
    return thief


def squeeze_the_lsp(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """One client pays another through the LSP, and the payee claims at its last moment.

    The payer is silent, so the LSP is paid on chain or not at all: by a branch that nobody has
    published, where there is another leaf.
    """
    payee = anybody(world)
    beside = neighbours_of(world, payee)
    away = [one for one in world.members if one is not payee and one not in beside]
    payer = world.node(world.dice.choice(away or beside).name)
    give_everybody(world, *(one for one in world.members if one not in (payer, payee)))
    request = world.invoice(payee, HTLC_MSAT)
    world.handle(payer, request)
    world.run_to(m.UpdateFulfillHtlc)
    branch = branch_of(world, payee)
    thief = rogue(world, *(world.node(one.name) for one in world.members))
    if is_asleep:
        world.dozing.add("lsp")
    held = latest(world, payee, payee)
    thief.tasks.append(partial(try_without, thief, world.lsp))
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(late_claim, thief, held))
    thief.tasks.append(partial(thief.claim_from_peer, latest(world, payer, payer)))
    return thief


def _all() -> Iterator[Scenario]:
    for (who, lsp_cheats), has_htlcs, is_asleep in itertools.product(
        (("client", False), ("LSP", True)), (False, True), (False, True)
    ):
        yield Scenario(
            name=f"old commitment of the {who}{', HTLCs' * has_htlcs}{ASLEEP * is_asleep}",
            cheat=partial(
                old_commitment, lsp_cheats=lsp_cheats, has_htlcs=has_htlcs, is_asleep=is_asleep
            ),
            happens="old commitment",
        )
    for is_asleep in (False, True):
        for name, cheat, happens in (
            ("kickoff at the last moment", late_kickoff, "kickoff"),
            ("LSP sweeps at the expiry", sweep_at_the_expiry, "kickoff"),
            (
                "LSP sweeps at the expiry, victim alone",
                partial(sweep_at_the_expiry, is_alone=True),
                "kickoff",
            ),
            ("all against a client, old commitment", against_a_client, "old commitment"),
            ("all against a client, HTLCs withheld", withheld_from_a_client, "kickoff"),
            ("all against a client, pinned", pinned_client, "kickoff"),
            ("all against the LSP, old commitments", old_states_of_all, "old commitment"),
            ("all against the LSP, HTLC", squeeze_the_lsp, "HTLC transaction"),
        ):
            yield Scenario(
                name=name + ASLEEP * is_asleep,
                cheat=partial(cheat, is_asleep=is_asleep),
                happens=happens,
            )
    for (who, lsp_cheats), is_asleep in itertools.product(
        (("client", False), ("LSP", True)), (False, True)
    ):
        yield Scenario(
            name=f"payment cut short by the {who}{ASLEEP * is_asleep}",
            cheat=partial(cut_short, lsp_cheats=lsp_cheats, is_asleep=is_asleep),
            happens="kickoff",
        )
    yield Scenario(name="LSP sweeps too early", cheat=sweep_too_early, happens="spends")
    yield Scenario(name="client claims too early", cheat=claim_too_early, happens="spends")
    for name, lsp_cheats in (("client's own way, LSP", False), ("LSP's own way, client", True)):
        yield Scenario(
            name=f"{name} asleep",
            cheat=partial(own_way, lsp_cheats=lsp_cheats),
            happens="latest commitment",
        )


_EVERYTHING: Final = (
    *_all(),
    *ADVANCE_SCENARIOS,
    *CLOSE_SCENARIOS,
    *KEY_SCENARIOS,
    *RESTORED_SCENARIOS,
)
SCENARIOS: Final = {scenario.name: scenario for scenario in _EVERYTHING}
