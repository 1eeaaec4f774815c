"""What a client refuses to sign of a fee ladder: each rule by its name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
from tests.protocol.ladders import FEERATES, asked_for_keys, build_with
from tests.protocol.pump import Pump

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.terms import decode_terms
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.opening.verification import ClientFacts, check_ladder
from cromford.wire import messages as m


@dataclass(frozen=True, kw_only=True)
class Scene:
    join: m.Join
    propose: m.Propose
    facts: ClientFacts
    coins: dict[OutPoint, Coin | None]


@lru_cache
def scene() -> Scene:
    """Return what one client is proposed, and what it knows itself."""
    pump = Pump(2)
    pump.join()
    asked_for_keys(pump, 4)
    pump.handle(pump.lsp, build_with(FEERATES))
    pump.run_to(m.Propose)
    client = pump.clients[0]
    propose = next(
        letter.message
        for letter in pump.wire
        if letter.receiver is client and isinstance(letter.message, m.Propose)
    )
    state = client.state
    inputs = Tx.parse(propose.candidates[0].funding_tx).inputs
    return Scene(
        join=state.joining.join,
        propose=propose,
        facts=ClientFacts(
            network=state.config.network,
            policy=state.config.policy,
            tip_height=state.chain.height,
            known_funding_outpoints=frozenset(),
        ),
        coins={tx_in.outpoint: pump.chain.coin(tx_in.outpoint) for tx_in in inputs},
    )


def check(propose: m.Propose) -> None:
    at = scene()
    rungs = range(max(1, len(propose.candidates)))
    claims = [ClientCandidate(join=at.join, propose=propose, rung=rung) for rung in rungs]
    check_ladder(claims, at.facts, at.coins)


def refusal(propose: m.Propose) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check(propose)
    return refused.value


def with_rung(propose: m.Propose, rung: int, **changes: object) -> m.Propose:
    parts = list(propose.candidates)
    parts[rung] = replace(parts[rung], **changes)  # type: ignore[arg-type]  # checked by replace
    return replace(propose, candidates=tuple(parts))


def with_terms(propose: m.Propose, **changes: object) -> m.Propose:
    terms = replace(decode_terms(propose.terms), **changes)  # type: ignore[arg-type]  # as above
    return replace(propose, terms=terms.encode(), terms_hash=terms.terms_hash)


def with_funding(propose: m.Propose, rung: int, change: Callable[[Tx], Tx]) -> m.Propose:
    tx = change(Tx.parse(propose.candidates[rung].funding_tx))
    return with_rung(propose, rung, funding_tx=tx.serialize())


def dearer(more_sat: int) -> Callable[[Tx], Tx]:
    """Return what takes so much more of the change for the fee."""

    def change(tx: Tx) -> Tx:
        output = replace(tx.outputs[1], amount_sat=tx.outputs[1].amount_sat - more_sat)
        return replace(tx, outputs=(tx.outputs[0], output))

    return change


def test_an_honest_ladder_is_signed() -> None:
    check(scene().propose)


@pytest.mark.parametrize("depth", [3, 5])
def test_a_ladder_that_is_less_than_six_deep_is_refused_whatever_the_policy(depth: int) -> None:
    """The scene's client takes any other factory at one confirmation."""
    assert scene().facts.policy.min_depth[0] < depth
    error = refusal(with_terms(scene().propose, min_depth=depth))
    assert (error.field, error.received) == ("min_depth", depth)
    assert str(error.expected).startswith("6..")


def test_five_candidates_are_one_too_many() -> None:
    propose = scene().propose
    five = replace(propose, candidates=(*propose.candidates, *propose.candidates[:2]))
    error = refusal(with_terms(five, candidates=5))
    assert (error.field, error.expected, error.received) == ("candidates", "1..4", 5)


@pytest.mark.parametrize("n_sent", [0, 1, 2, 4])
def test_another_number_of_candidates_than_agreed_is_refused(n_sent: int) -> None:
    propose = scene().propose
    sent = (*propose.candidates, propose.candidates[0])[:n_sent]
    error = refusal(replace(propose, candidates=sent))
    assert (error.field, error.expected, error.received) == ("candidates", 3, n_sent)


