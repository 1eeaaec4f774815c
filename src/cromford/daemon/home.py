"""A daemon's directory: `<datadir>/<network>/`, its seed, and who may read it."""

import os
import secrets
from pathlib import Path
from typing import Final

from mnemonic import Mnemonic

from cromford.bitcoin.network import Network

SEED_FILE: Final = "seed"
ENTROPY_SIZE: Final = 32  # BIP 39: 24 words.
DIRECTORY_MODE: Final = 0o700
SECRET_MODE: Final = 0o600
LANGUAGE: Final = "english"


class BadSeed(Exception):
    """The seed file does not hold a valid BIP 39 phrase, or others may read it."""


def open_home(datadir: Path, network: Network) -> Path:
    """Return the directory of one network, made if it was not there.

    Raises:
        OSError: If it cannot be made.
    """
    home = datadir / network.name
    home.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    return home


def load_or_create_seed(home: Path) -> bytes:
    """Return the 64-byte BIP 39 seed; the first start draws a phrase and stores it.

    Raises:
        BadSeed: If the file is not a valid phrase, or its mode lets others read it.
        OSError: If it cannot be read or written.
    """
    words = Mnemonic(LANGUAGE)
    path = home / SEED_FILE
    if not path.exists():
        _write_new(path, words.to_mnemonic(secrets.token_bytes(ENTROPY_SIZE)) + "\n")
    if path.stat().st_mode & 0o077:
        raise BadSeed(f"{path}: expected mode 0600, others can read it")
    phrase = " ".join(path.read_text(encoding="utf-8").split())
    if not words.check(phrase):
        raise BadSeed(f"{path}: not a valid BIP 39 phrase (a word or the checksum is wrong)")
    return bytes(Mnemonic.to_seed(phrase))


def _write_new(path: Path, text: str) -> None:
    """Write a file that is complete or not there, and durable before it has its name."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
