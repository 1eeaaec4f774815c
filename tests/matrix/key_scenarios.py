"""The ways to cheat with keys that were handed over, by who has them and by who kept a copy."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.matrix.attempts import take_alone, try_without
from tests.matrix.histories import branch_of, give_everybody, rogue
from tests.matrix.scenario import ASLEEP, Scenario
from tests.matrix.thief import Thief, favourite
from tests.matrix.world import MatrixNode, MatrixWorld


def moved_out(world: MatrixWorld) -> tuple[list[MatrixNode], list[MatrixNode]]:
    """Let some clients move out and give their keys away; return these, and who stayed.

    Of two it is one, of four it is two.
    """
    give_everybody(world)
    order = [world.node(client.name) for client in world.members]
    world.dice.shuffle(order)
    movers, stayed = order[: len(order) // 2], order[len(order) // 2 :]
    world.move_out(*movers)
    return movers, stayed


def keys_used_by_the_lsp(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """The LSP signs with the keys that it was given, and with those of all who stayed but one.

    It publishes the ways to all other channels, takes what all its keys together sign for, and
    tries everything else.
    """
    movers, stayed = moved_out(world)
    victim, *others = stayed
    branches = [branch_of(world, one) for one in (*movers, *others)]
    thief = rogue(world, world.node("lsp"), *others)
    if is_asleep:
        world.dozing.add(victim.name)
    thief.tasks.append(partial(try_without, thief, victim))
    thief.tasks += [partial(thief.leave, branch) for branch in branches]
    thief.tasks.append(partial(take_alone, thief))
    thief.act()
    return thief


def copies_kept(world: MatrixWorld, *, is_asleep: bool) -> Thief:
    """Clients that moved out kept copies: they publish what they had, and try all else together.

    With them are all who stayed but one.
    """
    movers, (victim, *others) = moved_out(world)
    lsp = world.node("lsp")
    branches = [branch_of(world, one) for one in movers]
    world.moved.clear()
    thief = rogue(world, *movers, *others)
    thief.tasks += [partial(try_without, thief, one) for one in (lsp, victim)]
    thief.tasks += [partial(thief.leave, branch) for branch in branches]
    assert world.mine_until(
        lambda: all(world.channel_outpoint(one).txid in world.chain.confirmed for one in movers),
        most=max(branch.branch.exit_blocks for branch in branches),
    )
    if is_asleep:
        world.sleep(lsp, world.absence_blocks(lsp))
    for one in movers:
        thief.tasks.append(partial(thief.cheat, favourite(world, one, lsp)))
    thief.act()
    return thief


def _all() -> Iterator[Scenario]:
    for is_asleep in (False, True):
        for name, cheat, happens in (
            ("handed-over keys used by the LSP", keys_used_by_the_lsp, "kickoff"),
            ("handed-over keys, copies kept", copies_kept, "old commitment"),
        ):
            yield Scenario(
                name=name + ASLEEP * is_asleep,
                cheat=partial(cheat, is_asleep=is_asleep),
                happens=happens,
            )


KEY_SCENARIOS: Final = tuple(_all())
