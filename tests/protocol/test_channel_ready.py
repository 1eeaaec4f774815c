"""`channel_ready`: who says it and when, what counts as one, and what a client waits for."""

from dataclasses import replace

import pytest
from tests.protocol.attacks import confirm, nothing, only_from, only_to, proposed
from tests.protocol.ladders import DEPTH, candidates
from tests.protocol.ladders import funded as with_ladder
from tests.protocol.old_states import told
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.opening.client import watched
from cromford.protocol.opening.funding import is_too_late
from cromford.protocol.policy import LspPolicy
from cromford.shelf import Shelf
from cromford.wire import messages as m

POLICY = LspPolicy(min_clients=1, min_depth=3, patience_blocks=6)
AGAIN = (m.Resume, m.Acknowledge, m.ChannelReady)


def signed(n_clients: int = 2, policy: LspPolicy = POLICY) -> Pump:
    """Return a factory of which everything is signed, and whose funding waits."""
    pump = proposed(n_clients, policy=policy, watches_folds=True)
    pump.run()
    assert pump.is_funded()
    return pump


def n_ready(pump: Pump, node: PumpNode, client: PumpNode | None = None) -> int:
    """Return how often a node said it, to one client if one is named."""
    said = [wish for wish in pump.wishes(node, fx.Send) if isinstance(wish.message, m.ChannelReady)]
    return sum(client is None or wish.node_id == client.node_id for wish in said)


def reconnect(pump: Pump, client: PumpNode) -> None:
    pump.disconnect(client)
    pump.connect(client)
    pump.run()


# The LSP


def test_the_lsp_says_it_once_at_the_agreed_depth_and_again_in_each_connection() -> None:
    pump = signed()
    alice, bob = pump.clients
    pump.mine(2)
    reconnect(pump, alice)
    assert n_ready(pump, pump.lsp) == 0
    pump.mine()
    assert [n_ready(pump, pump.lsp, client) for client in pump.clients] == [1, 1]
    pump.mine()
    reconnect(pump, alice)
    assert [n_ready(pump, pump.lsp, client) for client in pump.clients] == [2, 1]
    assert [n_ready(pump, client) for client in pump.clients] == [2, 1]
    assert len(told(pump.lsp, op.ReadySent)) == 1
    received = [(one.node_id, one.rung) for one in told(pump.lsp, op.ReadyReceived)]
    assert sorted(received) == sorted((client.node_id, 0) for client in (alice, bob))
    assert newest_link(alice).is_open, "it goes on where it was"
    assert not told(alice, lr.WishWithdrawn), "its wish was met"


def test_of_a_channel_whose_keys_we_hold_nothing_is_said_any_more() -> None:
    pump = signed()
    pump.mine(3)
    alice, bob = pump.clients
    for client in pump.clients:
        pump.disconnect(client)
    state = pump.lsp.state
    seat = pump.attempt.client_of(alice.node_id)
    assert seat is not None
    held = state.with_factory(replace(pump.factory, held_keys=frozenset({seat})))
    for client, is_told in ((alice, False), (bob, True)):
        decision = lsp_role.decide(held, ev.ConnectionOpened(node_id=client.node_id))
        sent = [one.message for one in decision.effects if isinstance(one, fx.Send)]
        assert any(isinstance(message, m.ChannelReady) for message in sent) is is_told


def test_who_found_it_ready_before_the_lsp_did_is_taken_up_with_the_lsps_own_block() -> None:
    """And who did not yet, with its word: in the same connection."""
    pump = signed()
    early, late = pump.clients
    pump.blind = {pump.lsp.name, late.name}
    pump.mine(3)
    assert [n_ready(pump, client) for client in pump.clients] == [1, 0]
    assert not pump.sent(pump.lsp, m.ChannelReestablish)
    pump.blind = {late.name}
    pump.sync()
    pump.run()
    assert newest_link(early).is_open
    assert len(pump.sent(pump.lsp, m.ChannelReestablish)) == 1
    assert len(pump.wishes(pump.lsp, fx.PrepareNonce)) == 1
    pump.blind = set()
    pump.sync()
    pump.run()
    assert newest_link(late).is_open


def test_nobody_makes_a_factory_ready_that_is_not_funded() -> None:
    """A client knows the funding's txid before there is a funding."""
    pump = signed_but_not_acknowledged()
    hasty = pump.client_at(1)
    before = pump.lsp.state
    pump.tell(pump.lsp, hasty, ready_for(pump, pump.attempt.funding_tx))
    assert pump.lsp.state == before
    assert not pump.lsp.state.stopped


