"""What a malicious LSP can send: an honest proposal with one thing changed.

`scene` runs the real roles up to the moment before a client hears a proposal. A change either
touches one field and nothing else, or rebuilds the whole tree honestly around other terms, so
that every hash, key, script and amount agrees and only the client's policy can say no.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from tests.protocol.pump import Pump
from tests.simulation.sim_node import CLIENT_ROLE, LENIENT, SimStore

from cromford import effects as fx
from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.codec.tlv import encode_tlv_stream
from cromford.crypto.keys import TaggedHash, pubkey_of
from cromford.daemon.driver import Driver
from cromford.daemon.signing import perform_signing
from cromford.factory.shape import plan_of
from cromford.factory.terms import TERMS_TAG, TLV_TYPES
from cromford.factory.vertices import funding_output_of
from cromford.protocol import events as ev
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.lsp_attempt import LspAttempt, SigningBelow
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wire import messages as m

VICTIM: Final = 2  # Its leaf has a neighbour before it, and the tree another leaf after it.
Change = Callable[[m.Propose], m.Propose]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The moment before the victim hears an honest proposal."""

    attempt: LspAttempt
    propose: m.Propose
    state: ClientState
    coins: Mapping[OutPoint, Coin]

    @property
    def tip(self) -> int:
        return self.state.chain.height


@cache
def scene() -> Scene:
    """Return the one scene that all tests share: it is immutable."""
    pump = Pump(3)
    pump.join()
    pump.build()
    attempt = pump.attempt
    victim = pump.client_at(VICTIM)
    (propose,) = (
        letter.message
        for letter in pump.wire
        if letter.receiver is victim and isinstance(letter.message, m.Propose)
    )
    return Scene(
        attempt=attempt,
        propose=propose,
        state=victim.state,
        coins={
            outpoint: coin
            for outpoint in pump.chain.coins
            if (coin := pump.chain.coin(outpoint)) is not None
        },
    )


