"""Everything a role remembers: the entries of its journal.

A role's state is the fold of these, so a record holds what happened and nothing that can be
computed from earlier ones. Each is encoded after a version byte; a version that is not known
stops the daemon before it acts on half an understanding. The world's clock says when it was
remembered; that stands before it, and is folded with it.

Version 1 was never released and is not read. From version 2 on every change of a record goes on
reading what was written before: a new field has a default and comes last, a record that is written
no more is still folded. `tests/protocol/frozen_records.json` holds the bytes of each, and
`tests/vectors/journal-v2` a whole life in them.
"""

import zlib
from typing import Final, NamedTuple, get_args

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal import sweep_records as sw
from cromford.protocol.journal.channel_records import BookRecord
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.record import Record

RECORD_VERSION: Final = 4  # Two bits from the one before: no flipped bit makes one of the other.
DATED_VERSION: Final = 7  # Two bits from each of the others; with the time it was remembered at.
UNCHECKED_VERSION: Final = 2  # Without a checksum; read for ever.
UNRELEASED_VERSION: Final = 1
CHECKSUM_SIZE: Final = 4  # CRC-32 of all the rest: a flipped bit would often be another record.
TIME_SIZE: Final = 5  # Bytes of the unix time, in seconds: enough for 34,000 years.
TIME_MAX: Final = 2 ** (8 * TIME_SIZE) - 1
UNKNOWN_TIME: Final = 0  # Of what was remembered by a version that wrote no times.


class Created(Record, frozen=True, kw_only=True, tag="created"):
    """The journal's first entry: whose it is.

    `journal_number` is drawn at random and is a step of every factory and channel key's path, so
    that a seed with a lost journal never repeats a key. `seed_fingerprint` names the seed that
    its keys come from: signatures of one seed's keys are worth nothing beside another seed.
    """

    role: str
    network: bytes
    journal_number: int
    seed_fingerprint: bytes = b""  # Empty in a journal that is older than this field.


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """The daemon started: connections, nonces and whatever depended on them are gone."""


class PeerConnected(Record, frozen=True, kw_only=True, tag="peer_connected"):
    """A peer proved its node key."""

    node_id: bytes


class PeerDisconnected(Record, frozen=True, kw_only=True, tag="peer_disconnected"):
    """A peer's connection ended."""

    node_id: bytes


class BlockConnected(Record, frozen=True, kw_only=True, tag="block_connected"):
    """A block joined the active chain; `txs` are those that concern this role."""

    height: int
    block_hash: bytes
    txs: tuple[bytes, ...]


class BlockDisconnected(Record, frozen=True, kw_only=True, tag="block_disconnected"):
    """The block at `height`, the tip, left the active chain."""

    height: int


class BroadcastRefusalSeen(Record, frozen=True, kw_only=True, tag="broadcast_refused"):
    """Our node refused a transaction of ours, for the first time for a reason of this kind."""

    name: str
    txid: bytes
    reason: str


class StoreRestored(Record, frozen=True, kw_only=True, tag="store_restored"):
    """The store was put back from a backup: what came after that was made may be lost.

    `backup_id` names the backup, `source` says where it came from, in at most 200 characters.
    """

    backup_id: bytes
    source: str


class MarkLifted(Record, frozen=True, kw_only=True, tag="mark_lifted"):
    """A high-water mark proved that a restored store lost nothing: it is as good as before."""


class KeysSkipped(Record, frozen=True, kw_only=True, tag="keys_skipped"):
    """The next attempt has this number: those before it may have been used, and forgotten.

    Its numbers name factory and channel keys. A channel of a lost attempt has told its peer secrets
    that would revoke the commitments of another with the same keys.

    `scripts` is how many scripts of the wallet are watched from here on beyond the last used: those
    may have been used, and forgotten, too. 0 where an earlier version watched the usual ones. A
    rescan skips no attempt, only scripts.
    """

    next_attempt: int
    scripts: int = 0


StoreRecord = StoreRestored | MarkLifted | KeysSkipped
WorldRecord = (
    Created
    | Started
    | StoreRecord
    | PeerConnected
    | PeerDisconnected
    | BlockConnected
    | BlockDisconnected
    | BroadcastRefusalSeen
)
SharedRecord = (
    WorldRecord
    | sr.SpendingRecord
    | op.SigningIntended
    | op.SharedOpeningRecord
    | xr.ExitRecord
    | cl.SharedCloseRecord
    | ar.SharedAdvanceRecord
    | xr.PurseRecord
    | dr.DyingRecord
    | BookRecord
)
ClientOnly = (
    lr.ClientLobbyRecord
    | op.ClientOpeningRecord
    | xr.ClientExitRecord
    | cl.ClientCloseRecord
    | ar.ClientAdvanceRecord
    | ar.PurchaseRecord
    | mk.ClientMarketRecord
    | hr.ClientHandoverRecord
    | dr.ClientDyingRecord
)
LspOnly = (
    lr.HouseRecord
    | mk.PriceSet
    | mk.LspMarketRecord
    | op.LspOpeningRecord
    | cl.LspCloseRecord
    | ar.LspAdvanceRecord
    | cl.PartClosed
    | xr.LspExitRecord
    | hr.LspHandoverRecord
    | dr.LspDyingRecord
    | sc.ScanRecord
    | MailTaken
    | sw.JointSweepRecord
)

