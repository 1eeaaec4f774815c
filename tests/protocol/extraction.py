"""What an attacker does with everything that a client ever sent: it tries to compute its keys.

A partial signature (BIP 327, `Sign`) is s = g·(k1 + b·k2) + e·a·g'·x modulo the order, where k1, k2
and x are secret and all the rest is public. Each that was sent is one line of a system of linear
equations. A nonce that signs once brings two unknowns with its one line, so x stays free, however
many lines there are. Whoever uses a nonce again, or one whose points are those of another up to
their signs, brings lines without unknowns, and sooner or later the system gives x away.

A signer that is broken may have signed with another nonce than it was asked to: which one, the
attacker finds by verifying.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from btclib_secp256k1 import musig
from tests.crypto.integers import ORDER, Point, add, coefficient, lift, multiply, tagged
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg
from cromford.signing.task import SigningTask
from cromford.wire import messages as m

GENERATOR: Final = lift(pubkey_of((1).to_bytes(32, "big")))
INFINITY: Final = bytes(33)
EVEN: Final = 2
Row = dict[bytes, int]  # By unknown: an x-only point or a pubkey. The right side is under b"".
KNOWN: Final = b""


@dataclass(frozen=True, kw_only=True)
class SentSignature:
    """A partial signature that left its maker, and what everybody knows of its session."""

    partial_sig: bytes
    pubkey: bytes
    task: SigningTask
    aggnonce: bytes
    pubnonces: tuple[bytes, ...]  # Of that key: the one that was to sign first.


@dataclass
class Transcript:
    """All that a node sent which depends on its secrets."""

    signatures: list[SentSignature] = field(default_factory=list)

    @property
    def pubkeys(self) -> set[bytes]:
        """The keys that signed."""
        return {sent.pubkey for sent in self.signatures}


def transcript_of(pump: Pump, node: PumpNode) -> Transcript:
    """Return what a client sent in all its ceremonies, by its messages, in their order."""
    pools: dict[bytes, m.Pool] = {}
    asked: dict[bytes, list[fx.SignRequest]] = {}
    bound: dict[bytes, Sequence[fx.SignRequest]] = {}
    found = Transcript()
    for wished in pump.wished:
        if wished.node != node.name:
            continue
        effect = wished.effect
        if isinstance(effect, fx.PartialSign):
            asked[effect.attempt_id] = list(effect.requests)
            bound[effect.attempt_id] = effect.bound or bound[effect.attempt_id]
        if not isinstance(effect, fx.Send):
            continue
        match effect.message:
            case m.Join() as join:
                pools[join.factory_pool.pubkey] = join.factory_pool
                pools |= {one.pool.pubkey: one.pool for one in join.candidates}
            case m.SignBelow(attempt_id=attempt_id, candidates=(halves,)):
                # Behind them comes our half of our own commitment, which never leaves.
                sent = (*halves.partial_sigs, halves.commitment_partial_sig)
                found.signatures += _sent(sent, asked[attempt_id][: len(sent)], pools)
            case m.SignRoot(attempt_id=attempt_id, partial_sigs=sent):
                found.signatures += _sent(sent, bound[attempt_id], pools)
    return found


def _sent(
    partial_sigs: Sequence[bytes], requests: Sequence[fx.SignRequest], pools: dict[bytes, m.Pool]
) -> Iterator[SentSignature]:
    for partial_sig, request in zip(partial_sigs, requests, strict=True):
        (pubkey,) = pools.keys() & set(request.task.signers)
        nonces = pools[pubkey].pubnonces
        place = request.nonce_index
        yield SentSignature(
            partial_sig=partial_sig,
            pubkey=pubkey,
            task=request.task,
            aggnonce=request.aggnonce,
            pubnonces=(nonces[place], *nonces[:place], *nonces[place + 1 :]),
        )


# The algebra


@cache
def _keys_parity(key_agg: KeyAgg) -> int:
    """Return the sign of a signer's key in the tweaked aggregate: `g·gacc` of BIP 327."""
    untweaked = musig.KeyAggCache(key_agg.pubkeys)
    tweaked = musig.KeyAggCache(key_agg.pubkeys)
    tweaked._cache = key_agg._cache
    return 1 if untweaked.pubkey_get()[0] == tweaked.pubkey_get()[0] else -1


