"""When an LSP builds without being asked: once enough clients wait, or at certain heights."""

from cromford.protocol.policy import LspPolicy


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
