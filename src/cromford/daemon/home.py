"""A daemon's directory: `<datadir>/<network>/`, readable by its owner only."""

from pathlib import Path

from cromford.adapters.directories import make_directory
from cromford.bitcoin.network import Network


def open_home(datadir: Path, network: Network) -> Path:
    """Return the directory of one network, made durably if it was not there.

    Raises:
        OSError: If it cannot be made.
    """
    home = datadir / network.name
    make_directory(home)
    return home


def read_passphrase(path: Path | None) -> str | None:
    """Return the first line of a passphrase file, or None where there is no file.

    Raises:
        OSError: If it cannot be read.
    """
    return None if path is None else path.read_text(encoding="utf-8").split("\n", 1)[0]