AnyRecord = SharedRecord | ClientOnly | LspOnly


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)  # A txid is bytes with a name.
    raise TypeError(f"{type(value).__name__} cannot be journalled")


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_plain_bytes)
_DECODER: Final[msgspec.msgpack.Decoder[AnyRecord]] = msgspec.msgpack.Decoder(AnyRecord)
_ANYTHING: Final[msgspec.msgpack.Decoder[object]] = msgspec.msgpack.Decoder()


_KINDS: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyRecord))


class UnknownRecord(ValueError):
    """A journal entry this version cannot read."""


class NewerRecord(UnknownRecord):
    """It is of a version, or of a kind, that only newer software knows."""


class Dated(NamedTuple):
    """A record, and when it was remembered: unix seconds, `UNKNOWN_TIME` if it does not say."""

    record: AnyRecord
    at: int


def encode_record(record: AnyRecord, at: int = UNKNOWN_TIME) -> bytes:
    """Return the bytes of a record: its version, a checksum of all the rest, and what it says.

    Args:
        record: The record.
        at: When it is remembered, in unix seconds; without it, its bytes are those of a version
            that wrote no times.

    Raises:
        OverflowError: If the time is no unix time.
    """
    body = _ENCODER.encode(record)
    if at == UNKNOWN_TIME:
        return _sealed(RECORD_VERSION, body)
    return _sealed(DATED_VERSION, at.to_bytes(TIME_SIZE, "big"), body)


def _sealed(version: int, *content: bytes) -> bytes:
    # Joined at once: the order of a large factory is some megabytes, and is copied once.
    return b"".join((version.to_bytes(1, "big"), _checksum(version, *content), *content))


def _checksum(version: int, *content: bytes) -> bytes:
    checksum = zlib.crc32(version.to_bytes(1, "big"))
    for part in content:
        checksum = zlib.crc32(part, checksum)
    return checksum.to_bytes(CHECKSUM_SIZE, "big")


def decode_record(data: bytes) -> AnyRecord:
    """Return the record of these bytes.

    Raises:
        NewerRecord: If newer software wrote it.
        UnknownRecord: If it is of another version, malformed, or not what was written.
    """
    return decode_dated(data).record


def decode_dated(data: bytes) -> Dated:
    """Return the record of these bytes, and when it was remembered.

    Raises:
        NewerRecord: If newer software wrote it.
        UnknownRecord: If it is of another version, malformed, or not what was written.
    """
    body, at = _body_of(data), UNKNOWN_TIME
    if data[0] == DATED_VERSION:
        at, body = int.from_bytes(body[:TIME_SIZE], "big"), body[TIME_SIZE:]
    try:
        return Dated(decoded(_DECODER, body), at)
    except MalformedBytes as error:
        kind = _kind_of(body)
        if kind is not None and kind not in _KINDS:
            raise NewerRecord(
                f"a kind of record that this version does not know: {kind}"
            ) from error
        raise UnknownRecord(str(error)) from error


def _body_of(data: bytes) -> bytes:
    """Return what a record says, with its time before it, once it is known to be what was written.

    Of an older version there is no time before it.
    """
    version = data[0] if data else None
    if version == UNCHECKED_VERSION:
        return data[1:]
    if version == UNRELEASED_VERSION:
        raise UnknownRecord(
            f"a record of version {UNRELEASED_VERSION}, written by an unreleased version, cannot "
            f"be read: expected {RECORD_VERSION}"
        )
    received, body = data[1 : 1 + CHECKSUM_SIZE], data[1 + CHECKSUM_SIZE :]
    if version not in {RECORD_VERSION, DATED_VERSION}:
        # Whatever became of its first byte.
        is_whole = any(
            received == _checksum(known, body) for known in (RECORD_VERSION, DATED_VERSION)
        )
        is_newer = version is not None and version > RECORD_VERSION and not is_whole
        raise (NewerRecord if is_newer else UnknownRecord)(
            f"record version {data[:1].hex() or 'none'}, expected {RECORD_VERSION} or "
            f"{DATED_VERSION}"
        )
    expected = _checksum(version, body)
    if received != expected:
        raise UnknownRecord(
            f"a record's checksum: expected {expected.hex()}, received {received.hex()}"
        )
    return body


def _kind_of(body: bytes) -> str | None:
    """Return the name of a record's kind, if it is a record at all."""
    try:
        kind, *_ = msgspec.convert(decoded(_ANYTHING, body), list[object])
    except (MalformedBytes, ValueError, TypeError):
        return None
    return kind if isinstance(kind, str) and kind.isidentifier() else None
