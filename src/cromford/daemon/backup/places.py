"""Whether the places of backup and mark are others than the store's own, and than each other.

A place that is lost together with what it protects protects nothing, and must not look as if it
did. Paths are compared by what they lead to, so no link and no second mount hides it.
"""

import os
from pathlib import Path
from typing import Final

BACKUP_OPTION: Final = "--backup-dir"
MARK_OPTION: Final = "--mark-dir"


class PlaceRefused(Exception):
    """Two places are one, or one lies within the other."""


def check_places(datadir: Path | None, *, backup_dir: Path | None, mark_dir: Path | None) -> None:
    """Check that the three places are three.

    Args:
        datadir: The daemon's data directory; None where it is not known, and then only the others.
        backup_dir: The second place, if there is one.
        mark_dir: The third.

    Raises:
        PlaceRefused: Naming the two that are not.
    """
    named = {"the data directory": datadir, BACKUP_OPTION: backup_dir, MARK_OPTION: mark_dir}
    places = [(name, path) for name, path in named.items() if path is not None]
    for number, (other_name, other) in enumerate(places):
        for name, path in places[number + 1 :]:
            if is_within(path, other) or is_within(other, path):
                raise PlaceRefused(
                    f"{name}: {path} and {other_name}, {other}, are one place, or one is within "
                    "the other: what destroys one destroys both. Expected a place of its own"
                )


def is_within(path: Path, other: Path) -> bool:
    """Say whether a path is another, or lies within it, whatever they are called."""
    path, other = Path(os.path.realpath(path)), Path(os.path.realpath(other))
    if path == other or other in path.parents:
        return True
    identity = _identity(other)
    return identity is not None and identity in map(_identity, (path, *path.parents))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def shared_devices(
    datadir: Path, *, backup_dir: Path | None, mark_dir: Path | None
) -> tuple[str, ...]:
    """Return what is to be said of places that are on one device: a disk is lost as a whole."""
    named = {"the data directory": datadir, BACKUP_OPTION: backup_dir, MARK_OPTION: mark_dir}
    devices: dict[int, list[str]] = {}
    for name, path in named.items():
        identity = None if path is None else _identity(path)
        if identity is not None:
            devices.setdefault(identity[0], []).append(name)
    return tuple(
        f"{', '.join(names[:-1])} and {names[-1]} are on one device: whoever loses it loses "
        f"{'both' if len(names) == 2 else 'all of them'}"
        for names in devices.values()
        if len(names) > 1
    )
