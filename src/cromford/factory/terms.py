"""Everything that is agreed before a factory is built, checked, encoded and hashed.

The hash of the terms is echoed in every message of the ceremony, so two participants with
different terms notice before anything is signed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, P2TR_DUST_SAT, fee_sat_of, keypath_tx_vsize
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX, check_expiry_height
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX, decode_tlv_stream, encode_tlv_stream
from cromford.crypto.keys import TaggedHash
from cromford.factory.kinds import InnerLevels, VertexKind, exit_blocks_of, exit_delay_blocks_of
from cromford.factory.odometer import Odometer

N_CLIENTS_MAX: Final = 1024
N_INNER_LEVELS_MAX: Final = 16
N_CANDIDATES_MAX: Final = 16
LOOK_ON_CHAIN_BLOCKS: Final = 6  # What each transaction of a path has to confirm in.
SAFETY_BLOCKS: Final = 144  # One day between the last moment of an exit and the expiry.
HASH_SIZE: Final = 32
TERMS_TAG: Final = "cromford/terms"

_hash_terms: Final = TaggedHash(TERMS_TAG)


class FeePolicy(IntEnum):
    """How tree transactions pay. A transaction with a dust output must pay exactly zero."""

    ENDOGENOUS = 0  # each pays its own fee, and carries an anchor above dust
    EPHEMERAL = 1  # zero fee, a zero-value anchor, always published with a paying child

    @property
    def label(self) -> str:
        """The name people and exports use."""
        return self.name.lower()


class InvalidTerms(ValueError):
    """Terms that no factory can have, whoever proposes them."""

    def __init__(self, field: str, expected: str, received: object) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


@dataclass(frozen=True, kw_only=True)
class GeneralTerms:
    """What of the agreement is the same for every client. Heights and delays in blocks.

    What is only of a channel (dust limit, HTLCs) is within the channel's own limits, checked where
    channels are made.

    `inner_arities` and `inner_kinds` are of each level above the leaves, the root first. Where
    every level is `dw` no kinds are said, so that one tree has one hash.
    """

    attempt_id: bytes
    network: bytes
    build_height: int
    expiry_height: int
    active_blocks: int
    dying_blocks: int
    ready_min_blocks: int
    step_blocks: int
    states_per_layer: int
    leaf_arity: int
    inner_arities: tuple[int, ...]
    max_exit_delay_blocks: int
    max_cltv_blocks: int
    patience_blocks: int
    fee_policy: FeePolicy
    tree_feerate_sat_per_kw: int
    lstock_csv_blocks: int
    min_depth: int
    candidates: int
    to_self_delay_lsp: int
    to_self_delay_client: int
    dust_limit_sat: int
    max_accepted_htlcs: int
    max_in_flight_msat: int
    inner_kinds: tuple[VertexKind, ...] = ()

    @property
    def inner_levels(self) -> InnerLevels:
        """The levels above the leaves, each with its kind."""
        kinds = self.inner_kinds or (VertexKind.DW,) * len(self.inner_arities)
        return InnerLevels(arities=self.inner_arities, kinds=kinds)

    @property
    def odometer(self) -> Odometer:
        """The delays of its state nodes."""
        return Odometer(states_per_layer=self.states_per_layer, step_blocks=self.step_blocks)

    @property
    def anchor_sat(self) -> int:
        """The amount of every tree transaction's anchor."""
        return ANCHOR_DUST_SAT if self.fee_policy is FeePolicy.ENDOGENOUS else 0

    def fee_sat(self, *, n_p2tr_outputs: int) -> int:
        """Return the fee of a tree transaction with these outputs and one anchor."""
        return fee_sat_of(
            vsize=keypath_tx_vsize(n_p2tr_outputs=n_p2tr_outputs, n_anchors=1),
            feerate_sat_per_kw=self.tree_feerate_sat_per_kw,
        )

    def exit_delay_blocks(self, kinds: Sequence[VertexKind]) -> int:
        """Return the sum of the largest state delays on a path through vertices of these kinds."""
        return exit_delay_blocks_of(kinds, delay_max_blocks=self.odometer.delay_max_blocks)

    def exit_blocks(self, kinds: Sequence[VertexKind]) -> int:
        """Return how long an exit through such a path may take, the commitment included."""
        return exit_blocks_of(kinds, delay_max_blocks=self.odometer.delay_max_blocks)

    def exit_deadline_height(self, kinds: Sequence[VertexKind]) -> int:
        """Return the height from which an exit may no longer finish before the expiry."""
        return self.expiry_height - self.exit_blocks(kinds) - SAFETY_BLOCKS

    def expiry_height_min(self, kinds: Sequence[VertexKind]) -> int:
        """Return the least expiry that leaves room to live, to move out and to exit."""
        return (
            self.build_height
            + self.active_blocks
            + self.dying_blocks
            + self.exit_blocks(kinds)
            + SAFETY_BLOCKS
        )

    @property
    def patience_end_height(self) -> int:
        """From where on a funding that is not confirmed is waited for no longer."""
        return self.build_height + self.patience_blocks

    def ready_height_max(self, kinds: Sequence[VertexKind]) -> int:
        """Return the last funding confirmation height at which the factory is worth using."""
        return (
            self.expiry_height
            - self.ready_min_blocks
            - self.dying_blocks
            - self.exit_blocks(kinds)
            - SAFETY_BLOCKS
        )

    @property
    def look_blocks(self) -> int:
        """How often a client must see the chain at least: half a step, or it may lose a race.

        While transactions of its path are in sight, every `LOOK_ON_CHAIN_BLOCKS`.
        """
        return max(1, self.step_blocks // 2)


@dataclass(frozen=True, kw_only=True)
class BranchTerms(GeneralTerms):
    """What a client keeps of the agreement: all but what is of one client, or one leaf, each.

    Those amounts of them that concern it are in the transactions of its branch.
    """

    n_clients: int

    def encode(self) -> bytes:
        """Return the TLV stream of all but the number of clients, as `FactoryTerms` has it."""
        return _encoded(self, [name for name in TLV_TYPES if name not in _OF_EACH])


@dataclass(frozen=True, kw_only=True)
class FactoryTerms(GeneralTerms):
    """The agreement. Amounts in sat, lists in placement order."""

    capacity_sat: tuple[int, ...]
    lstock_sat: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_encodable(self)
        _check_numbers(self)
        _check_delays(self)
        _check_amounts(self)

    @property
    def n_clients(self) -> int:
        """How many clients the factory has."""
        return len(self.capacity_sat)

    @cached_property
    def of_branch(self) -> BranchTerms:
        """What a client keeps of them."""
        common = {field.name: getattr(self, field.name) for field in fields(GeneralTerms)}
        return BranchTerms(**common, n_clients=self.n_clients)

    def encode(self) -> bytes:
        """Return the TLV stream of the terms."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return _encoded(self, TLV_TYPES)

    @cached_property
    def terms_hash(self) -> bytes:
        """The tagged hash of the encoding."""
        return _hash_terms(self.encode())


_BYTES_FIELDS: Final = ("attempt_id", "network")
_LIST_FIELDS: Final = ("inner_arities", "capacity_sat", "lstock_sat")
_KINDS: Final = "inner_kinds"
_OF_EACH: Final = ("capacity_sat", "lstock_sat")  # One number for each client, or for each leaf.
_NAMES: Final = (
    *(field.name for field in fields(GeneralTerms) if field.name != _KINDS),
    *_OF_EACH,
    _KINDS,
)
TLV_TYPES: Final[Mapping[str, int]] = MappingProxyType(
    {name: 2 * place for place, name in enumerate(_NAMES)}
)


def _encoded(terms: GeneralTerms, names: Iterable[str]) -> bytes:
    return encode_tlv_stream(
        (TLV_TYPES[name], _encode_value(getattr(terms, name)))
        for name in names
        if name != _KINDS or terms.inner_kinds
    )


def decode_terms(data: bytes) -> FactoryTerms:
    """Return the terms of a TLV stream.

    Raises:
        MalformedBytes: If it is no such stream, or a field is missing.
        InvalidTerms: If no factory can have these terms.
    """
    return FactoryTerms(**_decoded(data, TLV_TYPES))


def decode_branch_terms(data: bytes, *, n_clients: int) -> BranchTerms:
    """Return what a client kept of terms that were checked once.

    Raises:
        MalformedBytes: If it is no such stream, or a field is missing.
        InvalidTerms: If a term is none.
    """
    names = [name for name in TLV_TYPES if name not in _OF_EACH]
    return BranchTerms(**_decoded(data, names), n_clients=n_clients)


def _decoded(data: bytes, names: Iterable[str]) -> dict[str, Any]:
    """Return the terms of these names, all that a TLV stream has."""
    known = {TLV_TYPES[name]: name for name in names}
    values = decode_tlv_stream(data, known=known)
    missing = [
        name for tlv_type, name in known.items() if tlv_type not in values and name != _KINDS
    ]
    if missing:
        raise MalformedBytes(f"terms without {', '.join(missing)}")
    decoded: dict[str, Any] = {}
    for tlv_type, name in known.items():
        value = values.get(tlv_type)
        if name == _KINDS:
            decoded[name] = () if value is None else _decode_kinds(value)
        elif value is None:
            raise AssertionError(name)
        elif name in _BYTES_FIELDS:
            decoded[name] = value
        elif name in _LIST_FIELDS:
            decoded[name] = _decode_list(name, value)
        else:
            decoded[name] = _decode_u64(name, value)
    try:
        decoded["fee_policy"] = FeePolicy(decoded["fee_policy"])
    except ValueError:
        raise InvalidTerms("fee_policy", "0 or 1", decoded["fee_policy"]) from None
    return decoded


def _encode_value(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case int():
            return value.to_bytes(8, "big")
        case tuple():
            return b"".join(item.to_bytes(8, "big") for item in value)
        case _:
            raise AssertionError(value)


def _decode_u64(name: str, value: bytes) -> int:
    if len(value) != 8:
        raise MalformedBytes(f"{name}: expected 8 bytes, received {len(value)}")
    return int.from_bytes(value, "big")


def _decode_list(name: str, value: bytes) -> tuple[int, ...]:
    if len(value) % 8 or len(value) > 8 * N_CLIENTS_MAX:
        raise MalformedBytes(
            f"{name}: expected at most {N_CLIENTS_MAX} integers of 8 bytes, "
            f"received {len(value)} bytes"
        )
    return tuple(int.from_bytes(value[i : i + 8], "big") for i in range(0, len(value), 8))


def _decode_kinds(value: bytes) -> tuple[VertexKind, ...]:
    numbers = _decode_list(_KINDS, value)
    for number in numbers:
        _check_between(_KINDS, number, min(VertexKind), max(VertexKind))
    _check_kinds_are_said_once(numbers)
    return tuple(map(VertexKind, numbers))


def _check_kinds_are_said_once(kinds: Sequence[int]) -> None:
    if VertexKind.STATIC not in kinds:
        labels = [VertexKind(kind).label for kind in kinds]
        raise InvalidTerms(_KINDS, "none at all where every level is dw", labels)


def _check_encodable(terms: FactoryTerms) -> None:
    for name in _BYTES_FIELDS:
        if len(getattr(terms, name)) != HASH_SIZE:
            raise InvalidTerms(name, f"{HASH_SIZE} bytes", f"{len(getattr(terms, name))} bytes")
    for name in _NAMES:
        value = getattr(terms, name)
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, int) and not 0 <= number <= U64_MAX:
                raise InvalidTerms(name, "an unsigned 64-bit integer", number)


def _check_between(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidTerms(field, f"{low}..{high}", value)


def check_levels(inner: InnerLevels) -> None:
    """Check the levels above the leaves.

    Raises:
        InvalidTerms: If there are too many, one is too narrow or too wide, or has no kind.
    """
    if len(inner.arities) > N_INNER_LEVELS_MAX:
        raise InvalidTerms(
            "inner_arities", f"at most {N_INNER_LEVELS_MAX} levels", len(inner.arities)
        )
    for arity in inner.arities:
        _check_between("inner_arities", arity, 2, N_CLIENTS_MAX)
    if len(inner.kinds) != len(inner.arities):
        raise InvalidTerms(
            _KINDS,
            f"as many as inner_arities, {len(inner.arities)}",
            f"{len(inner.kinds)}: {[kind.label for kind in inner.kinds]}",
        )


def _check_numbers(terms: FactoryTerms) -> None:
    _check_between("clients", terms.n_clients, 1, N_CLIENTS_MAX)
    _check_between("leaf_arity", terms.leaf_arity, 1, N_CLIENTS_MAX)
    if terms.inner_kinds:
        _check_kinds_are_said_once(terms.inner_kinds)
    check_levels(terms.inner_levels)
    _check_between("candidates", terms.candidates, 1, N_CANDIDATES_MAX)
    if terms.active_blocks < terms.ready_min_blocks:
        # Confirmed in the first block, it would already be too late for channel_ready.
        raise InvalidTerms(
            "active_blocks",
            f"at least ready_min_blocks ({terms.ready_min_blocks})",
            terms.active_blocks,
        )
    _check_between("min_depth", terms.min_depth, 1, SAFETY_BLOCKS)
    try:
        check_expiry_height(terms.expiry_height)
    except ValueError as error:
        raise InvalidTerms("expiry_height", "a block height", terms.expiry_height) from error
    if terms.fee_policy is FeePolicy.ENDOGENOUS and terms.tree_feerate_sat_per_kw == 0:
        raise InvalidTerms("tree_feerate_sat_per_kw", "above 0 (endogenous)", 0)
    if terms.fee_policy is FeePolicy.EPHEMERAL and terms.tree_feerate_sat_per_kw != 0:
        raise InvalidTerms(
            "tree_feerate_sat_per_kw", "0 (ephemeral)", terms.tree_feerate_sat_per_kw
        )


def _check_delays(terms: FactoryTerms) -> None:
    try:
        _ = terms.odometer
    except ValueError as error:
        received = f"{terms.states_per_layer} x {terms.step_blocks}"
        raise InvalidTerms("states_per_layer, step_blocks", str(error), received) from error
    # A participant must see the chain every half step; a delay that protects it and is
    # shorter than a step could pass unseen.
    for name in ("lstock_csv_blocks", "to_self_delay_lsp", "to_self_delay_client"):
        delay = getattr(terms, name)
        if not terms.step_blocks <= delay <= DELAY_BLOCKS_MAX:
            raise InvalidTerms(name, f"{terms.step_blocks}..{DELAY_BLOCKS_MAX} blocks", delay)


def _check_amounts(terms: FactoryTerms) -> None:
    for capacity_sat in terms.capacity_sat:
        _check_between("capacity_sat", capacity_sat, P2TR_DUST_SAT, MAX_MONEY_SAT)
    for lstock_sat in terms.lstock_sat:
        if lstock_sat and not P2TR_DUST_SAT <= lstock_sat <= MAX_MONEY_SAT:
            raise InvalidTerms("lstock_sat", f"0 or at least {P2TR_DUST_SAT}", lstock_sat)
    if sum(terms.capacity_sat) + sum(terms.lstock_sat) > MAX_MONEY_SAT:
        raise InvalidTerms("capacity_sat", f"{MAX_MONEY_SAT} sat in all", "more")
