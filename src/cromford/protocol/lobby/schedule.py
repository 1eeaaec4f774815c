"""When an LSP builds without being asked: once enough clients wait, or at certain heights.

And for those who move out of a factory that dies, where its policy says so.
"""

from collections.abc import Iterable

from cromford.factory.lifetime import Lifetime
from cromford.protocol.dying_steps import begin_height
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.choosing import lasting_entries
from cromford.protocol.policy import DyingStep, LspPolicy


def is_build_due(policy: LspPolicy, *, n_waiting: int, at_height: int | None) -> bool:
    """Say whether the schedule asks for a build.

    A height counts, rather than the blocks since the last build, so that a restart changes
    nothing.

    Args:
        policy: The LSP's policy; with neither of its two keys nothing is ever due.
        n_waiting: How many clients wait in the lobby.
        at_height: The height of a block that has just been added; None between blocks.
    """
    if n_waiting < policy.min_clients:
        return False
    if policy.build_at_clients is not None and n_waiting >= policy.build_at_clients:
        return True
    every = policy.build_every_blocks
    return every is not None and at_height is not None and at_height % every == 0


def is_move_due(house: House, *, joined: bytes | None = None) -> bool:
    """Say whether those who wait to move out of a factory that dies get the next one now.

    Once all of its clients that are connected wait, or have moved; at the latest when a share of
    the dying period is over (`dying_wait_percent`), so that nobody who merely stays connected holds
    up the others; who may not join before that is not waited for. Enough clients for a factory wait
    in any case, whoever they are.

    Args:
        house: What the LSP knows.
        joined: Who has just joined: only its own factories are looked at. None for everybody's.
    """
    if len(house.members) < house.config.policy.min_clients:
        return False
    node_ids = house.members if joined is None else (joined,)
    return any(_is_due(house, entry) for entry in _left_by(house, node_ids))


def _left_by(house: House, node_ids: Iterable[bytes]) -> tuple[FactoryEntry, ...]:
    """Return the factories that die and that these clients wait to move out of, oldest first.

    Whoever has a channel elsewhere that lasts has moved, and waits for something else.
    """
    height = house.chain.height
    found = {
        entry.number: entry
        for node_id in node_ids
        if node_id in house.of_client and not lasting_entries(house, node_id)
        for entry in house.entries_of(node_id)
        if house.is_standing(entry)
        and node_id in entry.lent_to
        and entry.is_dying(entry.node_ids.index(node_id) + 1, height=height)
    }
    return tuple(entry for _, entry in sorted(found.items()))


def _is_due(house: House, entry: FactoryEntry) -> bool:
    policy, height = house.config.policy, house.chain.height
    lifetime = lifetime_of_entry(entry)
    begins = begin_height(policy, lifetime, DyingStep.MOVE)
    if begins is None or height < begins:
        return False
    late_height = begins + lifetime.blocks_of(policy.dying_wait_percent)
    return height >= late_height or not any(
        node_id in house.connected
        and node_id not in house.members
        and not lasting_entries(house, node_id)
        and _may_join_before(house, node_id, late_height)
        for node_id in entry.lent_to
    )


def _may_join_before(house: House, node_id: bytes, height: int) -> bool:
    """Say whether the lobby is open to somebody, or will be: who is banned is not waited for."""
    pause = house.pause_of(node_id)
    return pause is None or pause.until_height < height


def lifetime_of_entry(entry: FactoryEntry) -> Lifetime:
    """Return the heights at which a factory's life changes, as far as the house knows them."""
    dying_height = min(entry.dying_heights)
    return Lifetime(
        dying_height=dying_height,
        exit_deadline_height=dying_height + entry.dying_blocks,
        expiry_height=entry.expiry_height,
    )
