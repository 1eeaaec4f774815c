"""State values and messages as bytes, at their bounds; and what is signed, and what was revoked."""

from collections.abc import Iterable
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any

import msgspec
import pytest
from immutables import Map
from msgspec import structs
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.test_rows import Entry, Table
from tests.protocol.test_rows import House as Shelved
from tests.protocol.test_snapshot import (
    CONFIG,
    HERE,
    NAMES,
    Leaf,
    Root,
    Side,
    forged,
    read,
    written,
)

from cromford.changed import changed
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256
from cromford.factory.vertices import NodeKind
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import encoding
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.intents import DoubleSigning, check_intents
from cromford.protocol.journal.opening_records import Intent
from cromford.protocol.journal.plain import SHARED_BYTES_MIN
from cromford.protocol.journal.revoked import (
    Kept,
    LookUp,
    decode_content,
    encode_content,
    encode_htlc,
    encode_naming,
    has_many_htlcs,
    htlc_key,
    read_revoked,
    revoked_by,
    revoked_key,
)
from cromford.protocol.journal.rows import StoredShelf
from cromford.protocol.journal.snapshot import CHECKSUM_SIZE, Snapshots, UnreadableSnapshot
from cromford.protocol.journal.state_classes import (
    Older,
    accepts,
    classes_of,
    problem_with_class,
    shape_of,
)
from cromford.shelf import Shelf
from cromford.wire import messages as m

# Values


@pytest.mark.parametrize(
    "number", [2**bits + more for bits in (62, 63, 64, 65, 80) for more in (-1, 0, 1)]
)
def test_a_number_is_read_as_it_was_whatever_its_size(number: int) -> None:
    for one in (number, -number):
        assert read(written(Root(CONFIG, uptime=one))).uptime == one


def test_a_number_of_64_bits_takes_few_bytes_and_is_read_where_it_stands_plain() -> None:
    """So it is written, and any reader of MessagePack reads it."""
    for number in (-(2**63), -1, 0, 2**64 - 1):
        plain = forged(1, "", "house", 7, [["Root", only("uptime")]], [16, [5, "config"], number])
        assert read(plain, version("uptime")).uptime == number
        assert len(written(Root(CONFIG, uptime=number))) < len(written(Root(CONFIG))) + 16


def only(*names: str) -> dict[str, Any]:
    shapes = classes_of(Root)[0]["Root"].fields
    return {name: shapes[name] for name in ("config", *names)}


def version(*names: str) -> type[Any]:
    kinds: dict[str, Any] = {"config": type(CONFIG), "uptime": int}
    return make_dataclass("Root", [(name, kinds[name]) for name in ("config", *names)], frozen=True)


@pytest.mark.parametrize("size", range(SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN + 2))
def test_bytes_that_appear_twice_are_read_twice_whatever_their_size(size: int) -> None:
    """Of two kinds of the same size the second is referred to by its own place."""
    first, second = bytes(size), b"\1" * size
    keys = {name: Leaf(key, Side.LEFT) for name, key in ((b"a", first), (b"b", second))}
    keys |= {name: Leaf(key, Side.RIGHT) for name, key in ((b"c", second), (b"d", first))}
    assert read(written(Root(CONFIG, tree=keys))).tree == keys


def test_bytes_of_all_sizes_are_told_apart_by_their_places() -> None:
    sizes = (*range(SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN + 2), 32)
    keys = {
        b"%d %d" % (n, size): Leaf(bytes(size), side)
        for n, side in enumerate(Side)
        for size in sizes
    }
    assert read(written(Root(CONFIG, tree=keys))).tree == keys


@dataclass(frozen=True)
class Alone:
    number: int


@dataclass(frozen=True)
class Nothing:
    """A class without a field."""


@dataclass(frozen=True)
class Small:
    alone: Alone | None = None
    nothing: Nothing | None = None


def test_classes_of_one_field_and_of_none_are_read_as_they_were() -> None:
    for state in (Small(alone=Alone(7)), Small(nothing=Nothing()), Small()):
        assert read(written(state, Small), Small) == state


