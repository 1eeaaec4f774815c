"""A client checks its factory anew: what is wrong is named, and nothing else is called wrong."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final

import msgspec
import pytest
from immutables import Map
from tests.protocol.advances import advancing_factory, market, sell
from tests.protocol.attacks import flipped
from tests.protocol.closes import closable_factory, close
from tests.protocol.forge import VICTIM, stranger, with_output
from tests.protocol.paying_clients import pay
from tests.protocol.pump import Pump
from tests.simulation.commitments import client_first_commitment

from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx
from cromford.codec.tlv import U64_MAX, decode_tlv_stream, encode_tlv_stream
from cromford.crypto.keys import xonly_of
from cromford.daemon.signing import derive_keys
from cromford.factory.terms import TLV_TYPES
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.kept import KeptProposal, KeptVertex, offer_in
from cromford.protocol.opening.verify import (
    DerivedKeys,
    Verdict,
    held_points,
    verify_attempt,
)
from cromford.signing.keychain import ChannelPubkeys, Keychain
from cromford.signing.signer import Signer
from cromford.told import sat
from cromford.wallet.account import Account
from cromford.wallet.coins import new_wallet
from cromford.wire import messages as m
from cromford.wire.fields import encode_fields

PAID_MSAT: Final = 10_000_000
SpoilKept = Callable[[KeptProposal], KeptProposal]
BRANCH: Final = ["kickoff_root", "state_root", "kickoff_0", "state_0"]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a client knows at one moment, and what its chain shows of the funding output."""

    state: ClientState
    attempt: ClientAttempt
    coin: Coin | None
    derived: DerivedKeys

    def verdicts(self, attempt: ClientAttempt | None = None) -> dict[str, Verdict]:
        found = verify_attempt(self.state, attempt or self.attempt, self.coin, self.derived)
        assert len({verdict.check for verdict in found}) == len(found)
        return {verdict.check: verdict for verdict in found}


def moment_of(pump: Pump) -> Moment:
    client = pump.client_at(VICTIM)
    attempt = pump.held(client)
    coin = pump.chain.coin(attempt.funding_outpoint) if attempt.is_checked else None
    assert client.signer is not None
    derived = derive_keys(client.signer, client.state, attempt)
    return Moment(state=client.state, attempt=attempt, coin=coin, derived=derived)


