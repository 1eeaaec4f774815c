"""The keys that clients handed over, in one file beside the journal.

    "CRMFKEY" and the format's number | entry | entry | ...

An entry is the attempt (4 bytes), the client (4), the two public keys (33 each), what is sealed
(80) and the first 8 bytes of the SHA-256 of all this: 162 bytes. Secrets come sealed and leave
sealed: nothing here could read them.

An entry is appended, durably. What a crash left half written, or the disk damaged, is left out and
counted; the next entry then writes the file anew, and it takes its name when it is whole. To lose
the file, or a part of it, costs no money: the client is asked again, or signs for itself.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cromford.adapters.directories import sync_directory
from cromford.crypto.keys import PUBKEY_SIZE
from cromford.signing.handed_over import SEALED_SIZE, SealedKeys

KEY_FILE: Final = "handed-over-keys"
MAGIC: Final = b"CRMFKEY\x01"
_NUMBER_SIZE: Final = 4
_CHECK_SIZE: Final = 8
ENTRY_SIZE: Final = 2 * (_NUMBER_SIZE + PUBKEY_SIZE) + SEALED_SIZE + _CHECK_SIZE
_NEW_SUFFIX: Final = ".new"  # Of what is being written, until it takes the name.
_MODE: Final = 0o600

_Place = tuple[int, int]  # An attempt, and a client of it.


class KeyFile:
    """The file of one data directory. Implements `ports.KeyStore`.

    Attributes:
        problem: What of it could not be read, in words; empty if all of it could.

    Args:
        home: The directory. Whether or not there is such a file in it, this opens it.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / KEY_FILE
        self._turn = threading.Lock()  # One thread writes, another may read.
        self._entries: dict[_Place, SealedKeys] = {}
        self.problem = ""
        self._is_whole = False  # Whether an entry may be appended as the file stands.
        self._is_read = False  # One that was not is never written over: it may be there tomorrow.
        try:
            self._read()
        except OSError as error:
            self.problem = f"it cannot be read: {error.strerror or type(error).__name__}"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, *, attempt: int, client: int) -> SealedKeys | None:
        """Return what is held of one client's keys, if anything is."""
        return self._entries.get((attempt, client))

    def put(self, keys: SealedKeys) -> None:
        """Hold one client's keys; durable on return. What was held of it before gives way.

        Raises:
            OSError: If it cannot be written; what was held before is held still.
        """
        place = (keys.attempt, keys.client)
        with self._turn:
            if not self._is_read:
                self._read()
            if self._entries.get(place) == keys:
                return
            if not self._is_whole:
                self._write_anew({**self._entries, place: keys})
                return
            self._is_whole = False  # Should it fail, a part of it may be there.
            self._append(_entry(keys))
            self._is_whole = True
            self._entries[place] = keys

    def forget(self, is_over: Callable[[int], bool]) -> int:
        """Erase the keys of attempts that are over, and return of how many clients.

        Raises:
            OSError: If the file cannot be written; nothing is forgotten then.
        """
        with self._turn:
            left = {
                place: keys for place, keys in self._entries.items() if not is_over(keys.attempt)
            }
            n_gone = len(self._entries) - len(left)
            if n_gone:
                self._write_anew(left)
            return n_gone

    def _read(self) -> None:
        if not self._path.exists():
            self._is_read = True
            return
        with self._path.open("rb") as file:
            is_ours = file.read(len(MAGIC)) == MAGIC
            n_damaged, n_beyond = 0, 0
            while data := file.read(ENTRY_SIZE):
                if len(data) < ENTRY_SIZE:
                    n_beyond = len(data)
                elif (keys := _keys_of(data)) is None:
                    n_damaged += 1
                else:
                    self._entries[keys.attempt, keys.client] = keys
        self._is_read = True
        if not is_ours:
            self.problem = "it is no file of handed-over keys, or its beginning is damaged"
        elif n_damaged:
            self.problem = f"{n_damaged} of its entries are damaged"
        # Half an entry is what a crash leaves: nobody was told that it is kept.
        self._is_whole = is_ours and not n_damaged and not n_beyond

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _write_anew(self, entries: dict[_Place, SealedKeys]) -> None:
        temporary = self._path.with_suffix(_NEW_SUFFIX)
        temporary.unlink(missing_ok=True)  # A crash may have left one.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, _MODE), "wb") as file:
                file.writelines(_parts(entries))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(self._path.parent)
        self._entries, self._is_whole = entries, True


def _parts(entries: dict[_Place, SealedKeys]) -> Iterator[bytes]:
    yield MAGIC
    yield from map(_entry, entries.values())


def _entry(keys: SealedKeys) -> bytes:
    body = (
        keys.attempt.to_bytes(_NUMBER_SIZE, "big")
        + keys.client.to_bytes(_NUMBER_SIZE, "big")
        + keys.factory_pubkey
        + keys.funding_pubkey
        + keys.sealed
    )
    return body + _check_of(body)


def _keys_of(data: bytes) -> SealedKeys | None:
    """Return what an entry holds; None if it is damaged."""
    body, check = data[:-_CHECK_SIZE], data[-_CHECK_SIZE:]
    if _check_of(body) != check:
        return None
    at = 2 * _NUMBER_SIZE
    return SealedKeys(
        attempt=int.from_bytes(body[:_NUMBER_SIZE], "big"),
        client=int.from_bytes(body[_NUMBER_SIZE:at], "big"),
        factory_pubkey=body[at : at + PUBKEY_SIZE],
        funding_pubkey=body[at + PUBKEY_SIZE : at + 2 * PUBKEY_SIZE],
        sealed=body[at + 2 * PUBKEY_SIZE :],
    )


def _check_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_SIZE]