def test_a_state_that_lacks_what_was_added_is_completed_and_any_other_is_not() -> None:
    old = make_dataclass("Small", [("alone", Alone | None)], frozen=True)
    completed: list[Small] = []

    def complete(state: Small) -> Small:
        completed.append(state)
        return replace(state, nothing=Nothing())

    snapshots = Snapshots(Small, NAMES, completed=complete)
    before = snapshots.decode(written(old(Alone(1)), old), HERE)
    assert (before.alone, before.nothing) == (Alone(1), Nothing())
    assert len(completed) == 1
    today = Small(alone=Alone(2))
    assert snapshots.decode(written(today, Small), HERE) == today
    assert len(completed) == 1


def test_bytes_that_end_too_early_or_go_on_are_refused() -> None:
    packed = written(Small(), Small)[CHECKSUM_SIZE:]
    for other in (packed[:-1], packed + b"x", packed + packed):
        with pytest.raises(UnreadableSnapshot, match=r"do not end where they should|Error"):
            read(sha256(other) + other, Small)


# Rows


def test_a_shelf_is_the_same_as_another_of_the_same_rows_and_name() -> None:
    rows, others = Table(), Table()
    snapshots = Snapshots(Shelved, {}, has_shelves=True)
    state = Shelved(order=Shelf({1: b"a"}))
    shelved = snapshots.shelve(state, HERE, written_by="", stored=rows)
    again = snapshots.shelve(state, HERE, written_by="", stored=others)
    assert shelved == again
    one = snapshots.reread(shelved, HERE, stored=rows)
    assert dict(one.order.walk()) == {1: b"a"}
    ground = one.order.ground
    assert isinstance(ground, StoredShelf)
    entries = one.entries.ground
    assert entries is not None
    other = snapshots.reread(again, HERE, stored=others).order.ground
    assert other is not None
    same = snapshots.reread(shelved, HERE, stored=rows).order.ground
    assert same is not None
    assert [ground.is_same(found) for found in (same, other, entries)] == [True, False, False]


def test_values_of_one_class_are_described_once_beside_their_rows() -> None:
    table = Table()
    state = Shelved(entries=Shelf({b"%d" % n: Entry(name=b"", number=n) for n in range(3)}))
    shelved = Snapshots(Shelved, {}, has_shelves=True).shelve(
        state, HERE, written_by="", stored=table
    )
    assert [row.shelf for row in shelved.rows].count("shapes") == 1
    assert len(shelved.rows) == 4


# Which versions are read


@pytest.mark.parametrize(
    ("now", "before", "does"),
    [
        (int | str, int | str, True),
        (int | str | None, int | str, True),
        (int | str, int | bytes, False),
        (tuple[int, ...] | None, tuple[int, ...], True),
        (tuple[int, ...], int, False),
        (int, tuple[int, ...], False),
        (tuple[int, int], tuple[int, int, int], False),
        (Shelf[int, str], Map[int, str], True),
        (Shelf[int, str], dict[int, str], True),
        (Shelf[int, str], tuple[int, str], False),
        (Shelf[int, str], frozenset[int], False),
        (Map[int, str], Shelf[int, str], False),
        (Shelf[int, str] | None, Map[int, str], True),
        (Map[int, str] | None, Shelf[int, str], False),
        (str, bytes, False),
    ],
    ids=str,
)
def test_a_type_takes_what_an_older_one_held_or_it_is_refused(
    now: Any,
    before: Any,
    does: bool,  # noqa: FBT001 - a table
) -> None:
    assert accepts(shape_of(now), shape_of(before)) is does


class Message(msgspec.Struct, frozen=True):
    text: str
    n: int = 0


@dataclass(frozen=True)
class Holder:
    message: Message
    names: tuple[str, ...] = field(default_factory=tuple)
    count: int = 0


def test_what_may_be_left_out_is_what_has_a_default_in_whichever_way() -> None:
    classes, _ = classes_of(Holder)
    assert classes["Holder"].defaulted == {"names", "count"}
    assert classes["Message"].defaulted == {"n"}
    assert problem_with_class(classes["Message"], "Message", {"text": "str"}) is None
    assert problem_with_class(classes["Message"], "Message", {"n": "int"}) == (
        "Message needs text, which was unknown"
    )


