"""The agreement: its bytes, its hash, its numbers, and what no factory can have."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import DW, STATIC, dw

from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import decode_tlv_stream, encode_tlv_stream
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import FactoryTerms, FeePolicy, InvalidTerms, decode_terms

TERMS = oracle.terms_of([50_000, 60_000, 70_000], [10_000, 0], inner_arities=[2])
DEEP = oracle.terms_of([50_000] * 5, [10_000, 0, 0], inner_arities=[2, 2])
# PROTOCOL, section 7.1: the place in this list, doubled, is the TLV type.
FIELDS = [
    "attempt_id",
    "network",
    "build_height",
    "expiry_height",
    "active_blocks",
    "dying_blocks",
    "ready_min_blocks",
    "step_blocks",
    "states_per_layer",
    "leaf_arity",
    "inner_arities",
    "max_exit_delay_blocks",
    "max_cltv_blocks",
    "patience_blocks",
    "fee_policy",
    "tree_feerate_sat_per_kw",
    "lstock_csv_blocks",
    "min_depth",
    "candidates",
    "to_self_delay_lsp",
    "to_self_delay_client",
    "dust_limit_sat",
    "max_accepted_htlcs",
    "max_in_flight_msat",
    "capacity_sat",
    "lstock_sat",
]


def stream_of(terms: FactoryTerms) -> dict[int, bytes]:
    return decode_tlv_stream(terms.encode(), known=dict.fromkeys(range(0, 54, 2), "known"))


@settings(max_examples=50)
@given(terms=oracle.random_terms(60))
def test_terms_read_back_and_have_one_encoding(terms: FactoryTerms) -> None:
    encoded = terms.encode()
    again = decode_terms(encoded)
    assert again == terms
    assert again.encode() == encoded
    assert again.terms_hash == terms.terms_hash
    assert type(again.fee_policy) is FeePolicy


def test_the_encoding_is_the_list_of_section_7_1() -> None:
    stream = stream_of(TERMS)
    assert list(stream) == [2 * place for place in range(len(FIELDS))]
    for place, name in enumerate(FIELDS):
        value = getattr(TERMS, name)
        match value:
            case bytes():
                expected = value
            case tuple():
                expected = b"".join(number.to_bytes(8, "big") for number in value)
            case _:
                expected = int(value).to_bytes(8, "big")
        assert stream[2 * place] == expected, name


def test_the_hash_is_tagged_and_of_every_byte() -> None:
    tag = hashlib.sha256(b"cromford/terms").digest()
    assert TERMS.terms_hash == hashlib.sha256(tag + tag + TERMS.encode()).digest()


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "fee_policy"])
def test_a_change_of_any_one_field_changes_the_hash(name: str) -> None:
    value = getattr(TERMS, name)
    changed: Any
    match value:
        case bytes():
            changed = value[:-1] + bytes((value[-1] ^ 1,))
        case tuple():
            changed = (*value[:-1], value[-1] + 330)
        case _:
            changed = value - 1 if name == "step_blocks" else value + 1
    assert oracle.with_field(TERMS, **{name: changed}).terms_hash != TERMS.terms_hash


def test_the_two_policies_have_two_hashes() -> None:
    ephemeral = oracle.with_field(TERMS, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)
    assert ephemeral.terms_hash != TERMS.terms_hash
    assert [policy.label for policy in FeePolicy] == ["endogenous", "ephemeral"]


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "delay", "blocks"),
    [
        ((DW,), 432, 450),
        ((DW, DW), 864, 894),
        ((DW, DW, DW), 1296, 1338),
        ((STATIC, DW), 432, 456),
        ((STATIC, STATIC, DW), 432, 462),
        ((STATIC, DW, STATIC, DW), 864, 906),
    ],
)
def test_an_exit_takes_what_section_6_says(
    kinds: tuple[VertexKind, ...], delay: int, blocks: int
) -> None:
    assert TERMS.exit_delay_blocks(kinds) == delay
    assert TERMS.exit_blocks(kinds) == blocks
    assert TERMS.exit_deadline_height(kinds) == TERMS.expiry_height - blocks - 144
    assert TERMS.expiry_height_min(kinds) == TERMS.build_height + 4320 + 432 + blocks + 144
    ready_max = TERMS.expiry_height - (2016 + 432 + blocks + 144)
    assert TERMS.ready_height_max(kinds) == ready_max


@given(
    terms=oracle.random_terms(12),
    kinds=st.lists(st.sampled_from(VertexKind), min_size=1, max_size=12),
)
def test_every_margin_follows_from_the_terms(terms: FactoryTerms, kinds: list[VertexKind]) -> None:
    longest = terms.step_blocks * (terms.states_per_layer - 1)
    exit_blocks = kinds.count(DW) * (longest + 12) + 6 * kinds.count(STATIC) + 6
    assert terms.odometer.delay_max_blocks == longest
    assert terms.exit_blocks(kinds) == exit_blocks
    deadline = terms.exit_deadline_height(kinds)
    assert deadline + exit_blocks + 144 == terms.expiry_height
    assert terms.expiry_height_min(kinds) - terms.build_height == 4896 + exit_blocks
    assert terms.ready_height_max(kinds) + 2016 + 432 == deadline
    assert terms.n_clients == len(terms.capacity_sat)


@pytest.mark.parametrize(
    ("step_blocks", "look_blocks"), [(1, 1), (2, 1), (3, 1), (4, 2), (144, 72), (145, 72)]
)
def test_the_chain_is_looked_at_every_half_step(step_blocks: int, look_blocks: int) -> None:
    assert oracle.terms_of([50_000], [0], step_blocks=step_blocks).look_blocks == look_blocks


def test_patience_is_counted_from_when_it_was_built() -> None:
    assert TERMS.patience_end_height == TERMS.build_height + TERMS.patience_blocks


def test_a_fee_covers_outputs_and_anchor() -> None:
    assert [TERMS.fee_sat(n_p2tr_outputs=n) for n in (1, 2, 3)] == [248, 334, 420]
    odd = oracle.with_field(TERMS, tree_feerate_sat_per_kw=253)
    assert odd.fee_sat(n_p2tr_outputs=1) == 126, "125.488 rounded up"
    assert TERMS.anchor_sat == 240


# --- what no factory can have -----------------------------------------------------------------

REFUSED: list[tuple[str, Any]] = [
    ("attempt_id", b"\x11" * 31),
    ("attempt_id", b"\x11" * 33),
    ("network", b""),
    ("expiry_height", 0),
    ("expiry_height", 500_000_000),
    ("expiry_height", 2**64),
    ("build_height", -1),
    ("active_blocks", 2**64),
    ("max_in_flight_msat", -1),
    ("step_blocks", 0),
    ("step_blocks", 21_846),
    ("states_per_layer", 1),
    ("states_per_layer", 0),
    ("states_per_layer", 1_000),
    ("leaf_arity", 0),
    ("leaf_arity", 1_025),
    ("inner_arities", (1,)),
    ("inner_arities", (2, 0)),
    ("inner_arities", (1_025,)),
    ("inner_arities", (2,) * 17),
    ("tree_feerate_sat_per_kw", 0),
    ("lstock_csv_blocks", 143),
    ("lstock_csv_blocks", 65_536),
    ("min_depth", 0),
    ("min_depth", 145),
    ("candidates", 0),
    ("candidates", 17),
    ("to_self_delay_lsp", 143),
    ("to_self_delay_lsp", 65_536),
    ("to_self_delay_client", 143),
    ("to_self_delay_client", 65_536),
    ("capacity_sat", (50_000, 329)),
    ("capacity_sat", (21_000_001 * 100_000_000,)),
    ("capacity_sat", (11_000_000 * 100_000_000,) * 2),
    ("capacity_sat", (50_000, 2**64)),
    ("lstock_sat", (1,)),
    ("lstock_sat", (329,)),
    ("lstock_sat", (21_000_001 * 100_000_000,)),
    ("lstock_sat", (-330,)),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_field_out_of_range_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidTerms) as refused:
        oracle.with_field(TERMS, **{name: value})
    assert name in refused.value.field
    assert refused.value.expected in str(refused.value)
    assert str(refused.value.received) in str(refused.value)


@pytest.mark.parametrize("n_clients", [0, 1_025])
def test_a_factory_has_1_to_1024_clients(n_clients: int) -> None:
    with pytest.raises(InvalidTerms, match=f"clients: expected 1..1024, received {n_clients}"):
        oracle.with_field(TERMS, capacity_sat=(50_000,) * n_clients)
    most = oracle.with_field(TERMS, capacity_sat=(50_000,) * 1024)
    assert decode_terms(most.encode()) == most


def test_an_ephemeral_tree_pays_exactly_nothing() -> None:
    with pytest.raises(InvalidTerms, match=r"expected 0 \(ephemeral\), received 500"):
        oracle.with_field(TERMS, fee_policy=FeePolicy.EPHEMERAL)


@given(terms=oracle.random_terms(12), delay=st.integers(0, 70_000))
def test_no_protecting_delay_is_shorter_than_a_step(terms: FactoryTerms, delay: int) -> None:
    for name in ("lstock_csv_blocks", "to_self_delay_lsp", "to_self_delay_client"):
        if terms.step_blocks <= delay <= 65_535:
            assert getattr(oracle.with_field(terms, **{name: delay}), name) == delay
        else:
            with pytest.raises(InvalidTerms, match=name):
                oracle.with_field(terms, **{name: delay})


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(FIELDS)), ids=FIELDS)
def test_a_missing_field_is_malformed_and_named(place: int) -> None:
    stream = stream_of(TERMS)
    del stream[2 * place]
    with pytest.raises(MalformedBytes, match=f"terms without {FIELDS[place]}$"):
        decode_terms(encode_tlv_stream(stream.items()))


@pytest.mark.parametrize("length_bytes", [0, 1, 7, 9, 16])
@pytest.mark.parametrize("name", ["build_height", "fee_policy", "max_in_flight_msat"])
def test_a_number_of_other_than_eight_bytes_is_malformed(name: str, length_bytes: int) -> None:
    stream = stream_of(TERMS)
    stream[2 * FIELDS.index(name)] = bytes(length_bytes)
    with pytest.raises(MalformedBytes, match=f"{name}: expected 8 bytes, received {length_bytes}"):
        decode_terms(encode_tlv_stream(stream.items()))


@pytest.mark.parametrize("length_bytes", [1, 7, 9, 8 * 1025, 8 * 100_000])
@pytest.mark.parametrize("name", ["inner_arities", "capacity_sat", "lstock_sat"])
def test_a_list_of_crooked_or_too_many_numbers_is_malformed(name: str, length_bytes: int) -> None:
    stream = stream_of(TERMS)
    stream[2 * FIELDS.index(name)] = bytes(length_bytes)
    with pytest.raises(MalformedBytes, match=f"{name}: .* received {length_bytes} bytes"):
        decode_terms(encode_tlv_stream(stream.items()))


@pytest.mark.parametrize("policy", [2, 255, 2**64 - 1])
def test_a_policy_in_between_does_not_exist(policy: int) -> None:
    stream = stream_of(TERMS)
    stream[2 * FIELDS.index("fee_policy")] = policy.to_bytes(8, "big")
    with pytest.raises(InvalidTerms, match=f"fee_policy: expected 0 or 1, received {policy}"):
        decode_terms(encode_tlv_stream(stream.items()))


def u64s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)


def test_kinds_stand_in_field_52_only_where_a_level_is_static() -> None:
    assert 52 not in stream_of(TERMS)
    assert decode_terms(TERMS.encode()).inner_levels == dw([2])
    mixed = oracle.with_field(DEEP, inner_kinds=(STATIC, DW))
    assert stream_of(mixed)[52] == u64s(1, 0)
    again = decode_terms(mixed.encode())
    assert again.inner_levels == InnerLevels(arities=(2, 2), kinds=(STATIC, DW))
    assert again.encode() == mixed.encode()
    assert mixed.terms_hash != DEEP.terms_hash


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (b"", r"none at all where every level is dw, received \[\]"),
        (u64s(0, 0), "none at all where every level is dw"),
        (u64s(1), "as many as inner_arities, 2, received 1"),
        (u64s(1, 0, 0), "as many as inner_arities, 2, received 3"),
        (u64s(1, 2), r"0\.\.1, received 2"),
        (u64s(2**64 - 1, 1), r"0\.\.1, received 18446744073709551615"),
    ],
)
def test_kinds_that_say_nothing_or_too_little_or_are_unknown_are_refused(
    value: bytes, refusal: str
) -> None:
    with pytest.raises(InvalidTerms, match=f"inner_kinds: expected {refusal}"):
        decode_terms(encode_tlv_stream([*stream_of(DEEP).items(), (52, value)]))


def test_kinds_without_arities_are_refused() -> None:
    flat = oracle.terms_of([50_000, 60_000], [10_000])
    with pytest.raises(InvalidTerms, match="inner_kinds: expected as many as inner_arities, 0"):
        oracle.with_field(flat, inner_kinds=(STATIC,))


def test_an_unknown_even_field_is_refused_and_an_odd_one_is_not_part_of_the_terms() -> None:
    with pytest.raises(MalformedBytes, match="unknown even"):
        decode_terms(encode_tlv_stream([*stream_of(TERMS).items(), (54, b"")]))
    longer = encode_tlv_stream([*stream_of(TERMS).items(), (53, b"x")])
    assert decode_terms(longer) == TERMS
    assert decode_terms(longer).encode() != longer


@given(data=st.binary(max_size=200))
def test_any_bytes_are_terms_or_refused(data: bytes) -> None:
    with pytest.raises((MalformedBytes, InvalidTerms)):
        decode_terms(data)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_terms_are_terms_or_refused(data: st.DataObject) -> None:
    raw = bytearray(TERMS.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                raw[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[position : position + data.draw(st.integers(1, 9))]
            case _:
                raw[position:position] = data.draw(st.binary(min_size=1, max_size=9))
    try:
        terms = decode_terms(bytes(raw))
    except (MalformedBytes, InvalidTerms):
        return
    assert decode_terms(terms.encode()) == terms
    assert (terms.terms_hash == TERMS.terms_hash) == (terms == TERMS)
