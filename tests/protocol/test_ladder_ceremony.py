"""A ceremony that signs several candidates of one funding: all of them, or none."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import only_from
from tests.protocol.ladders import (
    DEPTH,
    FEERATES,
    ask_build,
    asked_for_keys,
    build_with,
    candidates,
    funded,
    refused,
    replace_by,
)
from tests.protocol.paying_clients import pay
from tests.protocol.pump import Pump, PumpNode, UsualPump
from tests.protocol.test_forked_fundings import rejected

from cromford import effects as fx
from cromford.bitcoin.tx import vsize_of
from cromford.factory.funding import least_higher_fee_sat
from cromford.protocol import events as ev
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.mail import Ordered
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.opening_fold import candidates_of
from cromford.protocol.policy import LspPolicy
from cromford.signing.keychain import ChannelKey
from cromford.wire import messages as m
from cromford.wire.messages import decode_message

LADDERS: Final = {2: (500, 1_000), 3: FEERATES, 4: (250, 500, 1_000, 5_000)}


def fee_sat(pump: Pump, rung: int) -> int:
    coins_sat = sum(coin.txout.amount_sat for coin in pump.factory.coins)
    return coins_sat - sum(out.amount_sat for out in candidates(pump)[rung].outputs)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_candidates", LADDERS)
def test_all_candidates_are_signed_by_everybody_before_one_is_published(n_candidates: int) -> None:
    """The pump asserts, at each message, that every exit of every candidate is complete."""
    pump = funded(Pump(2, watches_folds=True), LADDERS[n_candidates])
    txs = candidates(pump)
    assert len(txs) == n_candidates
    assert [tx.txid for tx in pump.published] == [txs[0].txid]
    assert len({tuple(tx_in.outpoint for tx_in in tx.inputs) for tx in txs}) == 1
    assert len({tx.outputs[0] for tx in txs}) == 1, "one factory, one amount"
    for client in pump.clients:
        held = pump.held(client)
        assert len(held.ladder) == n_candidates
        assert {type(stage).__name__ for stage in held.ladder} == {"Complete"}
    pump.mine(DEPTH)
    assert pay(pump, pump.lsp, pump.clients[0], 1_000_000).status == "paid"


def test_each_candidate_pays_enough_more_than_the_one_before_out_of_its_change_alone() -> None:
    pump = funded(Pump(2))
    fees = [fee_sat(pump, rung) for rung in range(3)]
    for before, after, tx in zip(fees, fees[1:], candidates(pump), strict=False):
        assert after >= least_higher_fee_sat(before, vsize=vsize_of(tx.weight))
    for feerate, fee, tx in zip(FEERATES, fees, candidates(pump), strict=True):
        assert 0 <= 1000 * fee / tx.weight - feerate < 10
    changes = [
        tx.outputs[1].amount_sat + fee for tx, fee in zip(candidates(pump), fees, strict=True)
    ]
    assert len(set(changes)) == 1
    assert len({tx.outputs[1].script_pubkey for tx in candidates(pump)}) == 1


def test_no_nonce_and_no_channel_key_is_in_two_candidates() -> None:
    pump = funded(Pump(2))
    orders = [
        record.mail
        for record in pump.lsp.store.remembered
        if isinstance(record, MailTaken) and isinstance(record.mail, Ordered)
    ]
    signed_with = candidates_of(orders[-1])
    uses = [set[int](), set[int](), set[int]()]
    for proposed in pump.sent(pump.lsp, m.Propose):
        taken: list[int] = []
        for candidate in proposed.candidates:
            taken += [use.index for use in candidate.nonces]
        assert len(set(taken)) == len(taken) > 0
        uses[proposed.client] |= set(taken)
    own = [request.nonce_index for one in signed_with for request in one.own_requests(root=False)]
    own += [request.nonce_index for one in signed_with for request in one.own_requests(root=True)]
    assert sorted(own) == list(range(len(own)))
    keys = [offer.funding_pubkey for one in signed_with for offer in one.blueprint.channels]
    keys += [seat.channel.funding_pubkey for one in signed_with for seat in one.blueprint.seats]
    assert len(set(keys)) == len(keys) == 3 * 2 * 2
    signer = pump.lsp.signer
    assert signer is not None
    attempt = pump.attempt.key_attempt
    for rung, one in enumerate(signed_with):
        name = ChannelKey(attempt=attempt, channel=1, candidate=rung)
        assert (
            one.blueprint.channels[0].funding_pubkey == signer.channel_pubkeys(name).funding_pubkey
        )


def test_the_same_outpoint_is_never_signed_for_twice() -> None:
    """Intents are by outpoint, and each candidate has outpoints of its own."""
    pump = funded(Pump(2))
    for node in (pump.lsp, *pump.clients):
        intended = [
            intent
            for record in node.store.remembered
            if isinstance(record, op.SigningIntended)
            for intent in record.intents
        ]
        names = [(one.kind, one.outpoint, one.state_index) for one in intended]
        assert len(set(names)) == len(names)
        assert len({one.sighash for one in intended}) == len(names)


# Keys


def test_who_waits_with_too_few_keys_joins_again_by_itself() -> None:
    pump = Pump(2)
    pump.join()
    assert [len(one.join.candidates) for one in pump.lsp.state.house.members.values()] == [1, 1]
    error = refused(pump, build_with())
    assert (error.code, error.retryable) == ("clients_join_again", True)
    asked_for_keys(pump, 3)
    assert [len(one.join.candidates) for one in pump.lsp.state.house.members.values()] == [3, 3]
    for client in pump.clients:
        assert client.state.joining.is_accepted
        assert len(pump.wishes(client, fx.DropPools)) >= 1
    ask_build(pump)
    pump.run()
    assert pump.is_funded()


def test_what_was_asked_for_is_asked_of_whoever_comes_later_and_after_a_restart() -> None:
    pump = asked_for_keys(Pump(2), 3)
    pump.restart(pump.lsp)
    pump.run()
    pump.join()
    assert [len(one.join.candidates) for one in pump.lsp.state.house.members.values()] == [3, 3]
    wanted = [one for one in pump.lsp.store.remembered if isinstance(one, lr.LadderWanted)]
    assert [one.candidates for one in wanted] == [3]
    asked_for_keys(pump, 2)
    assert [one.candidates for one in wanted] == [3], "more keys than that are there"


def test_whoever_does_not_join_again_with_more_keys_holds_up_a_ladder_for_one_block() -> None:
    pump = Pump(3)
    pump.join()
    idle = pump.clients[2]

    def keeps_still(sender: PumpNode, _: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        return () if sender is idle and isinstance(message, m.Join | m.Leave) else (message,)

    with pump.tampering(keeps_still):
        asked_for_keys(pump, 3)
        assert refused(pump, build_with()).code == "clients_join_again"
        pump.mine()
        assert idle.node_id not in pump.lsp.state.house.members
        assert idle.node_id not in pump.lsp.state.house.connected
        ask_build(pump)
        pump.run()
    assert pump.is_funded()
    assert idle.node_id not in {seat.node_id for seat in pump.attempt.seats}


def test_whoever_joins_with_fewer_keys_than_were_asked_for_is_refused_by_name() -> None:
    pump = Pump(1)
    pump.join()
    client = pump.clients[0]
    (member,) = pump.lsp.state.house.members.values()
    asked_for_keys(pump, 3)
    (again,) = pump.lsp.state.house.members.values()
    pump.tell(pump.lsp, client, m.Leave(factory_pubkey=again.join.factory_pool.pubkey))
    pump.tell(pump.lsp, client, member.join)
    assert not pump.lsp.state.house.members
    refusal = pump.sent(pump.lsp, m.Refused)[-1]
    assert refusal.reason == "candidates: expected 3..4, received 1"


def test_of_more_keys_than_candidates_the_first_are_used() -> None:
    policy = LspPolicy(min_clients=1, funding_candidates=4)
    pump = Pump(2, policy=policy)
    pump.join()
    ask_build(pump, (500, 1_000))
    pump.run()
    assert len(candidates(pump)) == 2
    pump.mine(DEPTH)
    assert pay(pump, pump.lsp, pump.clients[0], 1_000_000).status == "paid"


def test_without_a_ladder_more_keys_change_nothing() -> None:
    pump = Pump(2, policy=LspPolicy(min_clients=1, funding_candidates=4))
    pump.join()
    pump.build()
    pump.run()
    assert (pump.attempt.terms.candidates, pump.attempt.terms.min_depth) == (1, 3)


def test_one_feerate_is_a_funding_without_a_ladder_that_pays_it() -> None:
    pump = Pump(1)
    pump.join()
    ask_build(pump, (1_234,))
    pump.run()
    assert pump.attempt.terms.candidates == 1
    assert 0 <= 1000 * fee_sat(pump, 0) / candidates(pump)[0].weight - 1_234 < 10


def test_in_a_ceremony_a_client_keeps_to_it_and_brings_more_keys_to_the_next() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(m.SignBelow)
    asked = ev.LadderRequested(n_candidates=3)
    assert rejected(pump.lsp, asked) == "build_under_way"
    client = pump.clients[0]
    pump.tell(client, pump.lsp, replace(client.state.lobby, candidates=3))
    assert client.state.lobby.candidates == 3
    pump.run()
    assert pump.is_funded()


def test_an_lsp_that_asks_for_ever_more_keys_fills_no_clients_journal() -> None:
    """What it asks for beyond what a client brings is heard once."""
    pump = Pump(1)
    client = pump.clients[0]
    lobby = client.state.lobby
    most = client.state.config.policy.candidates_max
    for n_candidates in range(lobby.candidates, most + 20):
        pump.tell(client, pump.lsp, replace(lobby, candidates=n_candidates))
    heard = [one for one in client.store.remembered if isinstance(one, lr.LobbyGreeted)]
    greetings = [decode_message(one.message) for one in heard]
    asked = [one.candidates for one in greetings if isinstance(one, m.Lobby)]
    assert asked == [*range(lobby.candidates, most + 2)]


def test_pools_that_would_not_fit_one_message_are_asked_of_nobody() -> None:
    pump = UsualPump(1, policy=LspPolicy(min_clients=1, pool_size=200))
    assert refused(pump, ev.LadderRequested(n_candidates=4)).code == "invalid_feerates"
    assert not pump.lsp.state.house.ladder_wanted


@pytest.mark.parametrize(("pool_size", "n_asked"), [(180, 4), (181, 3), (230, 2)])
def test_pools_that_grew_since_a_ladder_was_wanted_send_no_client_away(
    pool_size: int, n_asked: int
) -> None:
    policy = LspPolicy(min_clients=1)
    pump = asked_for_keys(UsualPump(1, policy=policy), 4)
    pump.lsp.lsp_policy = replace(policy, pool_size=pool_size)
    pump.restart(pump.lsp)
    pump.run()
    (client,) = pump.clients
    assert client.state.lobby.candidates == n_asked
    pump.join()
    assert client.node_id in pump.lsp.state.house.members
    if n_asked < 4:
        assert refused(pump, ev.LadderRequested(n_candidates=4)).code == "invalid_feerates"


@pytest.mark.parametrize(
    ("feerates", "words"),
    [
        ((250, 500, 1_000, 2_000, 4_000), "expected at most 4, received 5"),
        ((1_000, 1_249), "funding_feerates[1]: expected at least 5.0 sat/vB"),
        ((10_000, 12_499), "funding_feerates[1]: expected at least 50.0 sat/vB"),
        ((500, 400), "funding_feerates[1]"),
        ((0,), "funding_feerates[0]"),
    ],
)
def test_feerates_that_do_not_rise_enough_are_refused_by_name(
    feerates: tuple[int, ...], words: str
) -> None:
    pump = Pump(1)
    pump.join()
    error = refused(pump, build_with(feerates))
    assert error.code == "invalid_feerates"
    assert words in str(error)


# Whoever refuses, spoils, or dies


def test_a_client_that_refuses_one_candidate_of_three_signs_none() -> None:
    pump = Pump(3)
    pump.join()
    asked_for_keys(pump, 3)
    victim = pump.clients[1]

    def one_is_bad(_: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if receiver is victim and isinstance(message, m.Propose):
            first, second, third = message.candidates
            message = replace(message, candidates=(first, third, second))
        return (message,)

    with pump.tampering(one_is_bad):
        ask_build(pump)
        pump.run()
    (said,) = pump.sent(victim, m.Abort)
    assert said.reason.startswith("refused: candidates[1].")
    assert not pump.sent(victim, m.SignBelow)
    # The others go on without it, and sign all three.
    assert len(pump.attempt.seats) == 2
    assert len(candidates(pump)) == 3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("spoiled", range(3))
@pytest.mark.parametrize("kind", [m.SignBelow, m.SignRoot])
def test_who_spoils_one_candidate_is_named_and_the_others_go_on(
    kind: type[m.Message], spoiled: int
) -> None:
    pump = Pump(3)
    pump.join()
    asked_for_keys(pump, 3)
    mallory = pump.clients[0]

    def spoil(sender: PumpNode, _: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender is mallory and isinstance(message, m.SignBelow) and kind is m.SignBelow:
            parts = list(message.candidates)
            halves = (parts[spoiled].partial_sigs[1], *parts[spoiled].partial_sigs[1:])
            parts[spoiled] = replace(parts[spoiled], partial_sigs=halves)
            return (replace(message, candidates=tuple(parts)),)
        if sender is mallory and isinstance(message, m.SignRoot) and kind is m.SignRoot:
            roots = list(message.partial_sigs)
            roots[spoiled] = bytes(31) + b"\x01"
            return (replace(message, partial_sigs=tuple(roots)),)
        return (message,)

    with pump.tampering(spoil):
        ask_build(pump)
        pump.run()
    state = pump.lsp.state.house
    assert [*state.faults] == [mallory.node_id]
    assert len(pump.attempt.seats) == 2
    assert len(candidates(pump)) == 3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [m.SignedBelow, m.SignedRoot])
def test_a_client_that_lacks_one_candidates_signature_says_so_and_holds_nothing(
    kind: type[m.Message],
) -> None:
    pump = Pump(2)
    pump.join()
    asked_for_keys(pump, 3)
    victim = pump.clients[0]

    def lacking(_: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if receiver is victim and isinstance(message, kind):
            if isinstance(message, m.SignedBelow):
                return (replace(message, candidates=message.candidates[:2]),)
            assert isinstance(message, m.SignedRoot)
            swapped = (message.signatures[0], message.signatures[2], message.signatures[1])
            return (replace(message, signatures=swapped),)
        return (message,)

    with pump.tampering(lacking):
        ask_build(pump)
        pump.run()
    held = next(iter(victim.state.attempts.values()))
    assert held.aborted is not None
    assert held.aborted.startswith("the LSP is at fault")
    assert not any(tx in pump.published for tx in pump.published[1:])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fuse", range(1, 27))
@pytest.mark.parametrize("who", ["lsp", "client"])
def test_a_crash_between_any_two_steps_leaves_all_candidates_or_none(who: str, fuse: int) -> None:
    """Whatever is published afterwards, everybody can leave: the pump asserts it."""
    pump = Pump(2, watches_folds=True)
    pump.join()
    asked_for_keys(pump, 3)
    node = pump.lsp if who == "lsp" else pump.clients[0]
    node.fuse = fuse
    ask_build(pump)
    pump.run()
    node.fuse = None
    pump.mine(2)
    if not pump.published:
        pump.join_again()
        asked_for_keys(pump, 3)
        ask_build(pump)
        pump.run()
    assert pump.published
    replace_by_if_waiting(pump)
    pump.mine(DEPTH + 2)
    for client in pump.clients:
        if client.node_id in {seat.node_id for seat in pump.attempt.seats}:
            assert pay(pump, pump.lsp, client, 1_000_000).status == "paid"


def replace_by_if_waiting(pump: Pump) -> None:
    """Publish a higher candidate where the first is not in a block."""
    if not pump.lsp.state.chain.depth(pump.attempt.funding_tx.txid):
        pump.chain.mempool.clear()
        replace_by(pump)


def test_who_spoils_one_candidate_is_named_with_it() -> None:
    pump = asked_for_keys(joined(2), len(FEERATES))
    ask_build(pump)
    culprit, attempt_id = pump.client_at(2), pump.attempt.attempt_id

    def spoil(message: m.SignBelow) -> list[m.SignBelow]:
        first, second, third = message.candidates
        spoilt = replace(second, partial_sigs=first.partial_sigs)
        return [replace(message, candidates=(first, spoilt, third))]

    with pump.tampering(only_from(culprit, spoil, m.SignBelow)):
        pump.run()
    (ended,) = [
        record
        for record in pump.lsp.store.remembered
        if isinstance(record, op.AttemptAborted) and record.attempt_id == attempt_id
    ]
    assert ended.culprits == (culprit.node_id,)
    assert ended.reason == "client 2: candidate 1: state_root: bad partial_sig"


def joined(n_clients: int) -> Pump:
    pump = Pump(n_clients)
    pump.join()
    return pump


def test_each_candidate_takes_nonces_of_its_own_one_after_the_other() -> None:
    """Of a client as many as its own branch has transactions, however many the tree has."""
    pump = funded(Pump(3))
    n_candidates = len(FEERATES)
    for propose in pump.sent(pump.lsp, m.Propose)[-3:]:
        taken = [use.index for one in propose.candidates for use in one.nonces]
        n_txs = len(propose.candidates[0].nonces)
        assert taken == [*range(n_candidates * n_txs)]
        assert n_txs < sum(1 for _ in pump.attempt.blueprint.tree.nodes)