def test_an_older_reader_is_asked_only_for_what_it_is_there_for() -> None:
    today: Any = make_dataclass("Root", [("config", type(CONFIG)), ("text", bytes)], frozen=True)
    read_older = Older({"text": str}, lambda config, text: today(config, text.encode()))
    today.older = read_older
    known = classes_of(today)[0]["Root"]
    config = known.fields["config"]
    assert known.reader_of({"config": config, "text": "bytes"}) is today
    old = {"config": config, "text": "str"}
    assert known.reader_of(old)(CONFIG, "t") == today(CONFIG, b"t")
    assert problem_with_class(known, "Root", old) is None
    assert problem_with_class(known, "Root", {**old, "more": "int"}) == "Root has no more any more"
    assert problem_with_class(known, "Root", {"text": "str", "config": "int"}) is not None
    other: Any = make_dataclass("Root", [("config", type(CONFIG)), ("text", bytes)], frozen=True)
    other.older = Older({"text": str, "config": type(CONFIG)}, read_older.read)
    both = {"config": config, "text": "bytes"}
    assert classes_of(other)[0]["Root"].reader_of(both) is other, "as it is today"
    named: Any = make_dataclass("Root", [("config", type(CONFIG))], frozen=True)
    named.older = Older({"gone": int})
    only_named = classes_of(named)[0]["Root"]
    assert only_named.reader_of({"config": config, "gone": "int"}) is named


# Messages that are journalled


def test_a_message_is_read_as_it_was_written_however_many_wait() -> None:
    revocations = [
        m.UpdateFulfillHtlc(channel_id=bytes(32), htlc_id=n, payment_preimage=bytes([n]) * 32)
        for n in range(40)
    ]
    written_down = [encoding.journalled(one) for one in revocations]
    for data, message in zip(written_down, revocations, strict=True):
        assert encoding.decoded(data, m.UpdateFulfillHtlc) == message
        assert encoding.decoded(data, m.UpdateFulfillHtlc) == message, "also a second time"
    kept = encoding.journalled(revocations[0])
    assert encoding.decoded(kept, m.UpdateFulfillHtlc) is revocations[0], "it is not read again"


def test_few_messages_that_nobody_folds_are_kept() -> None:
    messages = [
        m.UpdateFulfillHtlc(channel_id=bytes(32), htlc_id=n, payment_preimage=b"k" * 32)
        for n in range(1_000, 1_040)
    ]
    written_down = [encoding.journalled(one) for one in messages]
    kept = [
        encoding.decoded(data, m.UpdateFulfillHtlc) is message
        for data, message in zip(written_down, messages, strict=True)
    ]
    assert kept[-1], "the newest is not read again"
    assert 1 <= sum(kept) <= 16


def test_a_text_that_an_encoding_cuts_is_read_as_it_was_cut() -> None:
    """The fold after a restart has no other."""
    failed = m.UpdateFailHtlc(channel_id=bytes(32), htlc_id=1, reason=b"r")
    data = encoding.journalled(failed)
    assert encoding.decoded(data, m.UpdateFailHtlc) is not failed


def test_what_was_journalled_as_something_else_ends_the_fold() -> None:
    failed = m.UpdateFailHtlc(channel_id=bytes(32), htlc_id=1, reason=b"r")
    with pytest.raises(AssertionError, match="UpdateAddHtlc was journalled"):
        encoding.decoded(m.encode_message(failed), m.UpdateAddHtlc)
    revocation = m.RevokeAndAck(
        channel_id=bytes(32),
        per_commitment_secret=bytes(32),
        next_per_commitment_point=b"\2" * 33,
        next_pubnonce=b"\2" * 66,
    )
    with pytest.raises(AssertionError, match="an update was journalled, RevokeAndAck was read"):
        encoding.journalled_update(m.encode_message(revocation))


# What is signed, and what was revoked


def intent(kind: str, state_index: int, sighash: bytes = b"s") -> Intent:
    return Intent(kind=kind, outpoint=b"o", state_index=state_index, sighash=sighash)


