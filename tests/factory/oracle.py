"""The tree once more, from PROTOCOL's words: written apart from the code it checks.

Shares nothing with `cromford.factory`. Scripts come from wallycore and plain curve arithmetic,
shapes and amounts from a second reading of the rules. Strategies for terms are here too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import wallycore
from btclib.script import script as btclib_script
from btclib_secp256k1 import keys as secp256k1
from hypothesis import strategies as st

from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FactoryTerms, FeePolicy

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
N_CLIENTS_MAX: Final = 200
ANCHOR: Final = bytes.fromhex("51024e73")
REGTEST: Final = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")


# --- keys -------------------------------------------------------------------------------------


@cache
def seckey(job: str, index: int) -> bytes:
    """Return a test seckey; every job and index has its own."""
    return bytes(wallycore.sha256(f"test {job} {index}".encode()))


@cache
def pubkey(job: str, index: int) -> bytes:
    return bytes(wallycore.ec_public_key_from_private_key(seckey(job, index)))


def factory_pubkeys(n_clients: int) -> list[bytes]:
    return [pubkey("factory", index) for index in range(n_clients + 1)]


# --- scripts ----------------------------------------------------------------------------------


def tagged(tag: str, data: bytes) -> bytes:
    return bytes(wallycore.bip340_tagged_hash(data, tag))


@cache
def aggregate(pubkeys: tuple[bytes, ...]) -> bytes:
    """BIP 327's KeyAgg of the sorted keys, as a sum of products."""
    ordered = sorted(pubkeys)
    list_hash = tagged("KeyAgg list", b"".join(ordered))
    second = next((key for key in ordered if key != ordered[0]), None)
    terms = []
    for key in ordered:
        if key == second:
            terms.append(key)
        else:
            hashed = int.from_bytes(tagged("KeyAgg coefficient", list_hash + key), "big")
            terms.append(secp256k1.pubkey_tweak_mul(key, hashed % ORDER))
    total = terms[0] if len(terms) == 1 else secp256k1.pubkey_combine(terms)
    return bytes(total)[1:]


def output_script(pubkeys: Sequence[bytes], tapscript: bytes | None) -> bytes:
    """The taproot script of a MuSig2 internal key and at most one tapleaf."""
    root = None
    if tapscript is not None:
        size = bytes((len(tapscript),))
        root = tagged("TapLeaf", b"\xc0" + size + tapscript)
    internal = b"\x02" + aggregate(tuple(pubkeys))
    tweaked = bytes(wallycore.ec_public_key_bip341_tweak(internal, root, 0))
    return b"\x51\x20" + tweaked[1:]


def timelock_tapscript(key: bytes, number: int, opcode: str) -> bytes:
    value: int | str = btclib_script.op_int(number) if number <= 16 else number
    return btclib_script.serialize([key[1:], "OP_CHECKSIGVERIFY", value, opcode])


def script_of_descriptor(descriptor: str) -> bytes:
    """Derive a script from the few descriptors a factory has, as foreign software would."""
    body = descriptor.partition("#")[0]
    if raw := re.fullmatch(r"raw\(([0-9a-f]+)\)", body):
        return bytes.fromhex(raw[1])
    parsed = re.fullmatch(
        r"tr\(musig\(([0-9a-f,]+)\)(?:,and_v\(v:pk\(([0-9a-f]{64})\),(after|older)\((\d+)\)\))?\)",
        body,
    )
    assert parsed, body
    tapscript = None
    if parsed[2]:
        opcode = {"after": "OP_CHECKLOCKTIMEVERIFY", "older": "OP_CHECKSEQUENCEVERIFY"}[parsed[3]]
        tapscript = timelock_tapscript(b"\x02" + bytes.fromhex(parsed[2]), int(parsed[4]), opcode)
    return output_script([bytes.fromhex(key) for key in parsed[1].split(",")], tapscript)


# --- shape and amounts ------------------------------------------------------------------------


@dataclass(frozen=True)
class Spot:
    """A vertex: where it is, who is below it, what is below it."""

    path: tuple[int, ...]
    clients: tuple[int, ...]
    below: tuple["Spot", ...]
    is_static: bool = False

    @property
    def name(self) -> str:
        return "_".join(str(step) for step in self.path) if self.path else "root"

    @property
    def depth(self) -> int:
        return 1 + max([spot.depth for spot in self.below], default=0)

    @property
    def waits(self) -> int:
        """How many delays there are on the longest way down."""
        return (not self.is_static) + max([spot.waits for spot in self.below], default=0)

    @property
    def published(self) -> int:
        """How many transactions there are on the longest way down."""
        mine = 1 if self.is_static else 2
        return mine + max([spot.published for spot in self.below], default=0)

    def depth_first(self) -> Iterator["Spot"]:
        yield self
        for spot in self.below:
            yield from spot.depth_first()

    def leaves(self) -> list["Spot"]:
        return [spot for spot in self.depth_first() if not spot.below]


