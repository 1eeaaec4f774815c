"""Files for places that nobody trusts: encrypted, authenticated, read and written by chunks.

    magic | header size (4) | header | chunk | chunk | … | SHA-256 of all before (32)

A chunk is its size (4), then ChaCha20-Poly1305 (RFC 8439) of at most `CHUNK_SIZE` bytes under the
file's own key. The nonce counts the chunks, and its last byte says of the last one that it is: so
none can be left out, moved, or added (STREAM, Hoang, Reyhanitabar, Rogaway and Vizár 2015). The
header stays readable; every chunk authenticates it.

A file that goes on growing has no last chunk and no hash yet: what was begun of a chunk when its
writer died is left out, and all before it counts.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cromford.codec.decoders import decoded

MAGIC: Final = b"CRMFSEAL"
CHUNK_SIZE: Final = 64 * 1024
FILE_ID_SIZE: Final = 16
HEADER_SIZE_MAX: Final = 64 * 1024
_SIZE_BYTES: Final = 4
_TAG_SIZE: Final = 16  # Poly1305
_COUNTER_SIZE: Final = 11  # Of the nonce's 12 bytes.
_HASH_SIZE: Final = 32
_INFO: Final = b"cromford/backup"
_MODE: Final = 0o600
_HEADER_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class BadFile(Exception):
    """A file that is not what it should be: named, and nothing of it is used."""

    code = "backup_damaged"


class NoSealedFile(BadFile):
    """It is no file of ours at all."""

    code = "not_a_backup"


class Truncated(BadFile):
    """Its end is missing."""

    code = "backup_truncated"


@dataclass(frozen=True, slots=True)
class SealedHeader:
    """What a file says of itself in the clear: `file_id` is random, and names it."""

    file_id: bytes
    says: dict[str, Any]
    size: int  # of all that comes before the first chunk
    digest: bytes


def file_key(secret: bytes, file_id: bytes) -> ChaCha20Poly1305:
    """Return a file's own cipher: no other file has its key, so nonces may count from 0."""
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=file_id, info=_INFO)
    return ChaCha20Poly1305(hkdf.derive(secret))


class SealedWriter:
    """Writes one file from its beginning. It is made here, and must not exist.

    Args:
        path: Where.
        secret: Of all files of one owner.
        file_id: 16 random bytes, never used before.
        says: What the header says in the clear.

    Raises:
        OSError: If it cannot be made. So do all methods, if it cannot be written.
    """

    def __init__(self, path: Path, secret: bytes, file_id: bytes, says: dict[str, Any]) -> None:
        self._aead = file_key(secret, file_id)
        body = msgspec.json.encode({"file_id": file_id.hex(), **says})
        begun = MAGIC + len(body).to_bytes(_SIZE_BYTES, "big") + body
        self._aad = hashlib.sha256(begun).digest()
        self._hash = hashlib.sha256()
        self._n_chunks = 0
        self._waiting = bytearray()
        self.size = 0
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        self._file = os.fdopen(fd, "wb")
        try:
            self._put(begun)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """Add bytes; whole chunks of them go to the file."""
        self._waiting += data
        whole = (len(self._waiting) - 1) // CHUNK_SIZE * CHUNK_SIZE
        for at in range(0, whole, CHUNK_SIZE):
            self._put_chunk(bytes(self._waiting[at : at + CHUNK_SIZE]), is_last=False)
        del self._waiting[: max(whole, 0)]

    def flush(self) -> None:
        """Let all that was added be durable, while the file goes on growing."""
        if self._waiting:
            self._put_chunk(bytes(self._waiting), is_last=False)
            self._waiting.clear()
        self._sync()

    def finish(self) -> None:
        """Write the end, durably, and close."""
        self._put_chunk(bytes(self._waiting), is_last=True)
        self._waiting.clear()
        self._put(self._hash.digest())
        self._sync()
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._waiting.clear()
        self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put_chunk(self, data: bytes, *, is_last: bool) -> None:
        sealed = self._aead.encrypt(_nonce(self._n_chunks, is_last=is_last), data, self._aad)
        self._n_chunks += 1
        self._put(len(sealed).to_bytes(_SIZE_BYTES, "big") + sealed)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)


def read_header(path: Path) -> SealedHeader:
    """Return what a file says of itself; nothing of it is authenticated yet.

    Raises:
        BadFile: If it is none of ours, or damaged.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return _header(path, file)


def is_unbegun(path: Path) -> bool:
    """Say whether what is there of a file is less than its header: nothing was ever in it.

    Its writer died as it began, or had no room; a disk that lost power leaves zeros.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        begun = file.read(len(MAGIC) + _SIZE_BYTES)
        if not any(begun):
            return True
        if begun[: len(MAGIC)] != MAGIC[: len(begun)]:
            return False
        size = int.from_bytes(begun[len(MAGIC) :], "big")
        return len(begun) < len(MAGIC) + _SIZE_BYTES or path.stat().st_size < len(begun) + size