def test_an_lsp_that_starts_again_publishes_a_funding_that_is_in_no_block_and_no_other() -> None:
    pump = signed(1)

    def n_published_by_a_start() -> int:
        before = len(pump.wishes(pump.lsp, fx.Broadcast))
        pump.restart(pump.lsp)
        return len(pump.wishes(pump.lsp, fx.Broadcast)) - before

    assert n_published_by_a_start() == 1
    pump.mine()
    assert n_published_by_a_start() == 0
    n_before = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine(3)
    assert n_published_by_a_start() == 0
    assert len(pump.wishes(pump.lsp, fx.Broadcast)) == n_before


def signed_but_not_acknowledged() -> Pump:
    pump = proposed(2, policy=POLICY)
    with pump.tampering(only_from(pump.client_at(2), nothing, m.Acknowledge)):
        pump.run()
    return pump


def ready_for(pump: Pump, tx: Tx) -> m.ChannelReady:
    attempt = pump.attempt
    return m.ChannelReady(
        attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash, funding_txid=tx.txid
    )


def test_another_funding_than_the_agreed_one_counts_for_neither_side() -> None:
    pump = signed()
    other = replace(pump.attempt.funding_tx, nlocktime=1)
    client = pump.clients[0]
    pump.tell(pump.lsp, client, ready_for(pump, other))
    pump.lsp_says(client, ready_for(pump, other))
    pump.tell(pump.lsp, client, replace(ready_for(pump, pump.published[0]), terms_hash=bytes(32)))
    assert (told(pump.lsp, op.ReadyReceived), told(client, op.ReadyReceived)) == ([], [])


def test_a_channel_is_begun_in_the_candidate_that_the_lsp_has_in_a_block_and_in_no_other() -> None:
    """A client whose chain shows another candidate is heard, and waits for nothing of it."""
    pump = with_ladder(Pump(2))
    client = pump.clients[0]
    first, second, _ = (one.blueprint.funding_tx for one in pump.attempt.ladder)
    pump.tell(pump.lsp, client, ready_for(pump, second))
    (heard,) = told(pump.lsp, op.ReadyReceived)
    assert (heard.node_id, heard.rung) == (client.node_id, 1)
    assert not pump.wishes(pump.lsp, fx.PrepareNonce)
    pump.blind = {one.name for one in pump.clients}
    pump.mine(DEPTH)
    pump.tell(pump.lsp, client, ready_for(pump, second))
    assert not pump.wishes(pump.lsp, fx.PrepareNonce)
    pump.tell(pump.lsp, client, ready_for(pump, first))
    assert [one.rung for one in told(pump.lsp, op.ReadyReceived)] == [1, 0]
    assert len(pump.wishes(pump.lsp, fx.PrepareNonce)) == 1


def test_a_funding_is_too_late_only_where_it_is_in_no_block_and_was_never_ready() -> None:
    pump = signed(1)
    last = pump.attempt.blueprint.ready_height_max

    def is_late(height: int, *, is_away: bool = False) -> bool:
        tip = replace(pump.factory.chain.recent[-1], height=height)
        factory = pump.factory.at((tip,))
        chain = replace(factory.chain, confirmed=Shelf()) if is_away else factory.chain
        return is_too_late(replace(factory, chain=chain))

    assert [is_late(height) for height in (last - 1, last)] == [False, True]
    pump.mine()
    assert not is_late(last)
    assert is_late(last, is_away=True), "a reorganisation took it back"
    pump.mine(2)
    assert not is_late(last, is_away=True), "there may be money in it"


# A client


def test_a_client_without_its_branch_takes_no_word_that_it_is_ready() -> None:
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]
    pump.run_to(m.SignedRoot)
    before = client.state
    pump.lsp_says(client, ready_for(pump, pump.attempt.funding_tx))
    assert client.state == before


def test_the_lsps_word_is_written_down_once_and_for_the_candidate_that_it_names_last() -> None:
    pump = with_ladder(Pump(1))
    client = pump.clients[0]
    first, second, _ = (one.blueprint.funding_tx for one in pump.attempt.ladder)
    for tx in (first, first, second, second, first):
        pump.lsp_says(client, ready_for(pump, tx))
        if client.name not in pump.links:
            pump.connect(client)
    assert [one.rung for one in told(client, op.ReadyReceived)] == [0, 1, 0]


