"""What a client kept is checked again: one thing changed, one refusal that names it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import msgspec
import pytest
from tests.protocol.forge import VICTIM, stranger, with_output
from tests.protocol.ladders import FEERATES, funded
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump

from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST, SIGNET
from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.channel.terms import MSAT_PER_SAT
from cromford.crypto.keys import xonly_of
from cromford.protocol.faults import Refusal
from cromford.protocol.htlc_blocks import payment_blocks
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.journal.kept import KeptCandidate, offer_in
from cromford.protocol.opening.verification import ClientFacts
from cromford.protocol.opening.verification_kept import check_kept
from cromford.watch.burnt import BurnLimit
from cromford.wire.fields import encode_fields

Change = Callable[[ClientCandidate], ClientCandidate]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What one client kept of a factory, and what it checks that against."""

    candidates: tuple[ClientCandidate, ...]
    facts: ClientFacts
    coins: dict[OutPoint, Coin | None]

    @property
    def first(self) -> ClientCandidate:
        return self.candidates[0]


def kept_in(pump: Pump, seat: int, coins: dict[OutPoint, Coin | None]) -> Kept:
    client = pump.client_at(seat)
    candidates = pump.held(client).candidates
    config = client.state.config
    return Kept(
        candidates=candidates,
        facts=ClientFacts(
            network=config.network,
            policy=config.policy,
            tip_height=candidates[0].terms.build_height,
            known_funding_outpoints=frozenset(),
        ),
        coins=coins,
    )


def coins_of(pump: Pump) -> dict[OutPoint, Coin | None]:
    return {outpoint: pump.chain.coin(outpoint) for outpoint in pump.chain.coins}


@cache
def kept(n_clients: int = 3, seat: int = VICTIM) -> Kept:
    """Return what a client kept of a factory with one candidate."""
    pump = Pump(n_clients)
    coins = coins_of(pump)
    pump.join()
    pump.build()
    pump.run()
    return kept_in(pump, seat, coins)


@cache
def kept_ladder() -> Kept:
    """Return what a client kept of a factory with a ladder."""
    pump = Pump(3)  # More than a leaf has: of who signs the root, a client keeps no key.
    coins = coins_of(pump)
    return kept_in(funded(pump, FEERATES), 1, coins)