def split(
    clients: Sequence[int],
    leaf_arity: int,
    arities: Sequence[int],
    kinds: Sequence[str] = (),
    path: tuple[int, ...] = (),
) -> Spot:
    """Split clients; `kinds` may be left out where all are dw."""
    n = len(clients)
    if n <= leaf_arity:
        return Spot(path, tuple(clients), ())
    n_parts = min(arities[len(path)], (n + leaf_arity - 1) // leaf_arity)
    sizes = [n // n_parts + (1 if part < n % n_parts else 0) for part in range(n_parts)]
    below, start = [], 0
    for part, size in enumerate(sizes):
        mine = clients[start : start + size]
        below.append(split(mine, leaf_arity, arities, kinds, (*path, part)))
        start += size
    is_static = bool(kinds) and kinds[len(path)] == "static"
    return Spot(path, tuple(clients), tuple(below), is_static)


def spot_of(terms: FactoryTerms) -> Spot:
    clients = range(1, len(terms.capacity_sat) + 1)
    kinds = ["static" if number == 1 else "dw" for number in terms.inner_kinds]
    return split(list(clients), terms.leaf_arity, terms.inner_arities, kinds)


def arities_for(n_clients: int, leaf_arity: int, drawn: Sequence[int]) -> tuple[int, ...]:
    """Return as many of the drawn arities as the clients need, and 2 from there on."""
    arities: list[int] = []
    largest = n_clients
    while largest > leaf_arity:
        arity = drawn[len(arities)] if len(arities) < len(drawn) else 2
        arities.append(arity)
        n_parts = min(arity, (largest + leaf_arity - 1) // leaf_arity)
        largest = (largest + n_parts - 1) // n_parts
    return tuple(arities)


# --- terms ------------------------------------------------------------------------------------


def terms_of(
    capacity_sat: Sequence[int],
    lstock_sat: Sequence[int],
    *,
    leaf_arity: int = 2,
    inner_arities: Sequence[int] = (),
    inner_kinds: Sequence[str] = (),
    states_per_layer: int = 4,
    step_blocks: int = 144,
    fee_policy: FeePolicy = FeePolicy.ENDOGENOUS,
    feerate: int = 500,
    build_height: int = 100,
    expiry_height: int | None = None,
    csv_blocks: int = 432,
) -> FactoryTerms:
    """Return terms with whatever a test does not care about filled in, as tight as may be."""
    n_clients = len(capacity_sat)
    root = split(list(range(n_clients)), leaf_arity, inner_arities, inner_kinds)
    exit_delay = root.waits * step_blocks * (states_per_layer - 1)
    least = build_height + 4320 + 432 + exit_delay + 6 * (root.published + 1) + 144
    said = inner_kinds if "static" in inner_kinds else ()
    return FactoryTerms(
        attempt_id=b"\x11" * 32,
        network=REGTEST,
        build_height=build_height,
        expiry_height=least if expiry_height is None else expiry_height,
        active_blocks=4320,
        dying_blocks=432,
        ready_min_blocks=2016,
        step_blocks=step_blocks,
        states_per_layer=states_per_layer,
        leaf_arity=leaf_arity,
        inner_arities=tuple(inner_arities),
        max_exit_delay_blocks=exit_delay,
        max_cltv_blocks=2964,
        patience_blocks=144,
        fee_policy=fee_policy,
        tree_feerate_sat_per_kw=feerate,
        lstock_csv_blocks=csv_blocks,
        min_depth=3,
        candidates=1,
        to_self_delay_lsp=max(step_blocks, 144),
        to_self_delay_client=max(step_blocks, 432),
        dust_limit_sat=354,
        max_accepted_htlcs=12,
        max_in_flight_msat=10_000_000,
        capacity_sat=tuple(capacity_sat),
        lstock_sat=tuple(lstock_sat),
        inner_kinds=tuple(VertexKind(int(kind == "static")) for kind in said),
    )


capacities = st.one_of(st.integers(330, 2_000), st.integers(330, 10_000_000))
lstocks = st.one_of(st.just(0), st.just(330), st.integers(330, 5_000_000))


@st.composite
def random_terms(draw: st.DrawFn, n_clients_max: int = N_CLIENTS_MAX) -> FactoryTerms:
    """Draw terms of 1 to 200 clients, any shape of both kinds, both fee policies."""
    few = min(12, n_clients_max)
    n_clients = draw(st.one_of(st.integers(1, few), st.integers(1, n_clients_max)))
    leaf_arity = draw(st.integers(1, 8))
    arities = arities_for(n_clients, leaf_arity, draw(st.lists(st.integers(2, 9), max_size=6)))
    kinds = draw(st.lists(st.sampled_from(["dw", "static"]), min_size=len(arities)))
    leaves = split(list(range(n_clients)), leaf_arity, arities).leaves()
    states_per_layer = draw(st.integers(2, 6))
    step_blocks = draw(st.integers(1, 432))
    endogenous = draw(st.booleans())
    build_height = draw(st.integers(0, 900_000))
    tight = terms_of(
        draw(st.lists(capacities, min_size=n_clients, max_size=n_clients)),
        draw(st.lists(lstocks, min_size=len(leaves), max_size=len(leaves))),
        leaf_arity=leaf_arity,
        inner_arities=arities,
        inner_kinds=kinds[: len(arities)],
        states_per_layer=states_per_layer,
        step_blocks=step_blocks,
        fee_policy=FeePolicy.ENDOGENOUS if endogenous else FeePolicy.EPHEMERAL,
        feerate=draw(st.integers(1, 25_000)) if endogenous else 0,
        build_height=build_height,
        csv_blocks=draw(st.integers(step_blocks, 0xFFFF)),
    )
    slack = draw(st.sampled_from([0, 1, 1000, 65_536]))
    return with_field(tight, expiry_height=tight.expiry_height + slack)


def with_field(terms: FactoryTerms, **changed: object) -> FactoryTerms:
    """Return other terms, checked again."""
    values = {name: getattr(terms, name) for name in FactoryTerms.__dataclass_fields__}
    return FactoryTerms(**{**values, **changed})
