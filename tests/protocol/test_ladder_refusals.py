"""What a client refuses to sign of a fee ladder: each rule by its name."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import msgspec
import pytest
from tests.protocol.ladders import FEERATES, asked_for_keys, build_with
from tests.protocol.pump import Pump

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.funding import least_higher_fee_sat
from cromford.factory.terms import decode_terms
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.kept import KeptJoin
from cromford.protocol.journal.proposal import ClaimedCandidate, claims_of
from cromford.protocol.opening.verification import ClientFacts, check_ladder
from cromford.wallet.coins import wallet_tx_vsize
from cromford.wire import messages as m


@dataclass(frozen=True, kw_only=True)
class Scene:
    join: KeptJoin
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


def check(propose: m.Propose, coins: dict[OutPoint, Coin | None] | None = None) -> None:
    at = scene()
    check_ladder(claims_of(at.join, propose), at.facts, coins or at.coins)


def refusal(propose: m.Propose, coins: dict[OutPoint, Coin | None] | None = None) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check(propose, coins)
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


def test_more_candidates_than_the_client_has_keys_for_are_refused() -> None:
    at = scene()
    join = msgspec.structs.replace(at.join, candidates=at.join.candidates[:2])
    with pytest.raises(Refusal) as refused:
        check_ladder(claims_of(join, at.propose), at.facts, at.coins)
    error = refused.value
    assert (error.field, error.expected, error.received) == ("candidates", "1..2", 3)


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


def with_whole(propose: m.Propose, rung: int, change: Callable[[Tx], Tx]) -> m.Propose:
    """Return a proposal with another funding of one candidate, and the whole branch below it."""
    changed = with_funding(propose, rung, change)
    branch = ClaimedCandidate(join=scene().join, propose=changed, rung=rung).branch

    def onto_branch(tx: Tx) -> Tx:
        script_pubkey = branch.funding_output.script_pubkey
        return replace(
            tx, outputs=(replace(tx.outputs[0], script_pubkey=script_pubkey), tx.outputs[1])
        )

    changed = with_funding(changed, rung, onto_branch)
    branch = ClaimedCandidate(join=scene().join, propose=changed, rung=rung).branch
    vertices = tuple(
        replace(
            sent,
            kickoff_tx=b"" if vertex.is_static else vertex.first.tx.serialize(),
            state_tx=vertex.last.tx.serialize(),
        )
        for vertex, sent in zip(branch.vertices, changed.candidates[rung].vertices, strict=True)
    )
    return with_rung(changed, rung, vertices=vertices)


def unchanged(tx: Tx) -> Tx:
    return tx


def test_another_funding_with_all_that_follows_from_it_is_signed() -> None:
    """So whatever is refused below is refused for the one thing that is wrong."""
    check(with_whole(scene().propose, 1, unchanged))
    check(with_whole(scene().propose, 2, dearer(1)))
    check(with_whole(scene().propose, 1, dearer(1)))


@pytest.mark.parametrize("beside", [True, False])
def test_candidates_that_do_not_spend_the_same_coins_are_refused(
    beside: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """A funding that shares no coin with another could confirm beside it."""
    (coin,) = (coin for coin in scene().coins.values() if coin is not None)
    spare = replace(coin, outpoint=OutPoint(txid=coin.outpoint.txid, vout=7))

    def with_spare(tx: Tx) -> Tx:
        more = replace(tx.inputs[0], outpoint=spare.outpoint)
        return replace(tx, inputs=(*tx.inputs, more) if beside else (more,))

    propose = with_whole(scene().propose, 1, with_spare)
    error = refusal(propose, {**scene().coins, spare.outpoint: spare})
    assert error.field == "candidates[1].funding_tx.inputs"


def test_candidates_of_other_factory_keys_cannot_be_proposed() -> None:
    """What is agreed on later is signed by the keys of the factory, whichever is live."""
    names = {item.name for item in fields(m.CandidateProposal)}
    assert "factory_pubkeys" in {item.name for item in fields(m.Propose)} - names

    def to_another(tx: Tx) -> Tx:
        output = replace(tx.outputs[0], script_pubkey=b"\x51\x20" + bytes(31) + b"\x01")
        return replace(tx, outputs=(output, tx.outputs[1]))

    error = refusal(with_funding(scene().propose, 1, to_another))
    assert error.field == "candidates[1].funding_output.script_pubkey"


def test_another_script_of_the_change_is_refused() -> None:
    """Two scripts would say which output is the change."""

    def elsewhere(tx: Tx) -> Tx:
        output = replace(tx.outputs[1], script_pubkey=b"\x51\x20" + bytes(31) + b"\x01")
        return replace(tx, outputs=(tx.outputs[0], output))

    error = refusal(with_whole(scene().propose, 2, elsewhere))
    assert error.field == "candidates[2].funding_tx.change"


def test_a_fee_that_does_not_rise_enough_is_refused_to_the_satoshi() -> None:
    """By what our own chain says of the coins."""
    propose = scene().propose
    fees = [fee_sat(propose, rung) for rung in range(3)]
    tx = Tx.parse(propose.candidates[2].funding_tx)
    vsize = wallet_tx_vsize(n_inputs=len(tx.inputs), n_outputs=2)
    least_sat = least_higher_fee_sat(fees[1], vsize=vsize)
    check(with_whole(propose, 2, dearer(least_sat - fees[2])))
    error = refusal(with_whole(propose, 2, dearer(least_sat - 1 - fees[2])))
    assert error.field == "candidates[2].funding_tx.fee"
    assert (error.expected, error.received) == (f"at least {least_sat} sat", least_sat - 1)


def fee_sat(propose: m.Propose, rung: int) -> int:
    tx = Tx.parse(propose.candidates[rung].funding_tx)
    in_sat = sum(coin.txout.amount_sat for coin in scene().coins.values() if coin is not None)
    return in_sat - sum(output.amount_sat for output in tx.outputs)


@pytest.mark.parametrize("name", [item.name for item in fields(m.ChannelOffer)])
def test_a_key_of_the_lsp_that_stands_in_two_candidates_is_refused(name: str) -> None:
    """What a revocation reveals in one would punish a commitment of the other."""
    propose = scene().propose
    taken = getattr(propose.candidates[0].channel, name)
    channel = replace(propose.candidates[2].channel, **{name: taken})
    changed = with_whole(with_rung(propose, 2, channel=channel), 2, unchanged)
    error = refusal(changed)
    assert (error.field, error.expected) == (f"candidates[2].channel.{name}", "a key of its own")


def test_a_key_of_ours_in_the_lsps_place_of_another_candidate_is_refused() -> None:
    propose = scene().propose
    ours = scene().join.candidates[0].channel.payment_basepoint
    channel = replace(propose.candidates[1].channel, htlc_basepoint=ours)
    error = refusal(with_whole(with_rung(propose, 1, channel=channel), 1, unchanged))
    assert error.field == "candidates[1].channel.htlc_basepoint"


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