def refusal(at: Kept, candidates: Sequence[ClientCandidate], **facts: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check_kept(candidates, replace(at.facts, **facts), at.coins)
    return refused.value


def test_what_was_accepted_is_accepted_again_with_the_same_branches() -> None:
    for at in (kept(), kept_ladder()):
        branches = check_kept(at.candidates, at.facts, at.coins)
        assert branches == tuple(one.branch for one in at.candidates)


def test_the_first_client_of_a_factory_of_its_own_is_within_every_range() -> None:
    at = kept(n_clients=1, seat=1)
    assert (at.first.terms.n_clients, at.first.proposal.client) == (1, 1)
    check_kept(at.candidates, at.facts, at.coins)


# One candidate


def with_terms(**changes: Any) -> Change:
    """Return what changes terms that were kept."""

    def change(candidate: ClientCandidate) -> ClientCandidate:
        terms = replace(candidate.terms, **changes).encode()
        return replace(candidate, proposal=msgspec.structs.replace(candidate.proposal, terms=terms))

    return change


def with_join(**changes: Any) -> Change:
    def change(candidate: ClientCandidate) -> ClientCandidate:
        return replace(candidate, join=msgspec.structs.replace(candidate.join, **changes))

    return change


def with_client(client: int) -> Change:
    def change(candidate: ClientCandidate) -> ClientCandidate:
        proposal = msgspec.structs.replace(candidate.proposal, client=client)
        return replace(candidate, proposal=proposal)

    return change


def with_kept(rung: int, change: Callable[[KeptCandidate], KeptCandidate]) -> Change:
    """Return what changes what was kept under one candidate."""

    def changed(candidate: ClientCandidate) -> ClientCandidate:
        parts = list(candidate.proposal.candidates)
        parts[rung] = change(parts[rung])
        proposal = msgspec.structs.replace(candidate.proposal, candidates=tuple(parts))
        return replace(candidate, proposal=proposal)

    return changed


def with_lsps_keys(rung: int = 0, **keys: bytes) -> Change:
    def change(part: KeptCandidate) -> KeptCandidate:
        channel = encode_fields(replace(offer_in(part.channel), **keys))
        return msgspec.structs.replace(part, channel=channel)

    return with_kept(rung, change)


def without_a_point_of_its_own(candidate: ClientCandidate) -> ClientCandidate:
    """Return a candidate for which the client's own first commitment point is none."""
    (offer,) = candidate.join.candidates
    keys = encode_fields(replace(offer.channel, first_per_commitment_point=bytes(33)))
    return with_join(candidates=(msgspec.structs.replace(offer, keys=keys),))(candidate)


def unchanged(candidate: ClientCandidate) -> ClientCandidate:
    return candidate


FIRST: Final = kept().first
EXPIRY_MIN: Final = FIRST.terms.expiry_height_min(FIRST.branch.kinds)
EXIT_BLOCKS: Final = FIRST.terms.exit_blocks(FIRST.branch.kinds)
CLTV_MIN: Final = payment_blocks(payer_exit_blocks=EXIT_BLOCKS, payee_exit_blocks=EXIT_BLOCKS)
CAPACITY_MSAT: Final = WANTED_SAT * MSAT_PER_SAT
OWN_KEY: Final = FIRST.join.candidates[0].channel.payment_basepoint


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that was kept otherwise, or is known otherwise, and what it is called.

    `expected` and `received` are None where they are not compared.
    """

    claim: str
    named: str
    expected: object
    received: object
    change: Change = unchanged
    policy: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


CASES: Final = [
    Case(
        claim="a factory of another network",
        facts={"network": SIGNET},
        named="network",
        expected=SIGNET.genesis_hash,
        received=REGTEST.genesis_hash,
    ),
    Case(
        claim="more clients than it shares a coin with",
        policy={"max_clients": 2},
        named="clients",
        expected="1..2",
        received=3,
    ),
    Case(
        claim="the place of the LSP",
        change=with_client(0),
        named="client",
        expected="1..3",
        received=0,
    ),
    Case(
        claim="a place behind the last",
        change=with_client(4),
        named="client",
        expected="1..3",
        received=4,
    ),
    Case(
        claim="an expiry without room for an exit",
        change=with_terms(expiry_height=EXPIRY_MIN - 1),
        named="expiry_height",
        expected=f"at least {EXPIRY_MIN}",
        received=EXPIRY_MIN - 1,
    ),
    Case(
        claim="more layers than it publishes",
        policy={"layers_max": 1},
        named="layers",
        expected="1..1",
        received=2,
    ),
    Case(
        claim="payments that cannot last long enough",
        change=with_terms(max_cltv_blocks=CLTV_MIN - 1),
        named="max_cltv_blocks",
        expected=f"at least {CLTV_MIN}",
        received=CLTV_MIN - 1,
    ),
    Case(
        claim="a key of its own in the LSP's place",
        change=with_lsps_keys(htlc_basepoint=OWN_KEY),
        named="channel.htlc_basepoint",
        expected="a key of its own",
        received=OWN_KEY,
    ),
    Case(
        claim="a satoshi more than it asked for",
        change=with_join(capacity_sat=WANTED_SAT - 1),
        named="capacity_sat",
        expected=f"{LEAST_SAT}..{WANTED_SAT - 1}",
        received=WANTED_SAT,
    ),
    Case(
        claim="a satoshi less than it asked for",
        change=with_join(capacity_least_sat=WANTED_SAT + 1, capacity_sat=WANTED_SAT + 1),
        named="capacity_sat",
        expected=f"{WANTED_SAT + 1}..{WANTED_SAT + 1}",
        received=WANTED_SAT,
    ),
    Case(
        claim="a channel that cannot be moved out of in one payment",
        change=with_terms(max_in_flight_msat=CAPACITY_MSAT - 1),
        named="max_in_flight_msat",
        expected="at least 100,000 sat",
        received=CAPACITY_MSAT - 1,
    ),
    Case(
        claim="a channel of which leaving burns too much",
        policy={"burn_limit": BurnLimit(percent=1)},
        named="capacity_sat",
        expected=None,
        received=WANTED_SAT,
    ),
    Case(
        claim="a first commitment that cannot be built",
        change=without_a_point_of_its_own,
        named="commitment_accepter",
        expected="a commitment that can be built",
        received=None,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_what_could_not_be_accepted_is_refused_by_name(case: Case) -> None:
    at = kept()
    policy = replace(at.facts.policy, **case.policy)
    error = refusal(at, [case.change(at.first)], **{"policy": policy, **case.facts})
    assert error.field == case.named
    assert case.expected in (None, error.expected)
    assert case.received in (None, error.received)


# All candidates together


@pytest.mark.parametrize("n_kept", [1, 2])
def test_fewer_candidates_than_were_agreed_on_are_refused(n_kept: int) -> None:
    at = kept_ladder()
    error = refusal(at, at.candidates[:n_kept])
    assert (error.field, error.expected, error.received) == ("candidates", 3, n_kept)


def with_candidate(change: Change, rung: int = 1) -> tuple[ClientCandidate, ...]:
    """Return the candidates of the ladder, of which one is another."""
    candidates = list(kept_ladder().candidates)
    candidates[rung] = change(candidates[rung])
    return tuple(candidates)


def test_candidates_whose_fees_do_not_rise_are_refused() -> None:
    at = kept_ladder()
    first, second, third = at.candidates
    error = refusal(at, (first, third, second))
    assert error.field == "candidates[1].funding_tx.fee"


def test_a_key_of_the_lsp_that_stands_in_two_candidates_is_refused() -> None:
    at = kept_ladder()
    taken = offer_in(at.first.kept.channel).htlc_basepoint
    error = refusal(at, with_candidate(with_lsps_keys(1, htlc_basepoint=taken)))
    assert (error.field, error.received) == ("candidates[1].channel.htlc_basepoint", taken)


def test_another_factory_under_a_second_candidate_is_refused() -> None:
    """Its own branch agrees with it; what is agreed on later is signed for one factory."""

    def of_strangers(part: KeptCandidate) -> KeptCandidate:
        root = msgspec.structs.replace(part.vertices[0], internal_key=xonly_of(stranger()))
        return msgspec.structs.replace(part, vertices=(root, *part.vertices[1:]))

    changed = with_kept(1, of_strangers)(kept_ladder().candidates[1])
    script = changed.branch.funding_output.script_pubkey

    def paid(part: KeptCandidate) -> KeptCandidate:
        funding_tx = with_output(Tx.parse(part.funding_tx), 0, script_pubkey=script)
        return msgspec.structs.replace(part, funding_tx=funding_tx.serialize())

    error = refusal(kept_ladder(), with_candidate(lambda _: with_kept(1, paid)(changed)))
    assert error.field == "candidates[1].funding_tx.factory"
    assert error.expected == kept_ladder().first.funding_tx.outputs[0]
    assert isinstance(error.received, TxOut)
    assert error.received.script_pubkey == script
