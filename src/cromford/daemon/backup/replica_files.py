"""The files of a replica: a base, the segments that follow it, and the generation of both.

    <directory>/<role>-<network>-<seed>-<journal>/base-00000007
                                                  segment-00000007-000001, -000002, …

A base is a backup. A segment has what changed since, one commit after the other; each run of a
daemon writes one of its own, so that none is ever opened again to be written to.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cromford.adapters.sealed import is_unbegun
from cromford.daemon.backup.header import Owner

_BASE: Final = re.compile(r"base-(\d{8})\Z")


@dataclass(frozen=True, slots=True)
class ReplicaFiles:
    """The files of one generation."""

    directory: Path
    generation: int

    @property
    def base(self) -> Path:
        """The base's path."""
        return self.directory / f"base-{self.generation:08}"

    def segment(self, index: int) -> Path:
        """Return the path of a segment; the first has index 1."""
        return self.directory / f"segment-{self.generation:08}-{index:06}"

    def segments(self) -> list[Path]:
        """Return the segments that are there, in order; a gap is seen by what they say."""
        return sorted(self.directory.glob(f"segment-{self.generation:08}-*"))

    def begun_segments(self) -> tuple[list[Path], Path | None]:
        """Return the segments that have something, in order, and a last one that never had.

        Raises:
            OSError: If one cannot be read.
        """
        segments = self.segments()
        if segments and is_unbegun(segments[-1]):
            return segments[:-1], segments[-1]
        return segments, None

    def remove(self) -> None:
        """Remove the generation, the base last: without it the others are worth nothing.

        Raises:
            OSError: If one cannot be removed.
        """
        for path in (*self.segments(), self.base):
            path.unlink(missing_ok=True)


def generations_in(directory: Path) -> list[int]:
    """Return the generations of which there is a base, oldest first.

    Raises:
        OSError: If the directory cannot be read.
    """
    found = (_BASE.match(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in found if match)


def store_name(owner: Owner, journal_number: int) -> str:
    """Return what a store is called in a place that it shares with others.

    A seed whose journal was lost begins another: the replica of the lost one is not in its way.
    """
    seed = owner.fingerprint.hex()
    return f"{owner.role}-{owner.network.name}-{seed}-{journal_number:08x}"


def stores_in(directory: Path, owner: Owner) -> list[Path]:
    """Return where in a place there are replicas of an owner's stores.

    Raises:
        OSError: If the directory cannot be read.
    """
    prefix = store_name(owner, 0)[:-8]
    return sorted(
        path for path in directory.iterdir() if path.name.startswith(prefix) and path.is_dir()
    )