def test_a_poison_is_signed_with_the_state_that_supersedes_what_it_spends() -> None:
    state, poison = NodeKind.STATE.value, "stock_poison"
    opened = check_intents({}, (intent(state, 0),))
    first = check_intents(opened, (intent(state, 1), intent(poison, 0)))
    assert len(first) == 3
    second = check_intents(first, (intent(state, 2), intent(poison, 1)))
    assert len(second) == 5
    for wrong in (
        (intent(poison, 0), intent(poison, 1)),
        (intent(state, 1), intent(poison, 1)),
        (intent("commitment_opener", 1), intent(poison, 0)),
        (intent(state, 2),),
        (intent(state, 0, b"another"),),
    ):
        with pytest.raises(DoubleSigning):
            check_intents(opened, wrong)
    assert check_intents(first, (intent(state, 1),)) == first, "the same once more is no second"


def archived(*rows: Kept) -> LookUp:
    """Return what looks up these rows."""
    return dict(rows).get


def test_what_a_revoked_commitment_said_is_known_by_its_channel_and_number() -> None:
    pump = live_factory(1)
    assert pay(pump, pump.lsp, pump.clients[0], 5_000_000).status == "paid"
    link = lsp_link(pump, newest_link(pump.clients[0]))
    record = cr.RevocationReceived(channel_id=link.channel_id, message=b"")
    number = link.state.peer_revoked
    content = CommitmentContent(
        holder=Party.ACCEPTER, number=number, opener_msat=5, accepter_msat=6
    )
    book = Book(links=Map({link.channel_id: changed(link, peer_unrevoked=content)}))
    ((key, value),) = revoked_by(book, record)
    assert key == revoked_key(link.channel_id, number)
    assert read_revoked(link.channel_id, number, archived((key, value))) == content
    assert read_revoked(link.channel_id, number + 1, archived((key, value))) is None
    for unknown in (None, replace(content, number=number + 1)):
        other = Book(links=Map({link.channel_id: changed(link, peer_unrevoked=unknown)}))
        with pytest.raises(AssertionError, match=f"what commitment {number} said is not known"):
            revoked_by(other, record)


def test_what_a_later_version_wrote_of_a_revoked_commitment_is_refused() -> None:
    content = CommitmentContent(holder=Party.OPENER, number=1, opener_msat=5, accepter_msat=6)
    plain = msgspec.msgpack.decode(encode_naming(content))
    later = msgspec.msgpack.encode([plain[0] + 1, *plain[1:]])
    with pytest.raises(ValueError, match=f"version {plain[0] + 1}, expected 1 or {plain[0]}"):
        decode_content(later, bytes(32), 1, archived())


def test_an_archived_htlc_that_is_named_has_to_be_there_and_of_a_known_version() -> None:
    htlc = Htlc(
        offered_by=Party.ACCEPTER,
        htlc_id=7,
        amount_msat=8,
        payment_hash=b"\x09" * 32,
        cltv_expiry=10,
    )
    content = CommitmentContent(
        holder=Party.OPENER, number=1, opener_msat=5, accepter_msat=6, htlcs=(htlc,)
    )
    data, key = encode_naming(content), htlc_key(bytes(32), Party.ACCEPTER, 7)
    row = encode_htlc(htlc)
    assert decode_content(data, bytes(32), 1, archived((key, row))) == content
    plain = msgspec.msgpack.decode(row)
    later = msgspec.msgpack.encode([plain[0] + 1, *plain[1:]])
    with pytest.raises(ValueError, match=f"HTLC: version {plain[0] + 1}, expected {plain[0]}"):
        decode_content(data, bytes(32), 1, archived((key, later)))
    others = ((b"\x01" * 32, Party.ACCEPTER, 7), (bytes(32), Party.OPENER, 7))
    for other in (*(htlc_key(*one) for one in others), htlc_key(bytes(32), Party.ACCEPTER, 8)):
        with pytest.raises(ValueError, match="accepter 7 is not archived"):
            decode_content(data, bytes(32), 1, archived((other, row)))
    for wrong in (-1, 2**64 - 1):
        named = msgspec.msgpack.encode((2, 0, 5, 6, ((), (wrong,))))
        with pytest.raises(
            ValueError, match="is no number of one" if wrong < 0 else "is not archived"
        ):
            decode_content(named, bytes(32), 1, archived())


