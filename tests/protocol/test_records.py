"""The journal's entries: what was written is what is read, and what cannot be read stops."""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.protocol.pump import Pump
from tests.simulation.sim_node import CLIENT_ROLE, SimStore

from cromford import effects as fx
from cromford.bitcoin.tx import Txid
from cromford.daemon.driver import Driver
from cromford.ports import Entry
from cromford.protocol.journal import records as r
from cromford.protocol.journal.channel_records import (
    BOOK_RECORDS,
    CHANNEL_RECORDS,
    BookRecord,
    ChannelRecord,
)
from cromford.protocol.journal.client_state import new_client
from cromford.protocol.journal.records import (
    NewerRecord,
    UnknownRecord,
    decode_record,
    encode_record,
)
from cromford.protocol.journal.streams import CLIENT, CREATION

RECORD_TYPES: Final = tuple(sorted(get_args(r.AnyRecord), key=lambda cls: str(cls.__name__)))
EXAMPLE: Final = r.BlockConnected(height=7, block_hash=b"\x01" * 32, txs=(b"\x02", b""))
UNCHECKED: Final = bytes((r.UNCHECKED_VERSION,))
# The example's bytes, field by field, so that a journal of today is read tomorrow.
EXAMPLE_HEX: Final = (
    "04"  # the version
    "82d8f24e"  # the checksum of all the rest: CRC-32
    "94"  # an array of four
    "af626c6f636b5f636f6e6e6563746564"  # its name: block_connected
    "07"  # the height
    "c4200101010101010101010101010101010101010101010101010101010101010101"  # the hash
    "92c40102c400"  # the transactions
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return values of a field's type."""
    if kind is int:
        return st.integers(0, 2**63 - 1)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return records_of(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(
            kind, **{field.name: values_of(hints[field.name]) for field in fields(kind)}
        )
    if (items := get_args(kind)) and items[-1] is Ellipsis:
        return st.lists(values_of(items[0]), max_size=3).map(tuple)
    if get_origin(kind) in {Union, UnionType}:
        return st.one_of(*(values_of(one) for one in items))
    return st.from_type(kind)


def records_of(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    fields = {name: values_of(hints[name]) for name in cls.__struct_fields__}
    return st.builds(cls, **fields)


@pytest.mark.sampled(20)
@pytest.mark.parametrize("cls", RECORD_TYPES, ids=lambda cls: cls.__name__)
@settings(max_examples=8)
@given(data=st.data())
def test_what_is_written_is_what_is_read(cls: type[Any], data: st.DataObject) -> None:
    record = data.draw(records_of(cls))
    again = decode_record(encode_record(record))
    assert again == record
    assert type(again) is cls
    assert BOOK_RECORDS.have(again) == isinstance(again, BookRecord)
    assert CHANNEL_RECORDS.have(again) == isinstance(again, ChannelRecord)


def test_what_is_asked_for_by_its_own_class_has_no_subclasses() -> None:
    """`Kinds`, and the driver for effects, know exactly the classes that a union names."""
    asked_for = (*RECORD_TYPES, *get_args(fx.Effect))
    assert [cls for cls in asked_for if cls.__subclasses__()] == []


def test_every_record_has_a_name_of_its_own() -> None:
    names = [cls.__struct_config__.tag for cls in RECORD_TYPES]
    assert len(set(names)) == len(names) == len(RECORD_TYPES)


def test_the_bytes_of_a_record_stay_what_they_are() -> None:
    assert encode_record(EXAMPLE).hex() == EXAMPLE_HEX
    assert decode_record(bytes.fromhex(EXAMPLE_HEX)) == EXAMPLE


def test_a_txid_is_written_as_its_plain_bytes() -> None:
    txid = Txid(b"\x01" * 32)
    written = encode_record(r.BlockConnected(height=7, block_hash=txid, txs=(b"\x02", b"")))
    assert written.hex() == EXAMPLE_HEX
    decoded = decode_record(written)
    assert isinstance(decoded, r.BlockConnected)
    assert type(decoded.block_hash) is bytes


def test_what_is_no_plain_value_is_never_written() -> None:
    lost: Any = object()
    with pytest.raises(TypeError, match="object cannot be journalled"):
        encode_record(r.PeerConnected(node_id=lost))


@pytest.mark.parametrize("version", [0, 3, 5, 6, 0x7F, 0x80, 0xFF])
def test_a_record_of_another_version_is_not_half_understood(version: int) -> None:
    data = bytes((version,)) + encode_record(EXAMPLE)[1:]
    with pytest.raises(UnknownRecord, match=f"record version {version:02x}, expected 4 or 7"):
        decode_record(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"\5" + msgspec.msgpack.encode(["block_painted", 7]),
            "record version 05, expected 4 or 7",
        ),
        (UNCHECKED + msgspec.msgpack.encode(["block_painted", 7]), "does not know: block_painted"),
    ],
)
def test_what_newer_software_wrote_is_said_to_be_newer(data: bytes, said: str) -> None:
    with pytest.raises(NewerRecord, match=said):
        decode_record(data)


@pytest.mark.parametrize(
    "data", [b"\0" + encode_record(EXAMPLE)[1:], b"\2", b"\4", encode_record(EXAMPLE)[:-1], b""]
)
def test_what_is_no_record_is_not_said_to_be_newer(data: bytes) -> None:
    with pytest.raises(UnknownRecord) as caught:
        decode_record(data)
    assert not isinstance(caught.value, NewerRecord)


@pytest.mark.parametrize(
    "fields",
    [("block_connected", 7), ("peer_connected", "02"), (7,), ("no name of a kind",), (b"started",)],
)
def test_what_is_malformed_is_not_said_to_be_newer_unless_it_has_a_name_of_its_own(
    fields: tuple[Any, ...],
) -> None:
    with pytest.raises(UnknownRecord) as caught:
        decode_record(packed(*fields))
    assert not isinstance(caught.value, NewerRecord)


def test_a_record_of_the_version_that_was_never_released_is_refused_for_that() -> None:
    with pytest.raises(UnknownRecord, match="version 1, written by an unreleased version"):
        decode_record(b"\1" + encode_record(EXAMPLE)[1:])


def test_a_record_with_any_one_bit_flipped_is_none_and_not_said_to_be_newer() -> None:
    data = encode_record(EXAMPLE)
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(UnknownRecord) as caught:
            decode_record(bytes(flipped))
        assert not isinstance(caught.value, NewerRecord)


def test_a_record_from_before_there_were_checksums_is_read() -> None:
    data = UNCHECKED + encode_record(EXAMPLE)[1 + r.CHECKSUM_SIZE :]
    assert decode_record(data) == EXAMPLE


def test_an_empty_entry_is_no_record() -> None:
    with pytest.raises(UnknownRecord, match="record version none, expected 4"):
        decode_record(b"")


def packed(*fields: object) -> bytes:
    return UNCHECKED + msgspec.msgpack.encode(fields)


MALFORMED: Final = {
    "the version alone": b"\2",
    "cut short": encode_record(EXAMPLE)[:-1],
    "one byte more": encode_record(EXAMPLE) + b"\0",
    "no array": UNCHECKED + msgspec.msgpack.encode("started"),
    "an unknown name": packed("payment_lost", b""),
    "no name": packed(),
    "a field too few": packed("block_connected", 7),
    "a number for bytes": packed("peer_connected", 7),
    "a text for bytes": packed("peer_connected", "02"),
    "nested too deeply": UNCHECKED + b"\x92\xa7started" + b"\x91" * 9_999,
}
NOT_UTF8: Final = b"\1\x92\xa4\xff\xff\xff\xff\x07"  # where the name of a record stands


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_record_is_no_record(what: str) -> None:
    with pytest.raises(UnknownRecord):
        decode_record(MALFORMED[what])


def test_a_text_that_is_no_text_is_no_record() -> None:
    with pytest.raises(UnknownRecord):
        decode_record(NOT_UTF8)


@example(data=NOT_UTF8)
@given(data=st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: UNCHECKED + rest))
def test_any_bytes_are_a_record_or_no_record(data: bytes) -> None:
    try:
        record = decode_record(data)
    except UnknownRecord:
        return
    assert decode_record(encode_record(record)) == record