def test_an_lsp_that_names_one_candidate_after_another_is_parted_from() -> None:
    """An honest one names the one that its channels are in: else it would fill our journal."""
    pump = with_ladder(Pump(1))
    client = pump.clients[0]
    first, second, third = (one.blueprint.funding_tx for one in pump.attempt.ladder)
    asked = ev.MessageReceived(node_id=pump.lsp.node_id, message=ready_for(pump, first))
    heard = client_role.decide(client.state, asked, client.facts)
    assert not [one for one in heard.effects if isinstance(one, fx.Disconnect)]
    for tx in (second, third):
        changed = replace(asked, message=ready_for(pump, tx))
        decision = client_role.decide(heard.state, changed, client.facts)
        assert [one.rung for one in decision.records if isinstance(one, op.ReadyReceived)]
        (parted,) = (one for one in decision.effects if isinstance(one, fx.Disconnect))
        assert parted.node_id == pump.lsp.node_id


def test_what_a_client_says_again_in_a_new_connection_is_what_its_lsp_may_not_know() -> None:
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]

    def said_again() -> list[type[m.Message]]:
        n_before = len(pump.wished)
        pump.disconnect(client)
        pump.connect(client)
        wishes = pump.wished[n_before:]
        pump.wire.clear()
        sent = [one.effect for one in wishes if one.node == client.name]
        messages = [one.message for one in sent if isinstance(one, fx.Send)]
        return [type(message) for message in messages if isinstance(message, AGAIN)]

    with pump.tampering(only_to(client, nothing, m.SignedRoot)):
        pump.run()
    (root,) = pump.sent(pump.lsp, m.SignedRoot)
    assert said_again() == [m.Resume], "it signed the root, and may lack it"
    pump.lsp_says(client, root)
    pump.wire.clear()
    assert said_again() == [m.Acknowledge], "it holds everything, and the LSP may not know it"
    confirm(pump, client, pump.attempt.funding_tx, depth=3)
    pump.wire.clear()
    assert said_again() == [m.ChannelReady]


@pytest.mark.parametrize("kind", [m.SignedBelow, m.SignedRoot, m.Acknowledge])
def test_of_what_its_lsp_called_over_a_client_says_nothing_again(kind: type[m.Message]) -> None:
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]
    pump.run_to(kind)
    pump.wire.clear()
    attempt_id = pump.attempt.attempt_id
    pump.lsp_says(client, m.Abort(attempt_id=attempt_id, reason="not now"))
    before = len(pump.wished)
    reconnect(pump, client)
    sent = [one.effect for one in pump.wished[before:] if one.node == client.name]
    assert not [one for one in sent if isinstance(one, fx.Send) and isinstance(one.message, AGAIN)]


def test_an_lsp_cannot_call_a_factory_over_that_its_client_found_ready() -> None:
    pump = signed()
    client = pump.clients[0]
    confirm(pump, client, pump.published[0], depth=3)
    assert pump.held(client).ready_sent
    before = client.state
    pump.lsp_says(client, m.Abort(attempt_id=pump.attempt.attempt_id, reason="it is mine"))
    assert client.state == before


# What a client waits for


def show(pump: Pump, client: PumpNode, *txs: Tx, n_blocks: int = 1) -> None:
    """Show a client blocks, of which the first has these transactions."""
    for n in range(n_blocks):
        height = client.state.chain.height + 1
        event = ev.BlockAdded(
            height=height, block_hash=pump.chain.blocks[0][0], txs=() if n else txs
        )
        pump.handle(client, event)


def show_to(pump: Pump, client: PumpNode, height: int) -> None:
    show(pump, client, n_blocks=height - client.state.chain.height)


def take_back(pump: Pump, client: PumpNode, n_blocks: int) -> None:
    for _ in range(n_blocks):
        pump.handle(client, ev.BlockRemoved(height=client.state.chain.height))


def given_up(client: PumpNode) -> list[int | None]:
    """Return the rungs with which a client gave a wait up, as often as it did."""
    return [one.rung for one in told(client, op.WaitGivenUp)]


def test_a_client_waits_for_as_long_as_was_agreed_and_gives_up_once() -> None:
    pump = signed()
    client = pump.clients[0]
    end_height = pump.attempt.terms.patience_end_height
    show_to(pump, client, end_height - 1)
    assert given_up(client) == []
    show(pump, client)
    assert given_up(client) == [None]
    show(pump, client, n_blocks=3)
    assert given_up(client) == [None]