@pytest.mark.parametrize(
    "name", ["funding_tx", "vertices", "channel", "commitment_nonces", "nonces"]
)
def test_a_field_of_one_candidate_in_another_is_refused(name: str) -> None:
    """Each in the place of the one before: what it says is of another funding, or was said."""
    propose = scene().propose
    other = getattr(propose.candidates[1], name)
    swapped = with_rung(propose, 2, **{name: other})
    if name == "commitment_nonces":
        # The pools are others, and so are the aggregates: no signature would come of it, and no
        # nonce is used twice.
        check(swapped)
        return
    field = refusal(swapped).field
    assert field.startswith(("candidates[2]", "funding_outpoint")), field


def test_two_whole_candidates_that_changed_places_are_refused() -> None:
    first, second, third = scene().propose.candidates
    error = refusal(replace(scene().propose, candidates=(first, third, second)))
    assert error.field.startswith("candidates[1].")


def test_the_same_candidate_twice_is_refused() -> None:
    first, second, _ = scene().propose.candidates
    error = refusal(replace(scene().propose, candidates=(first, second, second)))
    assert error.field == "candidates[2].funding_outpoint"


@pytest.mark.parametrize("rung", [1, 2])
def test_a_nonce_that_another_candidate_takes_is_refused(rung: int) -> None:
    """The key is the same under all of them: two signatures with one nonce would reveal it."""
    propose = scene().propose
    stolen = propose.candidates[rung - 1].nonces[0].index
    uses = propose.candidates[rung].nonces
    error = refusal(with_rung(propose, rung, nonces=(replace(uses[0], index=stolen), *uses[1:])))
    assert error.field == f"candidates[{rung}].kickoff_root.nonce_index"
    assert (error.expected, error.received) == ("unused", stolen)


def test_candidates_that_do_not_spend_the_same_coins_are_refused() -> None:
    """A funding that shares no coin with another could confirm beside it."""

    def without_last(tx: Tx) -> Tx:
        return replace(tx, inputs=tx.inputs[:0])

    error = refusal(with_funding(scene().propose, 1, without_last))
    assert error.field.startswith("candidates[1].funding_tx")


@pytest.mark.parametrize("less_sat", [1, 200])
def test_a_candidate_that_pays_too_little_more_is_refused(less_sat: int) -> None:
    """By what our own chain says of the coins. Its tree is another then: that is found first."""
    error = refusal(with_funding(scene().propose, 2, dearer(-less_sat)))
    assert error.field.startswith("candidates[2].")


def test_a_key_of_the_lsp_that_stands_in_two_candidates_is_refused() -> None:
    """What a revocation reveals in one would punish a commitment of the other."""
    propose = scene().propose
    taken = propose.candidates[0].channel.revocation_basepoint
    channel = replace(propose.candidates[1].channel, revocation_basepoint=taken)
    error = refusal(with_rung(propose, 1, channel=channel))
    assert (error.field, error.expected) == (
        "candidates[1].channel.revocation_basepoint",
        "a key of its own",
    )


@pytest.mark.parametrize(("feerates", "field"), [((500, 620), "candidates[1].funding_tx.fee")])
def test_an_lsp_that_builds_honestly_on_feerates_that_hardly_rise_is_refused(
    feerates: tuple[int, ...], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own checks are gone: what is left is what the client computes."""
    monkeypatch.setattr("cromford.protocol.lobby.build.check_feerates", lambda _: None)
    monkeypatch.setattr("cromford.protocol.lobby.ladder.least_higher_fee_sat", lambda *_, **__: 0)
    pump = Pump(1)
    pump.join()
    asked_for_keys(pump, 2)
    pump.handle(pump.lsp, build_with(feerates))
    pump.run()
    (said,) = pump.sent(pump.clients[0], m.Abort)
    assert said.reason.startswith(f"refused: {field}: expected at least ")
    assert not pump.published
