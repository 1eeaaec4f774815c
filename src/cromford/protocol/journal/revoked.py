"""What the peer's revoked commitments said: kept beside the journal, each under a key of its own.

A peer may publish any commitment that it ever revoked, years later. What it said is needed then, to
rebuild and punish it; so it is archived as it is revoked, in the same append, and found by one
look-up however many there were. In memory none of them is.
"""

from typing import Final

import msgspec

from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.codec.decoders import decoded
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import RevocationReceived

CONTENT_VERSION: Final = 1
NUMBER_SIZE: Final = 6  # Commitment numbers have 48 bits (BOLT 3).


_Htlc = tuple[int, int, int, bytes, int]
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, int, int, int, tuple[_Htlc, ...]])


def revoked_by(book: Book, record: RevocationReceived) -> tuple[bytes, bytes]:
    """Return the key and the value of the commitment that a record revokes.

    Args:
        book: The channels before the record's decision: the peer signs and revokes in turns, so
            that no record of the same decision precedes it and changes what is revoked.
        record: The revocation.
    """
    link = book.links[record.channel_id]
    content = link.peer_unrevoked
    if content is None or content.number != link.state.peer_revoked:
        raise AssertionError(f"what commitment {link.state.peer_revoked} said is not known")
    return revoked_key(link.channel_id, content.number), encode_content(content)


def revoked_key(channel_id: bytes, number: int) -> bytes:
    """Return the key of a commitment: its channel, and its number."""
    return channel_id + number.to_bytes(NUMBER_SIZE, "big")


def encode_content(content: CommitmentContent) -> bytes:
    """Return what a commitment says in few bytes; its number is in the key."""
    htlcs = [
        (one.offered_by, one.htlc_id, one.amount_msat, one.payment_hash, one.cltv_expiry)
        for one in content.htlcs
    ]
    plain = (CONTENT_VERSION, content.holder, content.opener_msat, content.accepter_msat, htlcs)
    return msgspec.msgpack.encode(plain)


def decode_content(data: bytes, number: int) -> CommitmentContent:
    """Return what a commitment says.

    Raises:
        ValueError: If it is of another version or malformed.
    """
    version, holder, opener_msat, accepter_msat, htlcs = decoded(_DECODER, data)
    if version != CONTENT_VERSION:
        raise ValueError(f"revoked commitment: version {version}, expected {CONTENT_VERSION}")
    return CommitmentContent(
        holder=Party(holder),
        number=number,
        opener_msat=opener_msat,
        accepter_msat=accepter_msat,
        htlcs=tuple(
            Htlc(
                offered_by=Party(offered_by),
                htlc_id=htlc_id,
                amount_msat=amount_msat,
                payment_hash=payment_hash,
                cltv_expiry=cltv_expiry,
            )
            for offered_by, htlc_id, amount_msat, payment_hash, cltv_expiry in htlcs
        ),
    )
