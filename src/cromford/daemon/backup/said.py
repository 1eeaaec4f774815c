"""What an operator is told about a store's safety, whether its daemon runs or not."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

RESTORED: Final = (
    "this store was restored: what came after its backup may be lost. Its channels take no update, "
    "and no commitment of ours is published. They can only be closed: a client asks its LSP, an "
    "LSP runs `lsp close`"
)


def warnings_of(
    replica: Mapping[str, Any] | None, mark: Mapping[str, Any] | None, source: str
) -> Iterator[str]:
    """Yield what is to be said of a replica and a mark, as they are shown; None of each missing.

    Args:
        replica: How far the replica is.
        mark: How far the mark is.
        source: What the store was restored from; empty if it was not.
    """
    if replica is None:
        yield (
            "no replica is kept: who loses the data directory loses every channel. See --backup-dir"
        )
    elif replica.get("reason"):
        yield f"the replica is not written: {replica['reason']}"
    if mark is None:
        yield (
            "no mark is kept: nothing can prove that a restored store lost no record, so its "
            "channels could only close. See --mark-dir"
        )
    elif mark.get("reason"):
        yield f"no channel is updated: {mark['reason']}"
    if source:
        yield f"{RESTORED} (restored from {source})"
