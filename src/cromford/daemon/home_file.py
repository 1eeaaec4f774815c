"""A JSON file of a daemon's home that has a version: what operators set, beside the journal."""

from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes


class Versioned(Protocol):
    """What such a file holds."""

    @property
    def version(self) -> int:
        """Of the file's form."""


_File = TypeVar("_File", bound=Versioned)


def read_home_file(
    path: Path,
    decoder: msgspec.json.Decoder[_File],
    *,
    version: int,
    unreadable: type[Exception],
) -> _File | None:
    """Return what a file holds; None if there is none.

    Args:
        path: The file.
        decoder: Reads it.
        version: The one that is understood.
        unreadable: What is raised where it cannot be understood; told with the path, and why.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        read = decoded(decoder, data)
    except MalformedBytes as error:
        raise unreadable(f"{path}: {error}") from error
    if read.version != version:
        raise unreadable(f"{path}: version: expected {version}, received {read.version}")
    return read
