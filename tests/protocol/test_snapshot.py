"""State values as bytes: what was written is what is read, or it is refused by name."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from enum import Enum, IntEnum
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map
from tests.protocol.pump import Pump

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.scan import Scan
from cromford.protocol.journal.snapshot import (
    CHECKSUM_SIZE,
    Position,
    Snapshots,
    UnreadableSnapshot,
    references_of,
)
from cromford.protocol.journal.state_classes import Older, accepts, classes_of, shape_of

HERE: Final = Position("house", 7)


class Side(IntEnum):
    LEFT = 0
    RIGHT = 1


class Word(Enum):
    YES = "yes"
    NO = "no"


@dataclass(frozen=True)
class Config:
    name: str


@dataclass(frozen=True)
class Leaf:
    key: bytes
    side: Side


class Message(msgspec.Struct, frozen=True):
    text: str
    n: int = 0


@dataclass(frozen=True, slots=True)
class Root:
    config: Config
    tree: Mapping[bytes, Leaf] = field(default_factory=dict)
    many: Map[tuple[bytes, int], Leaf | None] = field(default_factory=Map)
    seen: frozenset[bytes] = frozenset()
    uptime: int = 0
    word: Word = Word.YES
    txs: tuple[Tx, ...] = ()
    messages: tuple[Message, ...] = ()
    by_outpoint: dict[OutPoint, Txid] = field(default_factory=dict)
    is_it: bool = False
    text: str | None = None


CONFIG: Final = Config("ours")
NAMES: Final = {"config": CONFIG}
leaves = st.builds(Leaf, key=st.binary(max_size=40), side=st.sampled_from(Side))
txids = st.binary(min_size=32, max_size=32).map(Txid)
outpoints = st.builds(OutPoint, txid=txids, vout=st.integers(0, 3))
txs = st.builds(
    Tx,
    version=st.just(3),
    inputs=st.lists(
        st.builds(TxIn, outpoint=outpoints, nsequence=st.integers(0, 2**32 - 1)), max_size=2
    ).map(tuple),
    outputs=st.lists(
        st.builds(TxOut, amount_sat=st.integers(0, 2**40), script_pubkey=st.binary(max_size=34)),
        max_size=2,
    ).map(tuple),
)
roots = st.builds(
    Root,
    config=st.just(CONFIG),
    tree=st.dictionaries(st.binary(max_size=33), leaves, max_size=4),
    many=st.dictionaries(
        st.tuples(st.binary(max_size=33), st.integers(0, 9)), st.none() | leaves, max_size=4
    ).map(Map),
    seen=st.frozensets(st.binary(max_size=33), max_size=4),
    uptime=st.integers(-(2**70), 2**2016 - 1),
    word=st.sampled_from(Word),
    txs=st.lists(txs, max_size=2).map(tuple),
    messages=st.lists(st.builds(Message, text=st.text(), n=st.integers(0, 5))).map(tuple),
    by_outpoint=st.dictionaries(outpoints, txids, max_size=3),
    is_it=st.booleans(),
    text=st.none() | st.text(),
)


def same(one: Any, other: Any) -> bool:
    """Say whether two values are equal and of the same classes all through, orders included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict | Map):
        if isinstance(one, dict) and list(one) != list(other):
            return False
        return len(one) == len(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def written(state: Any, root: type[Any] = Root) -> bytes:
    return Snapshots(root, NAMES).encode(state, HERE, written_by="1.2.3")


def read(data: bytes, root: type[Any] = Root, position: Position = HERE) -> Any:
    return Snapshots(root, NAMES).decode(data, position)


@given(state=roots)
def test_what_is_written_is_what_is_read(state: Root) -> None:
    again = read(written(state))
    assert again == state
    assert same(again, state)


@given(state=roots)
def test_what_is_no_part_of_the_journal_is_what_has_its_name_now(state: Root) -> None:
    now = Config("another day")
    again = Snapshots(Root, {"config": now}).decode(written(state), HERE)
    assert again.config is now
    assert replace(again, config=CONFIG) == state


def test_a_value_that_appears_twice_is_written_once() -> None:
    leaf = Leaf(bytes(range(32)), Side.LEFT)
    again = read(written(Root(CONFIG, tree={b"a": leaf, b"b": leaf})))
    assert again.tree[b"a"] is again.tree[b"b"]
    n_apart = len(written(Root(CONFIG, tree={b"a": leaf})))
    assert len(written(Root(CONFIG, tree={bytes((n,)): leaf for n in range(99)}))) < n_apart + 600


def test_a_cache_is_not_written() -> None:
    tx = Tx(version=3, inputs=(), outputs=())
    before = written(Root(CONFIG, txs=(tx,)))
    assert tx.txid is tx.txid
    assert written(Root(CONFIG, txs=(tx,))) == before
    assert "txid" not in vars(read(before).txs[0])


@pytest.mark.parametrize(
    "change",
    [
        {"text": 1.5},
        {"text": Pump},
        {"seen": {b"a set"}},
        {"tree": {b"": Position("x", 1)}},
        {"config": Config("ours")},
    ],
)
def test_what_may_not_appear_is_never_written(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"cannot be in a snapshot|not what the state began with"):
        written(replace(Root(CONFIG), **change))


# Damage


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(place: int, bit: int) -> None:
    data = bytearray(written(Root(CONFIG, tree={bytes(40): Leaf(bytes(range(99)), Side.LEFT)})))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(UnreadableSnapshot, match="the checkpoint of house is damaged"):
        read(bytes(data))


@pytest.mark.parametrize("size", [0, 1, CHECKSUM_SIZE, 60])
def test_one_that_was_cut_short_is_noticed(size: int) -> None:
    with pytest.raises(UnreadableSnapshot, match="damaged"):
        read(written(Root(CONFIG))[:size])


@pytest.mark.parametrize("position", [Position("house", 8), Position("chain", 7)])
def test_one_of_another_place_in_the_journal_is_refused(position: Position) -> None:
    with pytest.raises(UnreadableSnapshot, match="found that of house after 7"):
        read(written(Root(CONFIG)), position=position)


def forged(*content: object) -> bytes:
    packed = zlib.compress(msgspec.msgpack.encode(content))
    return sha256(packed) + packed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ((3,), "format: expected 1 or 2, received 3"),
        ((1, "", "house"), "not enough values"),
        ((1, "", "house", 7, [], [99]), "IndexError"),
        ((1, "", "house", 7, [], [15]), "IndexError"),
        ((1, "", "house", 7, [["Word", ["YES"]]], [16]), "an enumeration where a class"),
        ((1, "", "house", 7, [["Leaf", {"key": "bytes", "side": "Side"}]], [16, b""]), "ValueErr"),
        ((1, "", "house", 7, [], [5, "keychain"]), "KeyError"),
        ((1, "", "house", 7, [["Leaf", ["key", "side"]]], [16]), "AttributeError"),
        ((1, "", "house", 7, [], [0, 1]), "expected a Root, found a tuple"),
        ((1, "", "house", 7, [], None), "expected a Root, found a NoneType"),
    ],
)
def test_what_was_never_written_is_refused(content: tuple[object, ...], complaint: str) -> None:
    with pytest.raises(UnreadableSnapshot, match=complaint):
        read(forged(*content))