@cache
def moments() -> dict[str, Moment]:
    """Return the client's moments in the life of one factory."""
    pump = Pump(3)
    pump.join()
    pump.build()
    found = {}
    pump.run_to(m.SignedBelow)
    found["signing"] = moment_of(pump)
    pump.run()
    found["unconfirmed"] = moment_of(pump)
    pump.mine(2)
    found["confirmed"] = moment_of(pump)
    client = pump.client_at(VICTIM)
    pump.mine(pump.policy.min_depth)
    for _ in range(2):
        assert pay(pump, pump.lsp, client, PAID_MSAT).status == "paid"
    found["paid"] = moment_of(pump)
    pump.handle(client, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine()
    found["leaving"] = moment_of(pump)
    return found


def failed(verdicts: dict[str, Verdict]) -> list[str]:
    return [check for check, verdict in verdicts.items() if not verdict.ok]


def waiting(verdicts: dict[str, Verdict]) -> list[str]:
    return [check for check, verdict in verdicts.items() if verdict.waits]


def test_an_honest_funded_factory_passes_every_check() -> None:
    """The proposal, each transaction of the branch, and the coin on the client's own chain."""
    moment = moments()["confirmed"]
    verdicts = moment.verdicts()
    assert list(verdicts) == ["proposal", "keys", *BRANCH, "first commitment", "funding"]
    assert failed(verdicts) == []
    assert f"{len(BRANCH)} transactions" in verdicts["proposal"].detail
    for node in moment.attempt.branch.nodes:
        assert str(node.tx.txid) in verdicts[node.name].detail
    commitment = client_first_commitment(moment.attempt).tx
    assert str(commitment.txid) in verdicts["first commitment"].detail
    assert str(moment.attempt.funding_outpoint) in verdicts["funding"].detail
    assert sat(moment.attempt.branch.funding_amount_sat) in verdicts["funding"].detail
    assert "2 confirmations" in verdicts["funding"].detail


def test_before_it_is_signed_a_factory_is_proposed_well_and_nothing_more() -> None:
    verdicts = moments()["signing"].verdicts()
    assert list(verdicts) == ["proposal", "keys", "signatures", "funding"]
    assert failed(verdicts) == waiting(verdicts) == ["signatures", "funding"]
    assert verdicts["signatures"].detail == "the branch is not completely signed"


# The funding


def test_an_unconfirmed_funding_is_the_only_thing_missing() -> None:
    verdicts = moments()["unconfirmed"].verdicts()
    assert failed(verdicts) == waiting(verdicts) == ["funding"]
    assert verdicts["funding"].detail == "not confirmed"


@pytest.mark.parametrize(
    "end", [{"aborted": "gone"}, {"given_up": True}], ids=["aborted", "given up"]
)
def test_what_will_not_come_any_more_is_not_waited_for(end: dict[str, Any]) -> None:
    moment = moments()["unconfirmed"]
    verdicts = moment.verdicts(replace(moment.attempt, **end))
    assert (failed(verdicts), waiting(verdicts)) == (["funding"], [])


def test_a_funding_whose_coin_is_spent_elsewhere_is_waited_for_until_that_is_deep() -> None:
    moment = moments()["unconfirmed"]
    rival = replace(moment.attempt.funding_tx, nlocktime=1)
    chain = moment.state.chain
    for depth in range(1, moment.attempt.terms.min_depth + 1):
        height = chain.height - depth + 1
        overtaken = replace(
            chain,
            confirmed=chain.confirmed.update({rival.txid: height}),
            spends={**chain.spends, **{tx_in.outpoint: rival for tx_in in rival.inputs}},
        )
        assert overtaken.depth(rival.txid) == depth
        verdicts = replace(moment, state=replace(moment.state, chain=overtaken)).verdicts()
        is_deep = depth == moment.attempt.terms.min_depth
        assert failed(verdicts) == ["funding"]
        assert waiting(verdicts) == ([] if is_deep else ["funding"])


@pytest.mark.parametrize("off_by_sat", [-1, 1])
def test_a_funding_of_another_amount_is_named_with_both_amounts(off_by_sat: int) -> None:
    moment = moments()["confirmed"]
    assert moment.coin is not None
    agreed_sat = moment.coin.txout.amount_sat
    txout = replace(moment.coin.txout, amount_sat=agreed_sat + off_by_sat)
    verdicts = replace(moment, coin=replace(moment.coin, txout=txout)).verdicts()
    assert failed(verdicts) == ["funding"]
    assert f"expected {sat(agreed_sat)}" in verdicts["funding"].detail
    assert f"received {sat(agreed_sat + off_by_sat)}" in verdicts["funding"].detail


def test_a_funding_to_another_script_is_named_with_both_scripts() -> None:
    moment = moments()["confirmed"]
    assert moment.coin is not None
    agreed = moment.coin.txout
    others = flipped(agreed.script_pubkey)
    txout = replace(agreed, script_pubkey=others)
    verdicts = replace(moment, coin=replace(moment.coin, txout=txout)).verdicts()
    assert failed(verdicts) == ["funding"]
    expected, _, received = verdicts["funding"].detail.partition(", received ")
    assert agreed.script_pubkey.hex() in expected
    assert others.hex() in received


def test_a_funding_spent_by_kickoff_root_is_as_agreed() -> None:
    moment = moments()["leaving"]
    assert moment.coin is None, "it is spent"
    verdicts = moment.verdicts()
    assert failed(verdicts) == []
    assert verdicts["funding"].detail == "spent by kickoff_root, as agreed"


def test_a_funding_spent_by_anything_else_is_an_alarm() -> None:
    moment = replace(moments()["confirmed"], coin=None)
    verdicts = moment.verdicts()
    assert (failed(verdicts), waiting(verdicts)) == (["funding"], [])
    assert verdicts["funding"].detail == "spent by an unknown transaction"


def test_a_funding_spent_by_a_close_that_we_signed_is_as_agreed() -> None:
    pump = closable_factory(3)
    close(pump)
    pump.mine(1)
    moment = moment_of(pump)
    (finished,) = pump.factory.closed.values()
    assert moment.coin is None, "it is spent"
    verdicts = moment.verdicts()
    assert failed(verdicts) == []
    assert verdicts["funding"].detail == f"spent by the close {finished.txids[0]}, as agreed"
    unsigned = replace(moment.state.book, links=Map())
    forgotten = replace(moment, state=replace(moment.state, book=unsigned))
    assert "funding" in failed(forgotten.verdicts()), "one that nobody here signed is an alarm"
    elsewhere = replace(moment, state=with_links_of_another_factory(moment.state))
    assert "funding" in failed(elsewhere.verdicts()), "so is one of another factory's channel"


def with_close(state: ClientState, **changes: Any) -> ClientState:
    """Return a state in which each close that was signed is another."""
    links = {
        key: replace(link, closes=tuple(replace(one, **changes) for one in link.closes))
        for key, link in state.book.links.items()
    }
    return replace(state, book=replace(state.book, links=Map(links)))


def test_a_funding_spent_by_another_than_the_close_that_we_signed_is_an_alarm() -> None:
    """Be the close in no block, or in a block and one of another output."""
    pump = closable_factory(3)
    close(pump)
    pump.mine(1)
    moment = moment_of(pump)
    assert failed(moment.verdicts()) == []
    unknown = with_close(moment.state, txids=())
    assert failed(replace(moment, state=unknown).verdicts()) == ["funding"]
    elsewhere = moment.attempt.branch.channel_outpoint
    chain = moment.state.chain
    spender = chain.spends[moment.attempt.funding_outpoint]
    chain = replace(chain, spends={**chain.spends, elsewhere: spender})
    state = with_close(replace(moment.state, chain=chain), outpoint=elsewhere)
    assert failed(replace(moment, state=state).verdicts()) == ["funding"]


def with_links_of_another_factory(state: ClientState) -> ClientState:
    links = {key: replace(link, attempt_id=bytes(32)) for key, link in state.book.links.items()}
    return replace(state, book=replace(state.book, links=Map(links)))


# The keys


def wrong_keys(verdicts: dict[str, Verdict]) -> list[str]:
    """Return what is called another seed's, where nothing else is called wrong."""
    assert failed(verdicts) == ["keys"]
    expected, _, names = verdicts["keys"].detail.partition(", received another's: ")
    assert expected == "expected what the seed derives"
    return names.split(", ")


def test_a_factory_of_another_seeds_keys_fails_though_every_signature_is_valid() -> None:
    moment = moments()["confirmed"]
    foreign = Keychain(bytes(32), REGTEST, journal_number=moment.attempt.key_attempt)
    derived = derive_keys(Signer(foreign), moment.state, moment.attempt)
    channel = [f"candidates[0].{item.name}" for item in fields(ChannelPubkeys)]
    assert wrong_keys(replace(moment, derived=derived).verdicts()) == [
        "factory key",
        "candidates[0].pool",
        *channel,
        "per-commitment point",
        "next per-commitment point",
    ]


def test_a_wrong_factory_key_is_named_alone() -> None:
    moment = moments()["confirmed"]
    derived = replace(moment.derived, factory_pubkey=stranger())
    assert wrong_keys(replace(moment, derived=derived).verdicts()) == ["factory key"]


@pytest.mark.parametrize("name", [item.name for item in fields(ChannelPubkeys)])
def test_a_wrong_channel_key_is_named_alone(name: str) -> None:
    moment = moments()["confirmed"]
    ours = replace(moment.derived.channels[0], **{name: stranger()})
    derived = replace(moment.derived, channels=(ours,))
    named = wrong_keys(replace(moment, derived=derived).verdicts())
    # The pool of a channel's nonces is made for its funding key.
    pool = ["candidates[0].pool"] if name == "funding_pubkey" else []
    assert named == [*pool, f"candidates[0].{name}"]


def test_the_points_of_a_channel_are_those_of_its_latest_commitment() -> None:
    """Each payment moved them on; the keys of the first commitment say nothing about them."""
    moment = moments()["paid"]
    number, (latest, after) = held_points(moment.state, moment.attempt)
    first = moment.attempt.join.candidates[0].channel
    assert number > 1
    assert first.second_per_commitment_point not in (latest, after)
    assert failed(moment.verdicts()) == []
    for place, name in enumerate(("per-commitment point", "next per-commitment point")):
        points = list(moment.derived.commitment_points)
        points[place] = stranger()
        derived = replace(moment.derived, commitment_points=(points[0], points[1]))
        assert wrong_keys(replace(moment, derived=derived).verdicts()) == [name]


def test_the_points_of_another_factorys_channel_are_none_of_this_ones() -> None:
    moment = moments()["paid"]
    first = moment.attempt.join.candidates[0].channel
    points = (first.first_per_commitment_point, first.second_per_commitment_point)
    state = with_links_of_another_factory(moment.state)
    assert held_points(state, moment.attempt) == (0, points)


def test_a_payout_script_that_is_not_the_wallets_own_is_named() -> None:
    moment = moments()["confirmed"]
    foreign = Keychain(bytes(32), REGTEST, journal_number=0)
    wallet = new_wallet(Account(foreign.wallet_account))
    state = replace(moment.state, wallet=wallet)
    assert wrong_keys(replace(moment, state=state).verdicts()) == ["payout script"]


# The signatures


@pytest.mark.parametrize("place", range(len(BRANCH)), ids=BRANCH)
def test_a_corrupted_signature_is_named_and_no_other(place: int) -> None:
    moment = moments()["confirmed"]
    stage = moment.attempt.stage
    assert isinstance(stage, Complete)
    if place == 0:
        spoiled = replace(stage, root_signature=flipped(stage.root_signature))
    else:
        signatures = list(stage.signatures)
        signatures[place - 1] = flipped(signatures[place - 1])
        spoiled = replace(stage, signatures=tuple(signatures))
    verdicts = moment.verdicts(replace(moment.attempt, stage=spoiled))
    assert failed(verdicts) == [BRANCH[place]]
    assert "does not verify" in verdicts[BRANCH[place]].detail


def test_a_corrupted_first_commitment_is_named_and_nothing_else() -> None:
    moment = moments()["confirmed"]
    stage = moment.attempt.stage
    assert isinstance(stage, Complete)
    spoiled = replace(stage, commitment_signature=flipped(stage.commitment_signature))
    verdicts = moment.verdicts(replace(moment.attempt, stage=spoiled))
    assert failed(verdicts) == ["first commitment"]
    assert "expected a signature of commitment 0" in verdicts["first commitment"].detail


# The proposal


def with_kept(**changes: Any) -> SpoilKept:
    """Return what changes the one candidate that was kept."""

    def spoil(proposal: KeptProposal) -> KeptProposal:
        (kept,) = proposal.candidates
        new = {name: change(getattr(kept, name)) for name, change in changes.items()}
        return msgspec.structs.replace(proposal, candidates=(replace_struct(kept, **new),))

    return spoil


def with_vertex(layer: int, **changes: Any) -> SpoilKept:
    """Return what changes one vertex of the branch that was kept."""

    def spoil(vertices: tuple[KeptVertex, ...]) -> tuple[KeptVertex, ...]:
        old = vertices[layer]
        new = {name: change(getattr(old, name)) for name, change in changes.items()}
        return (*vertices[:layer], replace_struct(old, **new), *vertices[layer + 1 :])

    return with_kept(vertices=spoil)


def of_proposal(**changes: Any) -> SpoilKept:
    def spoil(proposal: KeptProposal) -> KeptProposal:
        new = {name: change(getattr(proposal, name)) for name, change in changes.items()}
        return msgspec.structs.replace(proposal, **new)

    return spoil


def one_sat_more(data: bytes) -> bytes:
    tx = Tx.parse(data)
    return with_output(tx, 0, amount_sat=tx.outputs[0].amount_sat + 1).serialize()


def with_number(terms: bytes, name: str, number: int) -> bytes:
    """Return kept terms in which one number is another."""
    values = decode_tlv_stream(terms, known={place: known for known, place in TLV_TYPES.items()})
    return encode_tlv_stream({**values, TLV_TYPES[name]: number.to_bytes(8, "big")}.items())


def other_keys(data: bytes) -> bytes:
    return encode_fields(replace(offer_in(data), funding_pubkey=stranger()))


SPOILED: Final[dict[str, SpoilKept]] = {
    "an amount in state_root": with_vertex(0, amounts_sat=lambda sat: (sat[0] + 1, *sat[1:])),
    "an amount in state_0": with_vertex(1, amounts_sat=lambda sat: (sat[0] + 1, *sat[1:])),
    "an amount that no output has": with_vertex(0, amounts_sat=lambda sat: (-1, *sat[1:])),
    "an output of state_root": with_vertex(
        0, amounts_sat=lambda sat: sat[:-1], scripts=lambda scripts: scripts[:-1]
    ),
    "a script in state_root": with_vertex(0, scripts=lambda scripts: (scripts[0], b"\x51")),
    "what the root's keys add up to": with_vertex(0, internal_key=lambda _: xonly_of(stranger())),
    "what its leaf's keys add up to": with_vertex(1, internal_key=lambda _: xonly_of(stranger())),
    "the vertices": with_kept(vertices=lambda vertices: vertices[:1]),
    "the funding amount": with_kept(funding_tx=one_sat_more),
    "its neighbour's key": of_proposal(leaf_pubkeys=lambda keys: (keys[0], stranger(), keys[2])),
    "the LSP's key": of_proposal(leaf_pubkeys=lambda keys: (stranger(), *keys[1:])),
    "a key of its leaf": of_proposal(leaf_pubkeys=lambda keys: keys[:2]),
    "a feerate that no amount carries": of_proposal(
        terms=lambda terms: with_number(terms, "tree_feerate_sat_per_kw", U64_MAX)
    ),
    "terms that are no terms": of_proposal(terms=lambda _: b"\x01"),
    "no terms": of_proposal(terms=lambda _: b""),
    "the client's place": of_proposal(client=lambda client: client - 1),
    "how many clients there are": of_proposal(n_clients=lambda n: n + 2),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_corrupted_proposal_fails_and_nothing_is_said_of_what_hangs_on_it(what: str) -> None:
    moment = moments()["confirmed"]
    stage = moment.attempt.stage
    assert isinstance(stage, Complete)
    proposal = SPOILED[what](stage.candidate.proposal)
    assert proposal != stage.candidate.proposal
    candidate = replace(stage.candidate, proposal=proposal)
    spoiled = replace(moment.attempt, stage=replace(stage, candidate=candidate))
    verdicts = moment.verdicts(spoiled)
    assert list(verdicts) == ["proposal", "keys", "signatures"]
    assert failed(verdicts) == ["proposal", "signatures"]


OF_OTHERS: Final[dict[str, tuple[SpoilKept, str]]] = {
    "a sibling's script": (
        with_vertex(0, scripts=lambda scripts: (scripts[0], b"\x51\x20" + xonly_of(stranger()))),
        "state_root",
    ),
    "its neighbour's channel": (
        with_vertex(1, scripts=lambda scripts: (b"\x51\x20" + xonly_of(stranger()), *scripts[1:])),
        "state_0",
    ),
    "the LSP's channel key": (with_kept(channel=other_keys), "state_0"),
}


@pytest.mark.parametrize("what", OF_OTHERS)
def test_what_a_client_cannot_compute_is_what_everybody_signed(what: str) -> None:
    """Its own bytes are taken as given once more: the signatures tell whether they are the same."""
    moment = moments()["confirmed"]
    stage = moment.attempt.stage
    assert isinstance(stage, Complete)
    spoil, name = OF_OTHERS[what]
    candidate = replace(stage.candidate, proposal=spoil(stage.candidate.proposal))
    verdicts = moment.verdicts(replace(moment.attempt, stage=replace(stage, candidate=candidate)))
    assert name in failed(verdicts)
    assert not set(failed(verdicts)) & {"proposal", *BRANCH[: BRANCH.index(name)]}


CHANGED_INPUTS: Final[dict[str, Callable[[Any], Any]]] = {
    "one is lost": lambda inputs: inputs[1:],
    "its amount is another": lambda inputs: (
        replace_struct(inputs[0], amount_sat=inputs[0].amount_sat - 1_000_000),
        *inputs[1:],
    ),
}


def replace_struct(item: Any, **changes: Any) -> Any:
    values = {name: getattr(item, name) for name in item.__struct_fields__}
    return type(item)(**{**values, **changes})


@pytest.mark.parametrize("what", CHANGED_INPUTS)
def test_what_the_funding_spent_is_checked_against_what_was_remembered(what: str) -> None:
    moment = moments()["confirmed"]
    inputs = CHANGED_INPUTS[what](moment.attempt.inputs)
    assert failed(moment.verdicts(replace(moment.attempt, inputs=inputs)))[0] == "proposal"


def test_a_factory_that_todays_policy_would_refuse_is_named_by_its_term() -> None:
    moment = moments()["confirmed"]
    stricter = replace(moment.state.config.policy, min_depth=(9, 12))
    config = replace(moment.state.config, policy=stricter)
    verdicts = replace(moment, state=replace(moment.state, config=config)).verdicts()
    assert not verdicts["proposal"].ok
    assert verdicts["proposal"].detail.startswith("min_depth: expected 9..12")


def test_the_age_of_a_factory_does_not_make_it_wrong() -> None:
    """A proposal must be new when it comes; verified later, it is as old as it is."""
    moment = moments()["confirmed"]
    tip = replace(moment.state.chain.recent[-1], height=moment.state.chain.height + 100_000)
    chain = replace(moment.state.chain, recent=(tip,))
    assert failed(replace(moment, state=replace(moment.state, chain=chain)).verdicts()) == []


def test_after_a_sale_the_opening_is_as_good_as_before_and_the_next_state_is_checked_too() -> None:
    """What was signed at the opening is not judged by what replaced it."""
    with market():
        pump = advancing_factory(2)
        sell(pump, VICTIM)
    moment = moment_of(pump)
    opened = moments()["confirmed"].verdicts()
    verdicts = moment.verdicts()
    newer = set(verdicts) - set(opened)
    state = moment.attempt.leaf.state
    poisons = {poison.name for poison in moment.attempt.leaf.poisons(0)}
    assert newer >= {state.name, *poisons}
    assert failed(verdicts) == []
    (agreed,) = moment.attempt.leaf_states
    assert agreed.poisons is not None
    spoiled = replace(agreed.poisons, stock=bytes(64))
    for lost, name in (
        (replace(agreed, signature=bytes(64)), state.name),
        (replace(agreed, poisons=spoiled), moment.attempt.leaf.stock_poison(0).name),
    ):
        assert failed(moment.verdicts(replace(moment.attempt, leaf_states=(lost,)))) == [name]


def test_a_state_whose_poisons_were_never_signed_hides_none_of_the_states_after_it() -> None:
    with market():
        pump = advancing_factory(2)
        for _ in range(2):
            sell(pump, VICTIM)
    moment = moment_of(pump)
    first, second = moment.attempt.leaf_states
    bare = replace(first, poisons=None)
    assert failed(moment.verdicts(replace(moment.attempt, leaf_states=(bare, second)))) == []
    spoiled = replace(second, signature=flipped(second.signature))
    verdicts = moment.verdicts(replace(moment.attempt, leaf_states=(bare, spoiled)))
    assert failed(verdicts) == [moment.attempt.leaf.states[2].name]


def test_a_proposal_that_was_refused_verifies_as_what_it_is() -> None:
    """The operator asks about it all the same: nothing of it was ever believed."""
    pump = Pump(3)
    pump.join()
    pump.build()
    client = pump.client_at(VICTIM)
    spoiled = replace(pump.attempt.proposal_for(VICTIM), terms=b"")
    pump.tell(client, pump.lsp, spoiled)
    held = pump.held(client)
    assert held.aborted is not None
    assert held.aborted.startswith("refused: ")
    found = verify_attempt(client.state, held, None, moment_of(pump).derived)
    verdicts = {verdict.check: verdict for verdict in found}
    assert failed(verdicts) == ["proposal", "signatures"]
