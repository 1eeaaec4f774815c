"""A daemon's directory, `<datadir>/<network>/`, readable by its owner only; files named to it."""

from pathlib import Path
from typing import Final

from cromford.adapters.directories import make_directory
from cromford.bitcoin.network import Network

PASSPHRASE: Final = "the file with the seed's passphrase"  # noqa: S105 - what a file is called
NEW_PASSPHRASE: Final = "the file with the new passphrase"  # noqa: S105 - what a file is called
MARK: Final = "\ufeff"  # That some editors begin a file with.
PASSWORD: Final = "the file with the node's password"  # noqa: S105 - what a file is called
PHRASE: Final = "the file with the seed's words"


def without_mark(text: str) -> str:
    """Return a text as whoever wrote it reads it: without an editor's mark before it."""
    return text.removeprefix(MARK)


class UnreadableFile(Exception):
    """A file that somebody named and that gives no text: missing, not ours to read, or no text.

    Attributes:
        what: What was to be in it: `PASSPHRASE` or another of the names above.
        is_missing: Whether there is no such file.
    """

    def __init__(self, what: str, path: Path, error: OSError | UnicodeDecodeError) -> None:
        self.what = what
        self.is_missing = isinstance(error, FileNotFoundError)
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        super().__init__(f"{path}, {what}: {'there is none' if self.is_missing else reason}")


def read_named(path: Path, what: str, *, n_chars_max: int = -1) -> str:
    """Return the text of a file that was named to us.

    Args:
        path: Where it is.
        what: What is to be in it.
        n_chars_max: No more of it is read; -1 for all.

    Raises:
        UnreadableFile: If there is none.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(n_chars_max)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(what, path, error) from error


def open_home(datadir: Path, network: Network) -> Path:
    """Return the directory of one network, made durably if it was not there.

    Raises:
        OSError: If it cannot be made.
    """
    home = datadir / network.name
    make_directory(home)
    return home


def read_passphrase(path: Path | None, what: str = PASSPHRASE) -> str | None:
    """Return the first line of a passphrase file, or None where there is no file.

    Raises:
        UnreadableFile: If it cannot be read.
    """
    return None if path is None else read_named(path, what).split("\n", 1)[0]