def check_whole(path: Path) -> None:
    """Check that a finished file is whole, without any key.

    Raises:
        BadFile: If it is not.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        header = _header(path, file)
        file.seek(0)
        hashed = hashlib.sha256(file.read(header.size))
        left = path.stat().st_size - header.size - _HASH_SIZE
        while left > 0:
            data = file.read(min(left, CHUNK_SIZE))
            if not data:
                break
            hashed.update(data)
            left -= len(data)
        end = file.read()
    if left or len(end) != _HASH_SIZE:
        raise Truncated(f"{path} is truncated: its end is missing")
    if hashed.digest() != end:
        is_cut = _is_cut(path, header)
        raise (
            Truncated(f"{path} is truncated: its end is missing")
            if is_cut
            else BadFile(f"{path} is damaged or was edited: its hash does not fit")
        )


def _is_cut(path: Path, header: SealedHeader) -> bool:
    """Say whether the chunks of a file, by their sizes, go on beyond its end.

    Where a hash could be, what reads as a chunk's size is one (of hashes, one in 65,000 does).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = header.size
        while True:
            file.seek(at)
            length = int.from_bytes(file.read(_SIZE_BYTES), "big")
            if at + _HASH_SIZE >= size:
                return at + _HASH_SIZE != size or _is_size(length)
            at += _SIZE_BYTES + length


def _is_size(length: int) -> bool:
    return _TAG_SIZE <= length <= CHUNK_SIZE + _TAG_SIZE


@dataclass(slots=True)
class Reach:
    """How far a file was read: filled while it is."""

    is_finished: bool = False
    n_bytes_left_out: int = 0


def read_sealed(path: Path, secret: bytes, *, reach: Reach | None = None) -> Iterator[bytes]:
    """Yield what was written, authenticated, a chunk at a time.

    Args:
        path: Which file.
        secret: Of its owner.
        reach: Given for a file that may still have been growing; its end may be missing then.

    Raises:
        BadFile: If a chunk does not authenticate, or the end is missing and must not be.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        header = _header(path, file)
        aead = file_key(secret, header.file_id)
        size = path.stat().st_size
        n = 0
        while True:
            at = file.tell()
            data, is_last = _chunk(file, aead, header, n, size)
            if data is None:
                if reach is not None and is_last is None:
                    reach.n_bytes_left_out = size - at
                    return
                if is_last is None:
                    raise Truncated(f"{path} is truncated: its end is missing")
                raise BadFile(f"{path} is damaged or was edited: chunk {n} does not authenticate")
            yield data
            n += 1
            if is_last:
                break
        if size - file.tell() != _HASH_SIZE:
            raise BadFile(f"{path} is damaged or was edited: something follows its end")
        if reach is not None:
            reach.is_finished = True


def _chunk(
    file: BinaryIO, aead: ChaCha20Poly1305, header: SealedHeader, n: int, size: int
) -> tuple[bytes | None, bool | None]:
    """Return a chunk, and whether it is the last.

    Without the chunk: None of what was never written to its end, False of what was edited.
    """
    prefix = file.read(_SIZE_BYTES)
    length = int.from_bytes(prefix, "big")
    if len(prefix) < _SIZE_BYTES or file.tell() + length > size:
        return None, None
    if not _is_size(length):
        return None, False if any(prefix) else None  # A disk that lost power leaves zeros.
    sealed = file.read(length)
    for is_last in (False, True):
        try:
            return aead.decrypt(_nonce(n, is_last=is_last), sealed, header.digest), is_last
        except InvalidTag:
            continue
    # What nothing follows may be a chunk whose bytes did not all reach the disk.
    return None, None if file.tell() == size else False


def _header(path: Path, file: BinaryIO) -> SealedHeader:
    begun = file.read(len(MAGIC) + _SIZE_BYTES)
    if not begun:
        raise NoSealedFile(f"{path} is no backup: it is empty")
    if begun[: len(MAGIC)] != MAGIC[: len(begun)]:
        raise NoSealedFile(
            f"{path} is no backup of Cromford: expected {MAGIC.decode()} at its beginning"
        )
    if len(begun) < len(MAGIC) + _SIZE_BYTES:
        raise Truncated(f"{path} is truncated: its header is missing")
    size = int.from_bytes(begun[len(MAGIC) :], "big")
    if size > HEADER_SIZE_MAX:
        raise BadFile(
            f"{path} is damaged: header size: expected at most {HEADER_SIZE_MAX}, received {size}"
        )
    body = file.read(size)
    if len(body) < size:
        raise Truncated(f"{path} is truncated: its header is not complete")
    try:
        says = decoded(_HEADER_DECODER, body)
        file_id = bytes.fromhex(says.pop("file_id"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path} is damaged: its header cannot be read: {error}") from error
    if len(file_id) != FILE_ID_SIZE:
        raise BadFile(
            f"{path} is damaged: file id: expected {FILE_ID_SIZE} bytes, received {len(file_id)}"
        )
    digest = hashlib.sha256(begun + body).digest()
    return SealedHeader(file_id=file_id, says=says, size=len(begun) + size, digest=digest)


def _nonce(n: int, *, is_last: bool) -> bytes:
    return n.to_bytes(_COUNTER_SIZE, "big") + bytes([is_last])