def test_one_that_is_nested_too_deeply_is_refused() -> None:
    packed = zlib.compress(msgspec.msgpack.encode([1, "", "house", 7, []])[:-1] + b"\x91" * 9_999)
    with pytest.raises(UnreadableSnapshot, match="nested too deeply"):
        read(sha256(packed) + packed)


# Another version


def version(**changes: Any) -> type[Any]:
    """Return the class `Root` of another version of the software."""
    base: dict[str, Any] = {"config": Config, "uptime": int, "text": str | None}
    kinds = {name: kind for name, kind in (base | changes).items() if kind is not None}
    return make_dataclass(
        "Root",
        [
            (name, kind[0], field(default=kind[1])) if isinstance(kind, tuple) else (name, kind)
            for name, kind in kinds.items()
        ],
        frozen=True,
    )


OLD: Final = version()


def test_a_field_that_was_added_with_a_default_has_it() -> None:
    new = version(extra=(int, 9))
    assert read(written(OLD(CONFIG, 5, "t"), OLD), new) == new(CONFIG, 5, "t", 9)


def test_a_union_that_has_grown_is_read() -> None:
    new = version(text=str | bytes | None)
    assert read(written(OLD(CONFIG, 5, "t"), OLD), new).text == "t"


def test_a_class_reads_what_it_was_once_written_as() -> None:
    """Of a field that is gone, and of one of another type, it says itself what to make."""
    new = version(uptime=None, text=bytes, days=int)
    new.older = Older(
        {"uptime": int, "text": str | None},
        lambda config, uptime, text: new(config, text.encode(), uptime // 144),
    )
    today = new(CONFIG, b"t", 2)
    assert read(written(OLD(CONFIG, 288, "t"), OLD), new) == today
    assert read(written(today, new), new) == today
    other = version(uptime=str)
    other.older = Older({"text": int}, lambda **_: None)
    with pytest.raises(UnreadableSnapshot, match="was int, is str"):
        read(written(OLD(CONFIG, 5, "t"), OLD), other)


def test_a_class_is_read_by_the_name_that_it_had() -> None:
    new: Any = make_dataclass(
        "Renamed", [("config", Config), ("uptime", int), ("text", str | None)]
    )
    new.older = Older(name="Root")
    assert read(written(OLD(CONFIG, 5, "t"), OLD), new) == new(CONFIG, 5, "t")


@pytest.mark.parametrize(
    ("new", "complaint"),
    [
        (version(extra=int), "Root needs extra, which was unknown"),
        (version(uptime=None), "Root has no uptime any more"),
        (version(uptime=str), r"Root\.uptime: was int, is str"),
        (version(text=str), r"Root\.text: was .*None"),
        (make_dataclass("Other", [("config", Config)], frozen=True), "there is no Root any more"),
    ],
)
def test_any_other_change_is_refused_by_name_and_says_what_to_do(
    new: type[Any], complaint: str
) -> None:
    with pytest.raises(UnreadableSnapshot, match=complaint) as refused:
        read(written(OLD(CONFIG, 5, "t"), OLD), new)
    assert "was written by version 1.2.3" in str(refused.value)
    assert "go on with that version" in str(refused.value)


def test_a_member_of_an_enumeration_that_is_gone_is_refused() -> None:
    described = [["Word", ["YES", "PERHAPS"]], ["Root", {"config": "Config", "word": "Word"}]]
    with pytest.raises(UnreadableSnapshot, match="Word has no PERHAPS any more"):
        read(forged(1, "", "house", 7, described, [17, [5, "config"], [4, 0, 0]]))


@pytest.mark.parametrize(
    ("now", "before", "does"),
    [
        (int | None, int, True),
        (int, int | None, False),
        (tuple[int | str, ...], tuple[int, ...], True),
        (tuple[int, ...], tuple[int, int], False),
        (Mapping[str, int], dict[str, int], True),
        (Map[str, int], dict[str, int], False),
        (Map[str, None], Map[str, None], True),
        (frozenset[int], tuple[int], False),
    ],
)
def test_a_type_takes_what_the_one_before_it_held(now: Any, before: Any, does: bool) -> None:  # noqa: FBT001 - a table
    assert accepts(shape_of(now), shape_of(before)) is does


# What roles are made of


@pytest.mark.parametrize("root", [House, Scan, Factory, ClientState])
def test_every_value_of_a_role_can_be_written(root: type[Any]) -> None:
    classes, enums = classes_of(root)
    assert root.__name__ in classes
    assert ("Party" in enums) == (root in {Factory, ClientState})
    assert "Keychain" not in classes
    assert "SecNonce" not in classes


def test_two_classes_of_one_name_are_noticed() -> None:
    class Leaf:
        """Another."""

    both = make_dataclass("Both", [("one", Root), ("other", Leaf)], frozen=True)
    with pytest.raises(TypeError, match=r"Leaf"):
        classes_of(both)


def test_a_role_in_the_middle_of_a_ceremony_is_read_as_it_was() -> None:
    pump = Pump(2)
    n_compared = 0

    def compare() -> bool:
        nonlocal n_compared
        lsp: LspState = pump.lsp.state
        values = [lsp.house, lsp.scan, *lsp.factories.values(), pump.clients[0].state]
        for value in values:
            config = value.config if hasattr(value, "config") else lsp.config
            snapshots: Snapshots[Any] = Snapshots(type(value), references_of(config))
            data = snapshots.encode(value, HERE, written_by="")
            assert same(snapshots.decode(data, HERE), value)
            n_compared += 1
        return False

    pump.join()
    pump.build()
    pump.run(until=compare)
    assert n_compared > 20