def test_no_htlc_has_a_number_above_64_bits() -> None:
    most = 2**64 - 1
    htlc = offered(Party.ACCEPTER, most)
    named = msgspec.msgpack.encode((2, 0, 5, 6, ((), (most, 1))))
    rows = ((htlc_key(b"c", Party.ACCEPTER, most), encode_htlc(htlc)),)
    with pytest.raises(ValueError, match=f"{most + 1} is no number of one"):
        decode_content(named, b"c", 1, archived(*rows))


def offered(party: Party, htlc_id: int) -> Htlc:
    """Return an HTLC of a party's."""
    return Htlc(
        offered_by=party,
        htlc_id=htlc_id,
        amount_msat=htlc_id % 9 + 1,
        payment_hash=bytes([party]) * 32,
        cltv_expiry=htlc_id % 7 + 2,
    )


@pytest.mark.parametrize("below", [(0, 0), (2, 0), (3, 5), (4, 6)])
def test_htlcs_that_are_archived_are_not_archived_again(below: tuple[int, int]) -> None:
    pump = live_factory(1)
    link = lsp_link(pump, newest_link(pump.clients[0]))
    number = link.state.peer_revoked
    ids = ((Party.OPENER, 1), (Party.OPENER, 3), (Party.ACCEPTER, 5))
    htlcs = tuple(offered(*one) for one in ids)
    content = CommitmentContent(
        holder=Party.ACCEPTER, number=number, opener_msat=5, accepter_msat=6, htlcs=htlcs
    )
    link = changed(link, peer_unrevoked=content, archived_below=below)
    book = Book(links=Map({link.channel_id: link}))
    record = cr.RevocationReceived(channel_id=link.channel_id, message=b"", names_htlcs=True)
    *rows, (key, value) = revoked_by(book, record)
    assert (key, value) == (revoked_key(link.channel_id, number), encode_naming(content))
    assert rows == [
        (htlc_key(link.channel_id, one.offered_by, one.htlc_id), encode_htlc(one))
        for one in htlcs
        if one.htlc_id >= below[one.offered_by]
    ]
    whole = structs.replace(record, names_htlcs=False)
    assert revoked_by(book, whole) == ((key, encode_content(content)),)


@pytest.mark.parametrize(("n_htlcs", "has_many"), [(0, False), (8, False), (9, True)])
def test_a_commitment_names_its_htlcs_where_it_has_many(*, n_htlcs: int, has_many: bool) -> None:
    htlcs = tuple(offered(Party.OPENER, htlc_id) for htlc_id in range(n_htlcs))
    content = CommitmentContent(
        holder=Party.OPENER, number=1, opener_msat=5, accepter_msat=6, htlcs=htlcs
    )
    assert has_many_htlcs(content) is has_many


@pytest.mark.parametrize(
    ("opener", "accepter"),
    [
        ((), ()),
        ((0,), ()),
        ((), (0,)),
        ((0, 1, 2), (0, 1)),
        ((0, 2), (3,)),
        ((7, 8, 10, 11), (12, 2**64 - 1)),
        (range(114), range(114, 228)),
    ],
)
def test_htlcs_are_named_by_their_offerer_and_number(
    opener: Iterable[int], accepter: Iterable[int]
) -> None:
    ids = {Party.OPENER: opener, Party.ACCEPTER: accepter}
    htlcs = tuple(offered(party, htlc_id) for party in Party for htlc_id in ids[party])
    content = CommitmentContent(
        holder=Party.OPENER, number=1, opener_msat=5, accepter_msat=6, htlcs=htlcs
    )
    rows = [(htlc_key(b"c", one.offered_by, one.htlc_id), encode_htlc(one)) for one in htlcs]
    assert decode_content(encode_naming(content), b"c", 1, archived(*rows)) == content
