"""What lies beside a snapshot: what is written of it, what is read, and what does not add up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, Final

import msgspec
import pytest
from immutables import Map

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.crypto.keys import sha256
from cromford.protocol.journal.plain import PlainReader
from cromford.protocol.journal.rows import (
    READ_KEPT_SIZE_MAX,
    SHAPE_ID_SIZE,
    SHAPES,
    Shapes,
    StoredShelf,
)
from cromford.protocol.journal.snapshot import (
    Position,
    Shelved,
    Snapshots,
    UnreadableSnapshot,
)
from cromford.shelf import Shelf, with_shelves

HERE: Final = Position("house", 7)
OUTPOINT: Final = OutPoint(txid=Txid(b"\1" * 32), vout=0)
TX: Final = Tx(
    version=2,
    inputs=(),
    outputs=(TxOut(amount_sat=1, script_pubkey=b"\x51"),),
    nlocktime=0,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: bytes
    number: int
    tx: Tx | None = None


@dataclass(frozen=True, kw_only=True)
class Room:
    watched: Shelf[OutPoint, Map[str, int]] = field(default_factory=Shelf)


@dataclass(frozen=True, kw_only=True)
class House:
    height: int = 0
    entries: Shelf[bytes, Entry] = field(default_factory=Shelf)
    order: Shelf[int, bytes] = field(default_factory=Shelf)
    room: Room = field(default_factory=Room)


class Table:
    """The rows of one stream, and how many were read. Implements `rows.Rows`."""

    def __init__(self) -> None:
        self.lying: dict[tuple[str, bytes], bytes] = {}
        self.n_read = 0

    def get(self, shelf: str, key: bytes) -> bytes | None:
        self.n_read += 1
        return self.lying.get((shelf, key))

    def among(self, shelf: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        self.n_read += 1
        return iter([(k, self.lying[shelf, k]) for k in keys if (shelf, k) in self.lying])

    def walk(self, shelf: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for name, key in self.lying if name == shelf and key >= start)
        for key in keys:
            self.n_read += 1
            yield key, self.lying[shelf, key]

    def take(self, shelved: Shelved) -> None:
        """Store the rows of a checkpoint."""
        for shelf, key, value in shelved.rows:
            if value is None:
                del self.lying[shelf, key]
            else:
                self.lying[shelf, key] = value


SNAPSHOTS: Final = Snapshots(House, {}, has_shelves=True)
ENTRIES: Final = {b"%d" % n: Entry(name=b"%d" % n, number=n) for n in range(5)}
FULL: Final = House(
    height=3,
    entries=Shelf({**ENTRIES, b"tx": Entry(name=bytes(40), number=9, tx=TX)}),
    order=Shelf({n: b"%d" % n for n in range(5)}),
    room=Room(watched=Shelf({OUTPOINT: Map({"factory:1": 3})})),
)


def shelved(table: Table, house: House) -> Shelved:
    """Store a house, and return what was written."""
    made = SNAPSHOTS.shelve(house, HERE, written_by="1", stored=table)
    assert SNAPSHOTS.reread(made, HERE, stored=table) == house
    table.take(made)
    return made


def opened(table: Table, made: Shelved) -> House:
    return SNAPSHOTS.open(made.snapshot, HERE, stored=table)


def test_what_lies_on_shelves_is_in_no_snapshot_and_is_read_again() -> None:
    table = Table()
    made = shelved(table, FULL)
    again = opened(table, made)
    assert again == FULL
    assert not again.entries.changed
    assert not again.room.watched.changed
    more = House(entries=Shelf({b"%d" % n: ENTRIES[b"1"] for n in range(1000)}))
    assert len(shelved(Table(), more).snapshot) < len(made.snapshot) + 100


def test_only_what_changed_is_written_again() -> None:
    table = Table()
    house = opened(table, shelved(table, FULL))
    assert shelved(table, house).rows == ()
    entry = Entry(name=b"new", number=5)
    later = replace(
        house,
        entries=house.entries.set(b"0", entry).delete(b"1").set(b"2", ENTRIES[b"2"]).delete(b"x"),
    )
    made = shelved(table, later)
    assert [row.key for row in made.rows] == [b"0", b"1"]
    assert opened(table, made) == later
    assert len(opened(table, made).entries) == 5


@pytest.mark.parametrize("numbers", [range(5), range(3), range(2, 9), ()], ids=str)
def test_a_shelf_that_was_made_anew_takes_the_place_of_what_lay_there(
    numbers: Sequence[int],
) -> None:
    """As what an older version did not write is made of what it wrote, in one piece."""
    table = Table()
    house = opened(table, shelved(table, FULL))
    later = replace(house, order=Shelf({n: b"%d" % n for n in numbers}))
    made = shelved(table, later)
    assert {row.key[-1] for row in made.rows} == {*range(5)} ^ {*numbers}
    again = opened(table, made)
    assert again == later
    assert shelved(table, again).rows == ()


def test_a_look_up_reads_one_row_and_the_next_of_it_none() -> None:
    table = Table()
    house = opened(table, shelved(table, FULL))
    house.entries[b"1"]  # what describes it is read once
    table.n_read = 0
    assert (house.entries[b"2"], table.n_read) == (ENTRIES[b"2"], 1)
    assert (house.entries[b"2"], table.n_read) == (ENTRIES[b"2"], 1)
    assert (house.entries.get(b"no"), table.n_read) == (None, 2)
    assert house.entries.among([b"1", b"no", b"3"]) == {b"1": ENTRIES[b"1"], b"3": ENTRIES[b"3"]}
    assert house.room.watched.among([OUTPOINT]) == dict(FULL.room.watched)
    assert table.n_read == 2 + 2, "of many at once, one question each"


def test_little_of_what_was_read_is_kept() -> None:
    table, size = Table(), READ_KEPT_SIZE_MAX // 8
    house = House(order=Shelf({n: bytes(size - n) for n in range(30)}))
    house = opened(table, shelved(table, house))
    for number in range(30):
        assert house.order[number] == bytes(size - number)
        assert isinstance(house.order.ground, StoredShelf)
        assert sum(map(len, house.order.ground._kept.values())) <= READ_KEPT_SIZE_MAX
        table.n_read = 0
        assert (len(house.order[number]), table.n_read) == (size - number, 0)


def _changed(table: Table) -> None:
    key = ("House.entries", b"0")
    table.lying[key] = table.lying[key][:-1] + b"\x7f"


def _moved(table: Table) -> None:
    table.lying["House.entries", b"moved"] = table.lying.pop(("House.entries", b"0"))


def _exchanged(table: Table) -> None:
    first, second = ("House.entries", b"0"), ("House.entries", b"1")
    table.lying[first], table.lying[second] = table.lying[second], table.lying[first]


def _shapes_of(table: Table) -> list[tuple[str, bytes]]:
    return [key for key in table.lying if key[0] == SHAPES]


def _shapes_changed(table: Table) -> None:
    for key in _shapes_of(table):
        table.lying[key] += b"\0"


def _shapes_missing(table: Table) -> None:
    for key in _shapes_of(table):
        del table.lying[key]


DAMAGES: Final[dict[str, tuple[Callable[[Table], Any], str]]] = {
    "missing": (
        lambda table: table.lying.pop(("House.entries", b"0")),
        "rows of house are damaged: House.entries: expected 6 .*, found 5",
    ),
    "added": (
        lambda table: table.lying.update({("House.order", b"x"): b"y"}),
        "rows of house are damaged: House.order: expected 5 .*, found 6",
    ),
    "changed": (_changed, "rows of house are damaged: House.entries: expected 6 .*, found 6"),
    "moved": (_moved, "rows of house are damaged: House.entries: expected 6 .*, found 6"),
    "exchanged": (_exchanged, "rows of house are damaged: House.entries: expected 6"),
    "all gone": (
        lambda table: table.lying.clear(),
        r"rows of house are damaged: Room.watched: expected 1 .*, found 0",
    ),
    "what describes them": (_shapes_changed, "rows of house: what describes rows of kind"),
    "what described them": (_shapes_missing, "rows of house: what describes rows of kind"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_that_do_not_add_up_are_refused_by_name(damage: str) -> None:
    table = Table()
    made = shelved(table, FULL)
    spoil, complaint = DAMAGES[damage]
    spoil(table)
    with pytest.raises(UnreadableSnapshot, match=complaint):
        opened(table, made)


def test_rows_of_another_checkpoint_are_refused() -> None:
    table = Table()
    before = shelved(table, FULL)
    house = opened(table, before)
    shelved(table, replace(house, order=house.order.set(7, b"7")))
    with pytest.raises(UnreadableSnapshot, match=r"House.order"):
        opened(table, before)


def test_a_snapshot_beside_which_rows_lie_is_not_read_without_them() -> None:
    made = shelved(Table(), FULL)
    with pytest.raises(UnreadableSnapshot, match=r"Room.watched lies beside the snapshot"):
        SNAPSHOTS.decode(made.snapshot, HERE)


@pytest.mark.parametrize("kind", [dict, Map])
def test_a_map_in_an_older_snapshot_becomes_a_shelf(kind: type[Any]) -> None:
    before = make_dataclass("House", [("height", int), ("order", kind[int, bytes])], frozen=True)
    written = Snapshots(before, {}).encode(before(3, kind({1: b"1"})), HERE, written_by="0")
    completed = Snapshots(
        House, {}, has_shelves=True, completed=lambda house: replace(house, height=9)
    )
    house = completed.open(written, HERE, stored=Table())
    assert house == House(height=9, order=Shelf({1: b"1"})), "what was added since is made"
    table = Table()
    assert opened(table, shelved(table, house)) == house


def test_a_class_of_rows_that_is_no_more_is_refused_as_the_stream_is_opened() -> None:
    """Before anything is decided, not when the row is looked up."""
    table = Table()
    made = shelved(table, FULL)
    now = make_dataclass("Entry", [("name", bytes)], frozen=True)
    house = make_dataclass(
        "House",
        [
            ("height", int),
            ("entries", Shelf[bytes, now]),  # type: ignore[valid-type]  # made here
            ("order", Shelf[int, bytes]),
            ("room", Room),
        ],
        frozen=True,
    )
    with pytest.raises(UnreadableSnapshot, match=r"another version, .*Entry has no number"):
        Snapshots(house, {}, has_shelves=True).open(made.snapshot, HERE, stored=table)


def test_two_shelves_of_one_name_are_a_bug() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Two:
        one: Room = field(default_factory=Room)
        other: Room = field(default_factory=Room)

    with pytest.raises(TypeError, match=r"two shelves are called Room.watched"):
        Snapshots(Two, {}).shelve(Two(), HERE, written_by="1", stored=Table())


def test_what_is_let_go_of_in_a_later_state_is_what_was_written() -> None:
    table = Table()
    made = SNAPSHOTS.shelve(FULL, HERE, written_by="1", stored=table)
    read = SNAPSHOTS.reread(made, HERE, stored=table)
    later = replace(FULL, order=FULL.order.set(5, b"5").delete(0))
    table.take(made)
    ground = read.order.ground
    assert ground is not None
    now = with_shelves(
        later,
        lambda name, shelf: shelf.stored(FULL.order, ground) if name == "House.order" else shelf,
    )
    assert dict(now.order.changed) == {5: b"5", 0: None}
    assert dict(now.order) == {1: b"1", 2: b"2", 3: b"3", 4: b"4", 5: b"5"}


def test_a_state_whose_shelves_are_stored_can_be_written_in_one_piece() -> None:
    table = Table()
    many = House(entries=Shelf({b"%d" % n: Entry(name=bytes(40), number=n) for n in range(100)}))
    house = opened(table, shelved(table, many))
    written = SNAPSHOTS.encode(house, HERE, written_by="1")
    assert SNAPSHOTS.decode(written, HERE) == many


# What is written of them


def test_a_snapshot_says_of_a_shelf_what_the_hashes_of_its_rows_add_up_to() -> None:
    """So it stands in every checkpoint that was ever written: 32 bytes, and what is above is cut.

    A row's hash is of its shelf's name, of its key behind the key's size, and of its value.
    """
    table = Table()
    house = opened(table, shelved(table, FULL))
    total, n_rows = 0, 0
    for (name, key), value in table.lying.items():
        if name == "House.entries":
            hashed = name.encode() + b"\0" + len(key).to_bytes(4, "big") + key + value
            total += int.from_bytes(sha256(hashed), "big")
            n_rows += 1
    assert total > 2**256, "some of it is cut"
    ground = house.entries.ground
    assert isinstance(ground, StoredShelf)
    assert ground.row_sum == (n_rows, (total % 2**256).to_bytes(32, "big"))


def test_a_row_whose_key_is_the_name_of_a_description_is_read_as_what_it_is() -> None:
    table = Table()
    made = SNAPSHOTS.shelve(FULL, HERE, written_by="1", stored=table)
    names = [row.key for row in made.rows if row.shelf == SHAPES]
    assert {len(name) for name in names} == {SHAPE_ID_SIZE}
    entries = FULL.entries.update(dict.fromkeys(names, ENTRIES[b"1"]))
    numbers = {int.from_bytes(name, "big"): b"1" for name in names}
    house = replace(FULL, entries=entries, order=Shelf(numbers))
    assert opened(table, shelved(table, house)) == house


@dataclass(frozen=True, kw_only=True)
class TwoShelves:
    one: Shelf[int, Entry] = field(default_factory=Shelf)
    other: Shelf[int, Entry] = field(default_factory=Shelf)


def test_what_was_read_of_one_shelf_is_not_taken_for_what_is_read_of_the_next() -> None:
    """Its place in memory is free once it is written: what lies there then is another value."""
    snapshots = Snapshots(TwoShelves, {}, has_shelves=True)
    state = TwoShelves(
        one=Shelf({n: Entry(name=bytes(20), number=n) for n in range(100)}),
        other=Shelf({n: Entry(name=bytes(20), number=1_000 + n) for n in range(100)}),
    )
    table = Table()
    made = snapshots.shelve(state, HERE, written_by="1", stored=table)
    table.take(made)
    stored = snapshots.open(made.snapshot, HERE, stored=table)
    again = snapshots.decode(snapshots.encode(stored, HERE, written_by="1"), HERE)
    assert [one.number for one in again.one.values()] == [*range(100)]
    assert [one.number for one in again.other.values()] == [*range(1_000, 1_100)]


# What is damaged without its sum being another


def test_a_row_that_changes_after_the_stream_was_opened_is_refused_as_it_is_read() -> None:
    table = Table()
    house = opened(table, shelved(table, FULL))
    place = ("House.entries", b"1")
    described = table.lying[place][:SHAPE_ID_SIZE]
    table.lying[place] = described + msgspec.msgpack.encode([16, b"a field alone"])
    with pytest.raises(ValueError, match="a row is damaged: ValueError"):
        house.entries[b"1"]


@pytest.mark.parametrize("error", [TypeError, LookupError, AttributeError, RecursionError])
def test_a_description_that_says_nothing_that_can_be_read_is_damaged(
    error: type[Exception],
) -> None:
    table, shape = Table(), msgspec.msgpack.encode("no classes")
    name = sha256(shape)[:SHAPE_ID_SIZE]
    table.lying[SHAPES, name] = shape

    def reader(_described: Any) -> Callable[[], PlainReader]:
        raise error("why")

    with pytest.raises(ValueError, match=f"what describes rows is damaged: {error.__name__}"):
        Shapes(table, (), reader).check([name])


def test_what_lies_in_a_store_is_not_the_same_as_what_lies_anywhere_else() -> None:
    table = Table()
    ground = opened(table, shelved(table, FULL)).order.ground
    assert isinstance(ground, StoredShelf)

    class Elsewhere:
        """Another ground. Implements `shelf.Ground`."""

        def get(self, _key: int) -> bytes | None:
            return None

        def among(self, _keys: Sequence[int]) -> Iterator[tuple[int, bytes]]:
            return iter(())

        def walk(self, _start: bytes) -> Iterator[tuple[int, bytes]]:
            return iter(())

        def is_same(self, _other: Any) -> bool:
            return False

    assert not ground.is_same(Elsewhere())


def test_a_snapshot_holds_all_of_a_state_unless_rows_are_asked_for() -> None:
    assert SNAPSHOTS.has_shelves
    assert not Snapshots(House, {}).has_shelves


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_checkpoint_that_could_not_be_opened_is_found_before_it_is_stored(
    *, is_damaged: bool
) -> None:
    """What lies there and is not written is counted, too: it was changed, or nobody knew of it."""
    table = Table()
    made = shelved(table, FULL)
    house = opened(table, made)
    later = replace(house, order=house.order.set(5, b"5").delete(0))
    if is_damaged:
        (place, value) = next(one for one in table.lying.items() if one[0][0] == "House.entries")
        table.lying[place] = value[:-1] + bytes([value[-1] ^ 1])
    again = SNAPSHOTS.shelve(later, HERE, written_by="1", stored=table)
    SNAPSHOTS.reread(again, HERE, stored=table)
    if is_damaged:
        with pytest.raises(UnreadableSnapshot, match=r"rows of house are damaged: House.entries"):
            SNAPSHOTS.reread(again, HERE, stored=table, counts=True)
        return
    assert SNAPSHOTS.reread(again, HERE, stored=table, counts=True) == later
    table.take(again)
    assert opened(table, again) == later
