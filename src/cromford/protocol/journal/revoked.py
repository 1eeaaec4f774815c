"""What the peer's revoked commitments said: kept beside the journal, each under a key of its own.

A peer may publish any commitment that it ever revoked, years later. What it said is needed then, to
rebuild and punish it; so it is archived as it is revoked, in the same append, and found by a few
look-ups however many there were. In memory none of them is.

Of a commitment with many HTLCs these are archived by themselves, each once, and it names them:
else whoever lets HTLCs wait would have all of them written down with each payment that passes.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

import msgspec

from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.codec.decoders import decoded
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import RevocationReceived

CONTENT_VERSION: Final = 1
NAMING_VERSION: Final = 2  # It names its HTLCs, which are archived beside it.
HTLC_VERSION: Final = 1
NUMBER_SIZE: Final = 6  # Commitment numbers have 48 bits (BOLT 3).
HTLC_ID_SIZE: Final = 8  # BOLT 2
# Of a few, what each takes by itself is more than what naming it saves.
HTLCS_IN_FULL_MAX: Final = 8


_Htlc = tuple[int, int, int, bytes, int]
_VERSION: Final = msgspec.msgpack.Decoder(tuple[int, int, int, int, tuple[msgspec.Raw, ...]])
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, int, int, tuple[_Htlc, ...]])
_NAMING_DECODER: Final = msgspec.msgpack.Decoder(
    tuple[int, int, int, int, tuple[tuple[int, ...], tuple[int, ...]]]
)
_HTLC_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, bytes, int])
Kept = tuple[bytes, bytes]  # A key, and its value.
LookUp = Callable[[bytes], bytes | None]  # Returns what is archived under a key.


def revoked_by(book: Book, record: RevocationReceived) -> tuple[Kept, ...]:
    """Return what is archived of the commitment that a record revokes.

    Args:
        book: The channels before the record's decision: the peer signs and revokes in turns, so
            that no record of the same decision precedes it and changes what is revoked.
        record: The revocation.
    """
    link = book.links[record.channel_id]
    content = link.peer_unrevoked
    if content is None or content.number != link.state.peer_revoked:
        raise AssertionError(f"what commitment {link.state.peer_revoked} said is not known")
    key = revoked_key(link.channel_id, content.number)
    if not record.names_htlcs:
        return ((key, encode_content(content)),)
    unknown = (one for one in content.htlcs if one.htlc_id >= link.archived_below[one.offered_by])
    htlcs = tuple((_htlc_key(link.channel_id, one), encode_htlc(one)) for one in unknown)
    return (*htlcs, (key, encode_naming(content)))


def has_many_htlcs(content: CommitmentContent) -> bool:
    """Say whether the HTLCs of a commitment are archived by themselves."""
    return len(content.htlcs) > HTLCS_IN_FULL_MAX


def revoked_key(channel_id: bytes, number: int) -> bytes:
    """Return the key of a commitment: its channel, and its number."""
    return channel_id + number.to_bytes(NUMBER_SIZE, "big")


def _htlc_key(channel_id: bytes, htlc: Htlc) -> bytes:
    return htlc_key(channel_id, htlc.offered_by, htlc.htlc_id)


def htlc_key(channel_id: bytes, offered_by: Party, htlc_id: int) -> bytes:
    """Return the key of an HTLC: its channel, who offered it, and its number there."""
    return channel_id + bytes((offered_by,)) + htlc_id.to_bytes(HTLC_ID_SIZE, "big")


def encode_content(content: CommitmentContent) -> bytes:
    """Return what a commitment says in few bytes; its number is in the key."""
    htlcs = [
        (one.offered_by, one.htlc_id, one.amount_msat, one.payment_hash, one.cltv_expiry)
        for one in content.htlcs
    ]
    return _encoded(CONTENT_VERSION, content, htlcs)


def encode_naming(content: CommitmentContent) -> bytes:
    """Return the same where its HTLCs are archived by themselves.

    It says by how much each number of a party's is above the one before: that takes few bytes.
    """
    steps: tuple[list[int], list[int]] = ([], [])
    before = [0, 0]
    for htlc in content.htlcs:
        steps[htlc.offered_by].append(htlc.htlc_id - before[htlc.offered_by])
        before[htlc.offered_by] = htlc.htlc_id
    return _encoded(NAMING_VERSION, content, steps)


def _encoded(version: int, content: CommitmentContent, htlcs: object) -> bytes:
    plain = (version, content.holder, content.opener_msat, content.accepter_msat, htlcs)
    return msgspec.msgpack.encode(plain)


def encode_htlc(htlc: Htlc) -> bytes:
    """Return what an HTLC says; who offered it, and its number, are in the key."""
    plain = (HTLC_VERSION, htlc.amount_msat, htlc.payment_hash, htlc.cltv_expiry)
    return msgspec.msgpack.encode(plain)


def read_revoked(channel_id: bytes, number: int, look_up: LookUp) -> CommitmentContent | None:
    """Return what a revoked commitment said; None if it is not archived.

    Args:
        channel_id: Its channel.
        number: Its number.
        look_up: Returns what is archived under a key.

    Raises:
        ValueError: If it is of another version or malformed, or an HTLC that it names is.
    """
    data = look_up(revoked_key(channel_id, number))
    return None if data is None else decode_content(data, channel_id, number, look_up)


def decode_content(
    data: bytes, channel_id: bytes, number: int, look_up: LookUp
) -> CommitmentContent:
    """Return what a commitment says; arguments as above.

    Raises:
        ValueError: As `read_revoked`.
    """
    version, holder, opener_msat, accepter_msat, _ = decoded(_VERSION, data)
    if version == CONTENT_VERSION:
        htlcs = tuple(_in_full(data))
    elif version == NAMING_VERSION:
        htlcs = tuple(_named(data, channel_id, look_up))
    else:
        known = f"{CONTENT_VERSION} or {NAMING_VERSION}"
        raise ValueError(f"revoked commitment: version {version}, expected {known}")
    return CommitmentContent(
        holder=Party(holder),
        number=number,
        opener_msat=opener_msat,
        accepter_msat=accepter_msat,
        htlcs=htlcs,
    )


def _in_full(data: bytes) -> Iterator[Htlc]:
    *_, htlcs = decoded(_DECODER, data)
    for offered_by, htlc_id, amount_msat, payment_hash, cltv_expiry in htlcs:
        yield Htlc(
            offered_by=Party(offered_by),
            htlc_id=htlc_id,
            amount_msat=amount_msat,
            payment_hash=payment_hash,
            cltv_expiry=cltv_expiry,
        )


def _named(data: bytes, channel_id: bytes, look_up: LookUp) -> Iterator[Htlc]:
    *_, steps = decoded(_NAMING_DECODER, data)
    for offered_by in Party:
        for htlc_id in accumulate(steps[offered_by]):
            yield _named_htlc(channel_id, offered_by, htlc_id, look_up)


def _named_htlc(channel_id: bytes, offered_by: Party, htlc_id: int, look_up: LookUp) -> Htlc:
    if not 0 <= htlc_id < 1 << 8 * HTLC_ID_SIZE:
        raise ValueError(f"revoked HTLC: {htlc_id} is no number of one")
    found = look_up(htlc_key(channel_id, offered_by, htlc_id))
    if found is None:
        raise ValueError(f"revoked HTLC: {offered_by.name.lower()} {htlc_id} is not archived")
    version, amount_msat, payment_hash, cltv_expiry = decoded(_HTLC_DECODER, found)
    if version != HTLC_VERSION:
        raise ValueError(f"revoked HTLC: version {version}, expected {HTLC_VERSION}")
    return Htlc(
        offered_by=offered_by,
        htlc_id=htlc_id,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        cltv_expiry=cltv_expiry,
    )