def row_of(sent: SentSignature) -> Row:
    """Return a partial signature as a linear equation of its secrets."""
    pubnonce = _nonce_that_signed(sent)
    key_agg, sighash = sent.task.key_agg, sent.task.sighash
    assert isinstance(key_agg, KeyAgg)
    output_key = key_agg.output_key
    b = _scalar("MuSig/noncecoef", sent.aggnonce + output_key + sighash)
    final = _final_nonce(sent.aggnonce, b)
    assert final is not None
    e = _scalar("BIP0340/challenge", final[0].to_bytes(32, "big") + output_key + sighash)
    sign = 1 if final[1] % 2 == 0 else -1
    row: Row = {KNOWN: int.from_bytes(sent.partial_sig, "big")}
    for point, factor in ((pubnonce[:33], sign), (pubnonce[33:], sign * b)):
        turned = factor if point[0] == EVEN else -factor
        row[point[1:]] = (row.get(point[1:], 0) + turned) % ORDER
    a = coefficient(key_agg.pubkeys, sent.pubkey)
    row[sent.pubkey] = e * a * _keys_parity(key_agg) % ORDER
    return row


def _nonce_that_signed(sent: SentSignature) -> bytes:
    session = sent.task.session(sent.aggnonce)
    for pubnonce in sent.pubnonces:
        if session.partial_sig_verify(
            partial_sig=sent.partial_sig, pubnonce=pubnonce, pubkey=sent.pubkey
        ):
            return pubnonce
    raise AssertionError(f"{sent.task.name}: signed with a nonce of no pool of that key")


def _scalar(tag: str, data: bytes) -> int:
    return int.from_bytes(tagged(tag, data), "big") % ORDER


def _final_nonce(aggnonce: bytes, b: int) -> Point:
    first, second = (None if one == INFINITY else lift(one) for one in _halves(aggnonce))
    return add(first, multiply(second, b)) or GENERATOR


def _halves(aggnonce: bytes) -> tuple[bytes, bytes]:
    return aggnonce[:33], aggnonce[33:]


def extracted(signatures: Sequence[SentSignature]) -> dict[bytes, bytes]:
    """Return every seckey that follows from what was sent, by its pubkey.

    All of a node's signatures are one system: a nonce that two keys share binds them together.
    """
    reduced = _reduced([row_of(sent) for sent in signatures])
    pubkeys = {sent.pubkey for sent in signatures}
    found: dict[bytes, bytes] = {}
    for row in reduced:
        unknowns = [unknown for unknown in row if unknown != KNOWN]
        if len(unknowns) == 1 and unknowns[0] in pubkeys:
            found[unknowns[0]] = row[KNOWN].to_bytes(32, "big")
    for pubkey, seckey in found.items():
        assert pubkey_of(seckey) == pubkey, "the algebra is wrong, or a signature is"
    return found


def _reduced(rows: list[Row]) -> list[Row]:
    """Return the rows in reduced echelon form (Gauss and Jordan), nonces eliminated first."""
    left, done = [dict(row) for row in rows], list[Row]()
    unknowns = sorted({unknown for row in rows for unknown in row} - {KNOWN}, key=_nonces_first)
    for unknown in unknowns:
        pivot = next((row for row in left if row.get(unknown)), None)
        if pivot is None:
            continue
        left.remove(pivot)
        inverse = pow(pivot[unknown], -1, ORDER)
        pivot = {name: value * inverse % ORDER for name, value in pivot.items()}
        left = [_without(row, pivot, unknown) for row in left]
        done = [*(_without(row, pivot, unknown) for row in done), pivot]
    return done


def _nonces_first(unknown: bytes) -> tuple[int, bytes]:
    return len(unknown), unknown  # A point of a nonce is x-only here, a pubkey is not.


def _without(row: Row, pivot: Row, unknown: bytes) -> Row:
    factor = row.get(unknown, 0)
    if not factor:
        return row
    names = row.keys() | pivot.keys()
    values: Any = {name: (row.get(name, 0) - factor * pivot.get(name, 0)) % ORDER for name in names}
    return {name: value for name, value in values.items() if value or name == KNOWN}


def reused(signatures: Sequence[SentSignature]) -> list[tuple[str, str]]:
    """Return the pairs of sessions in which one nonce, up to its sign, signed different things.

    Also where what was sent is not enough to compute a key from it.
    """
    seen: dict[bytes, tuple[str, bytes]] = {}
    pairs: list[tuple[str, str]] = []
    for sent in signatures:
        pubnonce = _nonce_that_signed(sent)
        for point in (pubnonce[1:33], pubnonce[34:]):
            name, partial_sig = seen.setdefault(point, (sent.task.name, sent.partial_sig))
            if partial_sig != sent.partial_sig:
                pairs.append((name, sent.task.name))
    return pairs