def test_a_funding_in_a_block_is_waited_for_beyond_the_patience() -> None:
    """It may still be used: what counts is the height that it is in."""
    pump = signed()
    client = pump.clients[0]
    end_height = pump.attempt.terms.patience_end_height
    show_to(pump, client, end_height - 2)
    show(pump, client, pump.published[0], n_blocks=2)
    assert client.state.chain.height == end_height
    assert given_up(client) == []
    show(pump, client)
    assert pump.held(client).ready_sent


BRIEF = replace(POLICY, active_blocks=150, ready_min_blocks=140, dying_blocks=144)


@pytest.mark.parametrize("late", [0, 1])
def test_the_last_block_that_may_have_it_is_the_agreed_one(late: int) -> None:
    pump = signed(policy=replace(BRIEF, patience_blocks=144))
    client = pump.clients[0]
    show_to(pump, client, pump.held(client).branch.ready_height_max - 1 + late)
    show(pump, client, pump.published[0])
    assert given_up(client) == [None] * late
    show(pump, client, n_blocks=2)
    assert pump.held(client).ready_sent is not bool(late)


def test_a_factory_that_was_ready_is_not_given_up_because_its_funding_is_away_for_long() -> None:
    """A reorganisation took it back: there is money in it, whenever it confirms again."""
    pump = signed()
    client = pump.clients[0]
    show(pump, client, pump.published[0], n_blocks=3)
    take_back(pump, client, 3)
    show_to(pump, client, pump.held(client).terms.patience_end_height + 1)
    assert given_up(client) == []


@pytest.mark.parametrize("was_ready", [False, True])
def test_a_wait_ends_once_another_spend_of_its_coin_is_as_deep_as_a_funding_has_to_be(
    *, was_ready: bool
) -> None:
    pump = signed(policy=replace(POLICY, patience_blocks=144))
    client = pump.clients[0]
    if was_ready:
        show(pump, client, pump.published[0], n_blocks=3)
        take_back(pump, client, 3)
    rival = replace(pump.published[0], nlocktime=1)
    show(pump, client, rival, n_blocks=2)
    assert given_up(client) == []
    show(pump, client)
    assert given_up(client) == [None]
    show(pump, client, n_blocks=2)
    assert given_up(client) == [None], "once"


@pytest.mark.parametrize("kind", [m.SignedBelow, m.SignedRoot, m.Acknowledge])
def test_what_ended_is_not_waited_for_and_not_given_up(kind: type[m.Message]) -> None:
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]
    pump.run_to(kind)
    pump.wire.clear()
    pump.lsp_says(client, m.Abort(attempt_id=pump.attempt.attempt_id, reason="not now"))
    pump.wire.clear()
    show_to(pump, client, pump.attempt.terms.patience_end_height + 1)
    assert given_up(client) == []


def test_before_the_root_is_signed_no_funding_is_waited_for() -> None:
    """A wait that ends with its connection needs no patience, and nothing is known of its coins."""
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]
    pump.answers_coins = False
    pump.run()
    show_to(pump, client, pump.attempt.terms.patience_end_height + 1)
    assert (given_up(client), pump.held(client).is_open) == ([], True)


def test_what_takes_the_place_of_a_candidate_that_was_live_is_told_by_its_rung() -> None:
    pump = with_ladder(Pump(1))
    client = pump.clients[0]
    first, second, _ = candidates(pump)
    show(pump, client, first, n_blocks=DEPTH)
    assert pump.held(client).ready_sent
    take_back(pump, client, DEPTH)
    show(pump, client, second, n_blocks=DEPTH)
    assert given_up(client) == [1]


def test_a_client_looks_for_spends_of_the_coins_from_its_root_on_until_the_funding_is_live() -> (
    None
):
    pump = proposed(1, policy=POLICY)
    client = pump.clients[0]
    coins = {tx_in.outpoint for tx_in in pump.attempt.funding_tx.inputs}
    pump.run_to(m.SignedBelow)
    assert watched(client.state) == frozenset()
    pump.run_to(m.SignedRoot)
    assert watched(client.state) == coins
    pump.run()
    assert watched(client.state) == coins
    show(pump, client, pump.published[0])
    assert watched(client.state) == coins, "it is not ready"
    show(pump, client, n_blocks=2)
    assert watched(client.state) == frozenset()
    take_back(pump, client, 3)
    assert watched(client.state) == coins, "it is waited for again"
