"""The ways to cheat whoever's store was put back, and what a store that was put back may do.

Against whom it has to deal with, a store that lost records is worth the least that its owner had
since: that much it is owed. Where nobody cheats, nobody loses anything.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Final

from cromford.channel.terms import Party
from tests.matrix.closes import close_together, closes_next, withhold
from tests.matrix.histories import anybody, branch_of, give_everybody, rogue, spend
from tests.matrix.scenario import ASLEEP, Scenario
from tests.matrix.stores import Past, ThirdPlace, live_through, lying_to, restore
from tests.matrix.thief import Thief, favourite, worth_sat
from tests.matrix.world import Held, MatrixNode, MatrixWorld
from tests.simulation.copies import Copy

LOST_MAX: Final = 3
LOWER_MAX: Final = 3


def lived(world: MatrixWorld, client: MatrixNode) -> Past:
    """Let everybody have money, and one client a past; its channel is what this is about."""
    give_everybody(world, client)
    past = live_through(world, client)
    world.note_ends()
    return past


# Nobody cheats


def all_honest(world: MatrixWorld, *, whose: tuple[str, ...], is_told: bool) -> Thief:
    """Stores are put back by up to three updates, and everybody else is honest.

    Who copied files by hand hears of it from the other side, if that one is honest.
    """
    client = anybody(world)
    past = lived(world, client)
    lost = {name: world.dice.randint(1, LOST_MAX) for name in whose}
    stores = {"client": (client, past.clients), "LSP": (world.node("lsp"), past.lsps)}
    copies = [(stores[name][0], stores[name][1][-1 - n_lost]) for name, n_lost in lost.items()]
    restore(world, *copies, is_told=is_told)
    if len(copies) > 1:
        # What both have lost, nobody knows: the later of the two stores counts.
        world.dues_msat[client.name] = past.dues_msat[-1 - min(lost.values())]
        close_together(world)
    return rogue(world)


# The other side cheats


def cheated(
    world: MatrixWorld,
    *,
    lsp_cheats: bool,
    are_both_restored: bool,
    has_third: bool,
    is_asleep: bool,
) -> Thief:
    """A store is put back, and the other side lies about its numbers, and publishes what is best.

    With a third place, somebody copies files, and the mark there tells; else it was `restore`.
    """
    client = anybody(world)
    lsp = world.node("lsp")
    cheater, victim = (lsp, client) if lsp_cheats else (client, lsp)
    third = ThirdPlace(victim) if has_third else None
    past = lived(world, client)
    own, others = (past.clients, past.lsps) if lsp_cheats else (past.lsps, past.clients)
    copies = [(victim, own[-1 - world.dice.randint(1, LOST_MAX)])]
    if are_both_restored:
        copies.append((cheater, others[-1 - world.dice.randint(1, LOST_MAX)]))
    lie = lying_to(world, client, world.dice.randint(0, LOWER_MAX))
    with world.tampering(lie if lsp_cheats and not are_both_restored else world.tamper):
        restore(world, *copies, third=third, is_told=not has_third)
    held = since_the_copy(world, cheater, victim, client)
    branch = branch_of(world, client)
    thief = rogue(world, cheater)
    if is_asleep:
        world.dozing.add(victim.name)
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


def since_the_copy(
    world: MatrixWorld, cheater: MatrixNode, victim: MatrixNode, client: MatrixNode
) -> Held:
    """Return the best commitment of a cheater's that a store put back does not know to be revoked.

    What is owed to its victim is the least that any of these gives it.
    """
    assert victim.driver is not None
    links = victim.state.book.links
    known = links[world.link_of(client).channel_id].state.peer_revoked
    party = Party.OPENER if cheater is world.lsp else Party.ACCEPTER
    channel_id = world.link_of(client).channel_id
    unknown = [
        held
        for held in world.kept.values()
        if (held.link.channel_id, held.party) == (channel_id, party) and held.number >= known
    ]
    contents = [held.finished.commitment.content for held in unknown]
    if cheater is world.lsp:
        world.dues_msat[client.name] = min(one.accepter_msat for one in contents)
    else:
        world.dues_msat[client.name] = max(
            one.accepter_msat + sum(htlc.amount_msat for htlc in one.htlcs) for one in contents
        )
    return max(unknown, key=lambda held: (worth_sat(held), held.number))


def closed_by_a_copy(world: MatrixWorld, *, lsp_cheats: bool) -> Thief:
    """A store is put back; the other side runs a copy as old, as if that were all, and they close.

    What the restored side gets is no less than its journal says, and that is what it is owed.
    """
    client = anybody(world)
    lsp = world.node("lsp")
    cheater, victim = (lsp, client) if lsp_cheats else (client, lsp)
    past = lived(world, client)
    place = -1 - world.dice.randint(1, LOST_MAX)
    copies = {lsp.name: past.lsps[place], client.name: past.clients[place]}
    restore(world, (victim, copies[victim.name]), copied=(cheater, copies[cheater.name]))
    since_the_copy(world, cheater, victim, client)
    close_together(world)
    return rogue(world, cheater)


def forgotten_close(world: MatrixWorld) -> Thief:
    """A client signs a close that the LSP keeps back, and its store is put back to before that."""
    client = anybody(world)
    past = lived(world, client)
    close = withhold(world)
    restore(world, (client, past.clients[-world.dice.randint(1, LOST_MAX)]))
    lsp = world.node("lsp")
    since_the_copy(world, lsp, client, client)
    thief = rogue(world, lsp)
    thief.tasks.append(partial(closes_next, thief, close))
    thief.act()
    return thief


# Nothing was lost


def proven(world: MatrixWorld, *, lsp_cheats: bool) -> Thief:
    """A store is put back that lost nothing, as its mark proves: it goes on, and punishes."""
    client = anybody(world)
    lsp = world.node("lsp")
    cheater, victim = (lsp, client) if lsp_cheats else (client, lsp)
    third = ThirdPlace(victim)
    lived(world, client)
    for one in world.clients:
        world.disconnect(one)
    restore(world, (victim, Copy.of(victim)), third=third)
    spend(world, client)
    world.note_ends()
    branch = branch_of(world, client)
    thief = rogue(world, cheater)
    held = favourite(world, cheater, victim)
    thief.tasks.append(partial(thief.leave, branch))
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    return thief


def _all() -> Iterator[Scenario]:
    for whose, is_told in itertools.product((("client",), ("LSP",)), (True, False)):
        how = "restored" if is_told else "copied"
        yield Scenario(
            name=f"store {how} of the {whose[0]}, all honest",
            cheat=partial(all_honest, whose=whose, is_told=is_told),
            happens="latest commitment",
        )
    yield Scenario(
        name="stores restored of both, all honest",
        cheat=partial(all_honest, whose=("client", "LSP"), is_told=True),
        happens="close",
        has_outsider=True,
    )
    for who, lsp_cheats in (("LSP", False), ("client", True)):
        yield Scenario(
            name=f"store restored of the {who}, closed by an older copy of the other",
            cheat=partial(closed_by_a_copy, lsp_cheats=lsp_cheats),
            happens="close",
            has_outsider=True,
        )
    yield Scenario(
        name="store restored of the client, a forgotten close finished",
        cheat=forgotten_close,
        happens="close",
        has_outsider=True,
    )
    for (who, lsp_cheats), is_asleep in itertools.product(
        (("LSP", False), ("client", True)), (False, True)
    ):
        yield Scenario(
            name=f"store restored of the {who}, the other cheats{ASLEEP * is_asleep}",
            cheat=partial(
                cheated,
                lsp_cheats=lsp_cheats,
                are_both_restored=False,
                has_third=False,
                is_asleep=is_asleep,
            ),
            happens="",
        )
    for who, lsp_cheats in (("LSP", False), ("client", True)):
        for name, are_both_restored, has_third in (
            (f"stores restored of both, cheated is the {who}", True, False),
            (f"store copied of the {who}, marked by its mark, the other cheats", False, True),
        ):
            yield Scenario(
                name=name,
                cheat=partial(
                    cheated,
                    lsp_cheats=lsp_cheats,
                    are_both_restored=are_both_restored,
                    has_third=has_third,
                    is_asleep=False,
                ),
                happens="",
            )
        yield Scenario(
            name=f"store restored of the {who}, proven, old commitment",
            cheat=partial(proven, lsp_cheats=lsp_cheats),
            happens="old commitment",
        )


RESTORED_SCENARIOS: Final = tuple(_all())