@dataclass
class Victim:
    """A client in the scene, in the production driver; its wishes are written down."""

    state: ClientState = field(default_factory=lambda: scene().state)
    coins: Mapping[OutPoint, Coin] = field(default_factory=lambda: scene().coins)
    wished: list[fx.Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = SimStore()
        self.signer = Signer(Keychain(bytes(32), REGTEST, journal_number=1))
        self.driver: Driver[Any] = Driver(CLIENT_ROLE, self.state, self.store, self._perform)

    def hear(self, message: m.Message) -> None:
        """Hear a message of the LSP, as its bytes."""
        decoded = m.decode_message(m.encode_message(message))
        assert decoded is not None
        self.handle(ev.MessageReceived(node_id=self.state.config.lsp_node_id, message=decoded))

    def handle(self, event: ev.Event) -> None:
        self.driver.handle(event)

    @property
    def attempt(self) -> ClientAttempt:
        """The newest attempt."""
        attempts: list[ClientAttempt] = list(self.driver.state.attempts.values())
        return attempts[-1]

    @property
    def records(self) -> list[r.AnyRecord]:
        """What it wrote down since the scene."""
        return list(self.store.remembered)

    @property
    def signing(self) -> list[fx.PartialSign]:
        """What its signer was asked for."""
        return [effect for effect in self.wished if isinstance(effect, fx.PartialSign)]

    @property
    def sent(self) -> list[m.Message]:
        return [effect.message for effect in self.wished if isinstance(effect, fx.Send)]

    def _perform(self, effect: fx.Effect) -> Iterable[ev.Event]:
        self.wished.append(effect)
        match effect:
            case fx.LookUpCoins(outpoints=outpoints):
                coins = tuple((outpoint, self.coins.get(outpoint)) for outpoint in outpoints)
                return (ev.CoinsLookedUp(asked=effect, coins=coins),)
            case fx.PrepareJoin():
                return perform_signing(self.signer, lambda: bytes(32), effect)
        return ()


def victim_with(**policy: Any) -> Victim:
    """Return the victim with another policy."""
    state = scene().state
    config = replace(state.config, policy=replace(LENIENT, **policy))
    return Victim(state=replace(state, config=config))


# One field changed, and nothing else


def stranger(number: int = 1) -> bytes:
    """Return a pubkey that nobody in the scene has."""
    return pubkey_of(TaggedHash("stranger")(bytes((number,))))


NOT_A_POINT: Final = b"\x02" + b"\xff" * 32


def candidate_of(propose: m.Propose) -> m.CandidateProposal:
    return propose.candidates[0]


def with_candidate(propose: m.Propose, **changes: Any) -> m.Propose:
    return replace(propose, candidates=(replace(propose.candidates[0], **changes),))


def with_vertex(propose: m.Propose, place: int, **changes: Any) -> m.Propose:
    vertices = list(candidate_of(propose).vertices)
    vertices[place] = replace(vertices[place], **changes)
    return with_candidate(propose, vertices=tuple(vertices))


def with_signer(propose: m.Propose, place: int, pubkey: bytes) -> m.Propose:
    pubkeys = list(propose.factory_pubkeys)
    pubkeys[place] = pubkey
    return replace(propose, factory_pubkeys=tuple(pubkeys))


def with_nonce(propose: m.Propose, place: int, **changes: Any) -> m.Propose:
    nonces = list(candidate_of(propose).nonces)
    nonces[place] = replace(nonces[place], **changes)
    return with_candidate(propose, nonces=tuple(nonces))


def with_commitment_nonce(propose: m.Propose, place: int, **changes: Any) -> m.Propose:
    nonces = list(candidate_of(propose).commitment_nonces)
    nonces[place] = replace(nonces[place], **changes)
    return with_candidate(propose, commitment_nonces=tuple(nonces))


def with_channel(propose: m.Propose, **changes: Any) -> m.Propose:
    return with_candidate(propose, channel=replace(candidate_of(propose).channel, **changes))


def with_tx(propose: m.Propose, name: str, change: Callable[[Tx], Tx]) -> m.Propose:
    """Change one tree transaction, named as the client names it."""
    kind, _, place = name.partition("_")
    vertex = 0 if place == "root" else 1
    data = getattr(candidate_of(propose).vertices[vertex], f"{kind}_tx")
    return with_vertex(propose, vertex, **{f"{kind}_tx": change(Tx.parse(data)).serialize()})


def with_funding(propose: m.Propose, change: Callable[[Tx], Tx]) -> m.Propose:
    tx = change(Tx.parse(candidate_of(propose).funding_tx))
    return with_candidate(propose, funding_tx=tx.serialize())


def with_output(tx: Tx, vout: int, **changes: Any) -> Tx:
    outputs = list(tx.outputs)
    outputs[vout] = replace(outputs[vout], **changes)
    return replace(tx, outputs=tuple(outputs))


def with_input(tx: Tx, place: int = 0, **changes: Any) -> Tx:
    inputs = list(tx.inputs)
    inputs[place] = replace(inputs[place], **changes)
    return replace(tx, inputs=tuple(inputs))


def without_last_output(tx: Tx) -> Tx:
    return replace(tx, outputs=tx.outputs[:-1])


def with_one_more_output(tx: Tx) -> Tx:
    extra = TxOut(amount_sat=330, script_pubkey=b"\x51\x20" + bytes(32))
    return replace(tx, outputs=(*tx.outputs, extra))


def with_outputs_swapped(tx: Tx) -> Tx:
    return replace(tx, outputs=(tx.outputs[1], tx.outputs[0], *tx.outputs[2:]))


def with_one_more_input(tx: Tx) -> Tx:
    extra = TxIn(outpoint=replace(tx.inputs[0].outpoint, vout=7), nsequence=tx.inputs[0].nsequence)
    return replace(tx, inputs=(*tx.inputs, extra))


# Terms: raw, or with everything rebuilt around them


def encoded_terms(**changes: int | bytes | tuple[int, ...]) -> bytes:
    """Return the scene's terms with some replaced, whether or not a factory can have them."""
    terms = scene().attempt.terms

    def encode(value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        items = value if isinstance(value, tuple) else (value,)
        return b"".join(int(item).to_bytes(8, "big") for item in items)

    values = {name: getattr(terms, name) for name in TLV_TYPES}
    if not terms.inner_kinds:
        del values["inner_kinds"]
    values |= changes
    return encode_tlv_stream(
        (tlv_type, encode(values[name])) for name, tlv_type in TLV_TYPES.items() if name in values
    )


def with_raw_terms(propose: m.Propose, terms: bytes) -> m.Propose:
    """Replace the terms, with a hash that agrees."""
    return replace(propose, terms=terms, terms_hash=TaggedHash(TERMS_TAG)(terms))


def rebuilt(**changes: Any) -> m.Propose:
    """Return what an LSP proposes that builds the same factory honestly on other terms."""
    honest = scene().attempt
    terms = replace(honest.terms, **changes)
    n_clients = terms.n_clients
    blueprint = replace(
        honest.blueprint,
        terms=terms,
        seats=honest.seats[:n_clients],
        channels=honest.blueprint.channels[:n_clients],
    )
    old = honest.funding_tx
    amount_sat = plan_of(terms).input_sat
    output = TxOut(
        amount_sat=amount_sat,
        script_pubkey=funding_output_of(blueprint.factory_pubkeys, terms).script_pubkey,
    )
    change_sat = sum(out.amount_sat for out in old.outputs) - amount_sat
    funding_tx = replace(old, outputs=(output, replace(old.outputs[1], amount_sat=change_sat)))
    funded = replace(blueprint, funding_tx=funding_tx)
    candidate = replace(
        honest.candidate,
        blueprint=funded,
        joins=honest.candidate.joins[:n_clients],
        channel_pools=honest.candidate.channel_pools[:n_clients],
    )
    # Some terms make commitments that nobody can build; these aggregate nonces stay the same.
    candidate.__dict__["commitment_sessions"] = honest.candidate.commitment_sessions
    stage = SigningBelow(candidate=candidate)
    attempt = replace(honest, attempt_id=terms.attempt_id, blueprint=funded, stage=stage)
    return attempt.proposal_for(VICTIM)
