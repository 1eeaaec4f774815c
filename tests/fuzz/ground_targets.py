"""Readers of the ground floor: encodings, transactions, blocks, addresses, invoices, points."""

import hashlib
from typing import Final

from cromford.adapters.peer_address import parse_peer_address
from cromford.bitcoin import address as bech32
from cromford.bitcoin.address import address_of_script, script_of_address
from cromford.bitcoin.block import HEADER_SIZE, FullBlock, Header, merkle_root
from cromford.bitcoin.descriptor import with_checksum
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.codec.reader import MalformedBytes, Reader
from cromford.codec.tlv import decode_tlv_stream, encode_bigsize, encode_tlv_stream, read_bigsize
from cromford.crypto import keys, musig2, schnorr
from cromford.invoice.bolt11 import parse_invoice
from cromford.invoice.invoice import InvalidInvoice
from cromford.invoice.qr import terminal_qr
from tests.fuzz.target import Target, halves

KNOWN: Final = dict.fromkeys(range(0, 2**16, 2), "known")
NONCE_SIZE: Final = musig2.PUBNONCE_SIZE
SECKEY: Final = bytes(31) + b"\x01"


def read_tlv(data: bytes) -> None:
    """Read a stream: of even types alone it is the one encoding of what is in it."""
    values = decode_tlv_stream(data, known=KNOWN)
    assert len(encoded := encode_tlv_stream(values.items())) == len(data) or _has_odd(data)
    assert encoded == data or _has_odd(data)


def _has_odd(data: bytes) -> bool:
    reader = Reader(data)
    while reader.n_left:
        number = read_bigsize(reader)
        if number % 2:
            return True
        reader.take(read_bigsize(reader))
    return False


def read_number(data: bytes) -> None:
    """Read one BigSize integer, which has one encoding."""
    reader = Reader(data)
    number = read_bigsize(reader)
    assert encode_bigsize(number) == data[: reader.position]


def read_tx(data: bytes) -> None:
    """Read a transaction: it is written as it was read."""
    tx = Tx.parse(data)
    assert tx.serialize() == data
    assert Tx.parse(tx.stripped).txid == tx.txid
    assert tx.weight >= len(data)


def read_block(data: bytes) -> None:
    """Read a header and a block whose header commits to whatever transactions there are."""
    head = data[:HEADER_SIZE].ljust(HEADER_SIZE, b"\0")
    assert Header.parse(head).serialize() == head
    reader = Reader(data, HEADER_SIZE + 1)
    txids: list[bytes] = []
    while reader.n_left > 0 and len(txids) < data[HEADER_SIZE]:
        txids.append(Tx.read(reader).txid)
    root = merkle_root(txids) if txids else bytes(32)
    block = FullBlock.parse(head[:36] + root + head[68:] + data[HEADER_SIZE:])
    assert block.raw[HEADER_SIZE:] == data[HEADER_SIZE:]


def read_outpoint(data: bytes) -> None:
    """Read an outpoint, and the id of a transaction as people write it."""
    text = data.decode("utf-8", "replace")
    if len(data) == 36:
        assert OutPoint.parse(data).serialize() == data
    assert str(Txid.from_hex(text)) == text.lower()


def read_address(data: bytes) -> None:
    """Read an address: as it is, or, after a 1, with its hrp and its checksum put right."""
    text = data.decode("latin-1")
    if data[:1] == b"1":
        words = [byte % 32 for byte in data[1:]]
        text = "bcrt1" + "".join(bech32.CHARSET[word] for word in [*words, *_checksum(words)])
    script = script_of_address(text, REGTEST)
    assert address_of_script(script, REGTEST) == text.lower()


def _checksum(words: list[int]) -> list[int]:
    const = bech32.BECH32M_CONST if words and words[0] else bech32.BECH32_CONST
    polymod = bech32._polymod([*bech32._expand(REGTEST.hrp), *words, *[0] * 6]) ^ const
    return [(polymod >> 5 * (5 - place)) & 31 for place in range(6)]


def read_descriptor(data: bytes) -> None:
    """Give any text a descriptor's checksum."""
    text = data.decode("utf-8", "replace")
    assert with_checksum(text).startswith(f"{text}#")


def read_invoice(data: bytes) -> None:
    """Read an invoice: as it is, or, after a 1, an amount and fields that are signed for it."""
    text = data.decode("utf-8", "replace")
    if data[:1] == b"1":
        amount, body = halves(data[1:])
        text = _signed_invoice(_printable(amount), [byte % 32 for byte in body])
    invoice = parse_invoice(text, REGTEST)
    assert invoice.expires_at > invoice.created_at


def _printable(data: bytes) -> str:
    """Return as many characters as a human-readable part may have."""
    return "".join(chr(33 + byte % 94) for byte in data).lower().replace("\x7f", "")


def _signed_invoice(amount: str, words: list[int]) -> str:
    from btclib.b32 import power_of_2_base_conversion  # noqa: PLC0415 - as in the module it tests
    from btclib.bech32 import encode  # noqa: PLC0415 - the same

    prefix = f"lnbcrt{amount}"
    digest = hashlib.sha256(
        prefix.encode() + bytes(power_of_2_base_conversion(words, 5, 8))
    ).digest()
    signature = keys.sign_recoverable(digest, SECKEY)
    signed = words + power_of_2_base_conversion(signature, 8, 5)
    return encode(prefix, signed, m=1).decode("latin-1")


def read_qr(data: bytes) -> None:
    """Draw any text."""
    text = data.decode("utf-8", "replace")
    assert terminal_qr(text)


def read_peer_address(data: bytes) -> None:
    """Read an address of a peer: what was read is written as something that reads the same."""
    address = parse_peer_address(data.decode("utf-8", "replace"))
    assert 1 <= address.port <= 0xFFFF
    assert parse_peer_address(str(address)) == address


def read_points(data: bytes) -> None:
    """Take bytes for keys, nonces and signatures: each is one, or is said not to be."""
    rest, message = data, hashlib.sha256(data).digest()
    keys.is_pubkey(data[:33])
    schnorr.verify(data[:64], message, data[64:96])
    musig2.is_aggnonce(data[:66])
    musig2.is_partial_sig(data[:32])
    nonces = [rest[at : at + NONCE_SIZE] for at in range(0, len(rest), NONCE_SIZE)]
    assert len(musig2.nonce_agg(nonces[:8])) == NONCE_SIZE


TARGETS: Final = (
    Target(name="tlv", read=read_tlv, errors=(MalformedBytes,)),
    Target(name="bigsize", read=read_number, errors=(MalformedBytes,), size_max=16),
    Target(name="tx", read=read_tx, errors=(MalformedBytes,)),
    Target(name="block", read=read_block, errors=(MalformedBytes,)),
    Target(name="outpoint", read=read_outpoint, errors=(ValueError,), size_max=80),
    Target(name="address", read=read_address, errors=(ValueError,), size_max=256),
    Target(name="descriptor", read=read_descriptor, errors=(ValueError,), size_max=1024),
    Target(name="invoice", read=read_invoice, errors=(InvalidInvoice,), size_max=2100),
    Target(name="qr", read=read_qr, errors=(), size_max=600, is_slow=True),
    Target(name="peer_address", read=read_peer_address, errors=(ValueError,), size_max=512),
    Target(name="points", read=read_points, errors=(ValueError,), size_max=512),
)