def test_one_flipped_bit_is_another_record_or_none() -> None:
    data = bytes.fromhex(EXAMPLE_HEX)
    for place in range(len(data)):
        for bit in range(8):
            flipped = data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :]
            try:
                assert decode_record(flipped) != EXAMPLE, (place, bit)
            except UnknownRecord:
                continue


UNREADABLE: Final = {
    "a version from later": Entry(
        CLIENT, bytes((r.RECORD_VERSION + 1,)) + encode_record(EXAMPLE)[1:]
    ),
    "a version that was never released": Entry(CLIENT, b"\1" + encode_record(EXAMPLE)[1:]),
    "cut short": Entry(CLIENT, MALFORMED["cut short"]),
    "nothing": Entry(CLIENT, b""),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_journal_that_cannot_be_read_whole_starts_nothing(what: str) -> None:
    """Whatever was forgotten might be a signature or a factory: better no daemon than half one."""
    created = r.Created(role="client", network=b"", journal_number=1)
    entries = [Entry(CREATION, encode_record(created)), UNREADABLE[what]]
    store = SimStore(dice=lambda: False, entries=entries)
    with pytest.raises(UnknownRecord):
        Driver(CLIENT_ROLE, new_client(Pump(1).clients[0].state.config), store, lambda _: ())
