"""The seed file: a BIP 39 phrase, in the clear or under a passphrase.

The file is written complete and durable or not at all, and what it says never changes: only the
passphrase does. Under one the phrase is encrypted with ChaCha20-Poly1305 by a key that Argon2id
makes (RFC 9106): whoever has only the file has to guess, at a cost for each guess.

It may be a link, as to another disk: what is written is written where that leads to; where that is
nowhere, nothing is, for the disk may not be mounted yet.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from mnemonic import Mnemonic

from cromford.adapters.directories import sync_directory
from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.daemon.home import MARK, without_mark

SEED_FILE: Final = "seed"
ENTROPY_SIZE: Final = 32  # BIP 39: 24 words.
NEW_SUFFIX: Final = ".new"  # Of what is being written, until it takes the name.
SECRET_MODE: Final = 0o600
SEED_FILE_SIZE_MAX: Final = 4096
LANGUAGE: Final = "english"

# RFC 9106, second recommended option: 64 MiB, three passes, four lanes.
ARGON2_ITERATIONS: Final = 3
ARGON2_MEMORY_KIB: Final = 64 * 1024
ARGON2_LANES: Final = 4
KEY_SIZE: Final = 32
SALT_SIZE: Final = 16
NONCE_SIZE: Final = 12
# Limits on what a file may ask for, so that a forged one cannot exhaust the machine.
ARGON2_ITERATIONS_MAX: Final = 64
ARGON2_MEMORY_KIB_MAX: Final = 1024 * 1024
ARGON2_LANES_MAX: Final = 16


class BadSeed(Exception):
    """The seed cannot be read or taken. Nothing was written."""


class WrongPassphrase(BadSeed):
    """The passphrase is missing, or not the one the file was made with."""


class _Encrypted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    kdf: str
    iterations: int
    memory_kib: int
    lanes: int
    salt: bytes
    nonce: bytes
    ciphertext: bytes


_DECODER: Final = msgspec.json.Decoder(_Encrypted)


class NotEncrypted(BadSeed):
    """A passphrase was given, and the seed file is not encrypted: it would protect nothing."""


def has_seed(home: Path) -> bool:
    """Say whether there is a seed file."""
    return (home / SEED_FILE).exists()


def leads_nowhere(home: Path) -> bool:
    """Say whether the seed file is a link to a file that is not there."""
    return not has_seed(home) and (home / SEED_FILE).is_symlink()


def is_encrypted(home: Path) -> bool:
    """Say whether the seed file is under a passphrase.

    Raises:
        BadSeed: If there is none, or others can read it.
        OSError: If it cannot be read.
    """
    return _is_encrypted(_read(home))


def seed_of(phrase: str) -> bytes:
    """Return the 64-byte seed of a phrase (BIP 39, without its optional passphrase)."""
    return bytes(Mnemonic.to_seed(phrase))


def load_or_create_seed(home: Path, passphrase: str | None) -> bytes:
    """Return the 64-byte BIP 39 seed; where there is none, draw a phrase and store it.

    Args:
        home: The daemon's directory.
        passphrase: What the file is, or is to be, encrypted with; None for no encryption.

    Raises:
        WrongPassphrase: If the file is encrypted and the passphrase missing or wrong.
        NotEncrypted: If there is a passphrase and the file is not encrypted.
        BadSeed: If the file is not valid, or its mode lets others read it.
        OSError: If it cannot be read or written.
    """
    _new_file(home).unlink(missing_ok=True)  # A crash may have left one.
    if not has_seed(home):
        phrase = Mnemonic(LANGUAGE).to_mnemonic(secrets.token_bytes(ENTROPY_SIZE))
        write_phrase(home, phrase, passphrase)
    return seed_of(read_phrase(home, passphrase))


def read_phrase(home: Path, passphrase: str | None) -> str:
    """Return the phrase of the seed file.

    Raises:
        WrongPassphrase: If the file is encrypted and the passphrase missing or wrong.
        NotEncrypted: If there is a passphrase and the file is not encrypted.
        BadSeed: If there is no valid file, or its mode lets others read it.
        OSError: If it cannot be read.
    """
    return _phrase_in(home / SEED_FILE, _read(home), passphrase)


def check_phrase(phrase: str) -> str:
    """Return a phrase of 12 to 24 words of the list with a right checksum (BIP 39).

    Raises:
        BadSeed: Naming what is wrong, and never the phrase.
    """
    words = phrase.split(" ")
    if phrase != phrase.strip() or any(not word or not word.isalpha() for word in words):
        raise BadSeed("phrase: expected lower-case words with one space between them, nothing else")
    if len(words) not in {12, 15, 18, 21, 24}:
        raise BadSeed(f"phrase: expected 12, 15, 18, 21 or 24 words, received {len(words)}")
    known = Mnemonic(LANGUAGE)
    for place, word in enumerate(words, start=1):
        if word not in known.wordlist:
            raise BadSeed(f"phrase: word {place} is not in the BIP 39 list")
    if not known.check(phrase):
        raise BadSeed("phrase: the checksum does not match; a word is wrong or out of place")
    return phrase


def write_phrase(home: Path, phrase: str, passphrase: str | None) -> None:
    """Write the seed file, complete and durable, where there was none.

    Raises:
        BadSeed: If the phrase is not valid, the passphrase empty, or there is a seed already.
        OSError: If it cannot be written.
    """
    check_phrase(phrase)
    if has_seed(home):
        raise BadSeed(f"{home / SEED_FILE}: there is a seed already")
    if leads_nowhere(home):
        raise BadSeed(f"{home / SEED_FILE}: it is a link that leads nowhere")
    _write(home, phrase, passphrase)


def change_passphrase(home: Path, *, old: str | None, new: str) -> None:
    """Put the seed file under a new passphrase; `old` is None if it had none.

    A crash leaves the file as it was or as it is to be. The disk may keep what stood there before.

    Raises:
        WrongPassphrase: If the file is encrypted and `old` is missing or wrong.
        NotEncrypted: If there is an `old` and the file is not encrypted.
        BadSeed: If there is no valid file, or `new` is empty.
        OSError: If it cannot be read or written.
    """
    _write(home, read_phrase(home, old), new)


def _read(home: Path) -> bytes:
    path = home / SEED_FILE
    if not has_seed(home):
        raise BadSeed(f"{path}: there is no seed")
    status = path.stat()
    if status.st_mode & 0o077:
        raise BadSeed(f"{path}: expected mode 0600, others can read it")
    if status.st_size > SEED_FILE_SIZE_MAX:
        raise BadSeed(f"{path}: expected at most {SEED_FILE_SIZE_MAX} bytes")
    return path.read_bytes()


def _is_encrypted(data: bytes) -> bool:
    return data.startswith(b"{")


def _phrase_in(path: Path, data: bytes, passphrase: str | None) -> str:
    if _is_encrypted(data):
        return check_phrase(_decrypt(path, data, passphrase))
    if passphrase is not None:
        raise NotEncrypted(f"{path}: the seed is not encrypted, and a passphrase was given")
    return check_phrase(data.decode("utf-8", errors="replace").rstrip("\n"))


def _write(home: Path, phrase: str, passphrase: str | None) -> None:
    """Replace the seed file: durable before it takes the name, and gone if it does not."""
    data = phrase.encode() + b"\n" if passphrase is None else _encrypt(phrase, passphrase)
    temporary = _new_file(home)
    temporary.unlink(missing_ok=True)  # A crash may have left one.
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _check_reads_back(temporary, phrase, passphrase)
        temporary.rename(_file_of(home))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(temporary.parent)


def _file_of(home: Path) -> Path:
    """Return where the seed file is: where it leads to, if it is a link."""
    return Path(os.path.realpath(home / SEED_FILE))


def _new_file(home: Path) -> Path:
    """Return what is to replace it, until it takes its name."""
    path = _file_of(home)
    return path.with_name(f"{path.name}{NEW_SUFFIX}")


def _check_reads_back(path: Path, phrase: str, passphrase: str | None) -> None:
    """Check a file that is about to replace what may be the only copy of the keys."""
    if _phrase_in(path, path.read_bytes(), passphrase) != phrase:
        raise BadSeed(f"{path}: something else was read than written")


def _encrypt(phrase: str, passphrase: str) -> bytes:
    passphrase = without_mark(passphrase)
    if not passphrase:
        raise BadSeed("passphrase: expected at least one character")
    salt, nonce = secrets.token_bytes(SALT_SIZE), secrets.token_bytes(NONCE_SIZE)
    parameters = (ARGON2_ITERATIONS, ARGON2_MEMORY_KIB, ARGON2_LANES)
    key = _derive(passphrase, salt, parameters)
    return msgspec.json.encode(
        _Encrypted(
            version=1,
            kdf="argon2id",
            iterations=ARGON2_ITERATIONS,
            memory_kib=ARGON2_MEMORY_KIB,
            lanes=ARGON2_LANES,
            salt=salt,
            nonce=nonce,
            ciphertext=ChaCha20Poly1305(key).encrypt(nonce, phrase.encode(), None),
        )
    )


def _decrypt(path: Path, data: bytes, passphrase: str | None) -> str:
    try:
        stored = decoded(_DECODER, data)
    except MalformedBytes as error:
        raise BadSeed(f"{path}: not a seed file ({error})") from error
    if (stored.version, stored.kdf) != (1, "argon2id"):
        raise BadSeed(f"{path}: version {stored.version} with {stored.kdf} is not known")
    if not (
        1 <= stored.iterations <= ARGON2_ITERATIONS_MAX
        and 8 * stored.lanes <= stored.memory_kib <= ARGON2_MEMORY_KIB_MAX
        and 1 <= stored.lanes <= ARGON2_LANES_MAX
        and len(stored.nonce) == NONCE_SIZE
        and len(stored.salt) == SALT_SIZE
    ):
        raise BadSeed(f"{path}: key derivation parameters out of range")
    if passphrase is None:
        raise WrongPassphrase(f"{path}: the seed is encrypted and no passphrase was given")
    parameters = (stored.iterations, stored.memory_kib, stored.lanes)
    bare = without_mark(passphrase)
    for one in (bare, MARK + bare):  # Files of before were encrypted with the mark.
        key = _derive(one, stored.salt, parameters)
        with contextlib.suppress(InvalidTag):
            phrase = ChaCha20Poly1305(key).decrypt(stored.nonce, stored.ciphertext, None)
            return phrase.decode("utf-8", errors="replace")
    raise WrongPassphrase(f"{path}: the passphrase is wrong")


def _derive(passphrase: str, salt: bytes, parameters: tuple[int, int, int]) -> bytes:
    iterations, memory_kib, lanes = parameters
    return Argon2id(
        salt=salt, length=KEY_SIZE, iterations=iterations, lanes=lanes, memory_cost=memory_kib
    ).derive(passphrase.encode())
