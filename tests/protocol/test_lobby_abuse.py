"""The lobby and the connections under attack: stolen keys, floods, the other role's words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import (
    OTHER_ID,
    at_height,
    culprits_of,
    heard,
    join_of,
    kept,
    left,
    lone,
    refusal,
    with_house,
    with_pool,
)
from tests.protocol.forge import NOT_A_POINT, stranger
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, UsualPump

from cromford import effects as fx
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.factory.kinds import VertexKind
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.client_candidate import pool_ids_of
from cromford.protocol.journal.kept import kept_join
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.mail import Found
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    FORGET_EVERY_BLOCKS,
    PAUSE_BLOCKS,
    UPTIME_WINDOW_BLOCKS,
)
from cromford.protocol.journal.streams import CHAIN, HOUSE
from cromford.protocol.lobby.build import MEMBERS_MAX, plan_build
from cromford.protocol.lobby.client import objection
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

IDS: Final = {"attempt_id": OTHER_ID, "terms_hash": OTHER_ID}
TWICE: Final = 2


# Keys


def test_the_factory_key_of_another_who_waits_is_refused() -> None:
    pump = Pump(2)
    pump.join(pump.clients[0])
    stolen = join_of(pump, pump.clients[0])
    assert "another participant" in refusal(heard(pump, pump.clients[1], stolen))


@pytest.mark.parametrize("ended", [False, True])
def test_a_factory_key_of_any_attempt_is_refused_for_ever(*, ended: bool) -> None:
    pump = Pump(3)
    thief = pump.clients[2]
    pump.join()
    fresh = left(pump, thief)
    pump.build()
    pump.run_to(m.SignBelow)
    attempt = pump.attempt
    if ended:
        owner = pump.client_at(1)
        pump.tell(pump.lsp, owner, m.Abort(attempt_id=attempt.attempt_id, reason=""))
    for pubkey in attempt.blueprint.factory_pubkeys:
        assert "another participant" in refusal(heard(pump, thief, with_pool(fresh, pubkey=pubkey)))


def test_a_client_cannot_join_again_with_keys_of_its_last_attempt() -> None:
    pump = Pump(2)
    pump.join()
    old = join_of(pump, pump.clients[0])
    pump.build()
    pump.run_to(m.SignBelow)
    attempt_id = pump.attempt.attempt_id
    pump.tell(pump.lsp, pump.clients[1], m.Abort(attempt_id=attempt_id, reason=""))
    assert "another participant" in refusal(heard(pump, pump.clients[0], old))


BAD_JOINS: Final[dict[str, Callable[[m.Join], m.Join]]] = {
    "factory_pool.pubkey": lambda join: with_pool(join, pubkey=NOT_A_POINT),
    "factory_pool: expected 64 nonces, received 63": lambda join: with_pool(
        join, pubnonces=join.factory_pool.pubnonces[1:]
    ),
    "factory_pool: expected 64 nonces, received 128": lambda join: with_pool(
        join, pubnonces=join.factory_pool.pubnonces * TWICE
    ),
    "factory_pool: the same nonce twice": lambda join: with_pool(
        join, pubnonces=(join.factory_pool.pubnonces[1], *join.factory_pool.pubnonces[1:])
    ),
    "factory_pool[0]": lambda join: with_pool(
        join, pubnonces=(NOT_A_POINT * TWICE, *join.factory_pool.pubnonces[1:])
    ),
    "payout_script": lambda join: replace(join, payout_script=b"\x6a"),
    "payout_script: expected P2WPKH, P2WSH or P2TR, received 51024e73": lambda join: replace(
        join, payout_script=ANCHOR_SCRIPT
    ),
    "payout_script: expected P2WPKH, P2WSH or P2TR, received 00020101": lambda join: replace(
        join, payout_script=b"\x00\x02\x01\x01"
    ),
    "candidates: expected 1..4, received 0": lambda join: replace(join, candidates=()),
    "candidates: expected 1..4, received 5": lambda join: replace(
        join, candidates=join.candidates * 5
    ),
    "candidates[0].pool.pubkey": lambda join: replace(
        join,
        candidates=(
            replace(join.candidates[0], pool=replace(join.candidates[0].pool, pubkey=stranger())),
        ),
    ),
    "candidates[0].channel.htlc_basepoint": lambda join: replace(
        join,
        candidates=(
            replace(
                join.candidates[0],
                channel=replace(join.candidates[0].channel, htlc_basepoint=NOT_A_POINT),
            ),
        ),
    ),
    "capacity_sat: expected 20000..10000000, received 50000..19999": lambda join: replace(
        join, capacity_sat=19_999
    ),
    "capacity_sat: expected 20000..10000000, received 18446744073709551615..": lambda join: replace(
        join, capacity_sat=2**64 - 1, capacity_least_sat=2**64 - 1
    ),
}


@pytest.mark.parametrize("reason", BAD_JOINS)
def test_a_join_that_cannot_be_met_is_refused_by_name_and_remembered_nowhere(reason: str) -> None:
    pump = UsualPump(1)
    pump.join()
    join = left(pump, pump.clients[0])
    assert heard(pump, pump.clients[0], join).records, "the unchanged one is taken"
    assert refusal(heard(pump, pump.clients[0], BAD_JOINS[reason](join))).startswith(reason)


# Floods


def test_a_repeated_join_is_answered_and_not_remembered_again() -> None:
    pump = Pump(1)
    pump.join()
    decision = heard(pump, pump.clients[0], join_of(pump, pump.clients[0]))
    assert decision.records == ()
    (effect,) = decision.effects
    assert isinstance(effect, fx.Send)
    assert isinstance(effect.message, m.Joined)


def test_who_waits_cannot_fill_the_journal_with_other_joins() -> None:
    pump = Pump(1)
    pump.join()
    other = with_pool(join_of(pump, pump.clients[0]), pubkey=stranger())
    assert "already waiting" in refusal(heard(pump, pump.clients[0], other))


def test_leaving_and_joining_again_does_not_fill_the_journal() -> None:
    pump = Pump(1)
    client = pump.clients[0]
    pump.join()
    join = join_of(pump, client)
    n_before = len(pump.lsp.store.entries)
    for n in range(1, 51):
        pump.tell(pump.lsp, client, m.Leave(factory_pubkey=join.factory_pool.pubkey))
        join = with_pool(join, pubkey=stranger(n))
        pump.tell(pump.lsp, client, join)
    size = sum(len(entry.record) for entry in pump.lsp.store.entries[n_before:])
    assert size < 20 * len(m.encode_message(join)), "bounded, whatever is sent"


def after_blocks(state: LspState, n_blocks: int) -> LspState:
    """Return the state after the house heard of so many empty blocks."""
    for n in range(n_blocks):
        block = Found(height=state.house.chain.height + 1, block_hash=n.to_bytes(32, "big"), txs=())
        number = state.house.post.taken.get(CHAIN, 0) + 1
        state = lsp_role.apply(state, HOUSE, MailTaken(sender=CHAIN, number=number, mail=block))
    return state


def test_who_was_away_for_the_whole_window_is_forgotten() -> None:
    pump = Pump(1)
    client = pump.clients[0]
    pump.join()
    pump.mine()
    assert pump.lsp.state.house.uptime_blocks(client.node_id) > 0
    pump.disconnect(client)
    pump.mine()
    state = after_blocks(pump.lsp.state, UPTIME_WINDOW_BLOCKS + FORGET_EVERY_BLOCKS)
    assert client.node_id not in state.house.uptime


def test_an_lsp_that_repeats_itself_does_not_fill_a_clients_journal() -> None:
    pump = Pump(2)
    pump.join()
    client = pump.clients[0]
    pubkey = join_of(pump, client).factory_pool.pubkey
    lobby = pump.sent(pump.lsp, m.Lobby)[0]
    words: list[m.Message] = [
        lobby,
        replace(lobby, capacity_min_sat=1),
        m.Joined(factory_pubkey=pubkey, waiting=1),
        m.Joined(factory_pubkey=stranger(), waiting=1),
        m.Refused(factory_pubkey=stranger(), reason="no"),
        m.Refused(factory_pubkey=pubkey, reason="changed my mind"),
        m.Abort(attempt_id=OTHER_ID, reason="no"),
        m.ChannelReady(**IDS, funding_txid=OTHER_ID),
    ]
    for word in words:
        event = ev.MessageReceived(node_id=pump.lsp.node_id, message=word)
        assert client_role.decide(client.state, event).is_nothing, word
    pump.build()
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    ready = pump.sent(pump.lsp, m.ChannelReady)[0]
    event = ev.MessageReceived(node_id=pump.lsp.node_id, message=ready)
    assert client_role.decide(client.state, event).is_nothing


def test_an_lsp_that_proposes_and_aborts_for_ever_does_not_fill_a_clients_journal() -> None:
    pump = Pump(2)
    pump.join()
    client = pump.clients[0]
    n_before = len(client.store.entries)
    for _ in range(20):
        joining = client.state.joining
        if joining is None:
            break
        propose = m.Propose(
            factory_pubkey=joining.join.factory_pool.pubkey,
            attempt_id=bytes(pump.rng.randbytes(32)),
            terms_hash=OTHER_ID,
            terms=b"",
            client=1,
            factory_pubkeys=(),
            candidates=(),
        )
        # The client's chain is slow: it has not looked up any coin when the abort comes.
        pump.lsp_says(client, propose, answers_coins=False)
        pump.lsp_says(client, m.Abort(attempt_id=propose.attempt_id, reason="no"))

    def n_joins() -> int:
        records = client.store.remembered[n_before:]
        return sum(isinstance(record, lr.JoinSent) for record in records)

    n_before_the_pause = n_joins()
    assert 0 < n_before_the_pause <= ABORTS_TO_PAUSE
    assert client.state.wish is not None
    assert client.state.joining is None
    for _ in range(PAUSE_BLOCKS):
        pump.mine()
    assert n_joins() == n_before_the_pause + 1, "after the pause it joins again by itself"


@pytest.mark.parametrize("pool_size", [0, 1, 63, 257, 500, 4096, 4097, 2**64 - 1])
def test_a_lobby_with_pools_of_another_size_is_not_joined_and_the_client_lives(
    pool_size: int,
) -> None:
    """Fewer are no pool, and more would not fit the message: either once ended the daemon."""
    pump = UsualPump(1)
    client = pump.clients[0]
    lobby = replace(pump.sent(pump.lsp, m.Lobby)[0], pool_size=pool_size)
    pump.handle(client, ev.ConnectionOpened(node_id=pump.lsp.node_id))
    wish = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
    pump.handle(client, wish)
    pump.tell(client, pump.lsp, lobby)
    pump.mine()
    assert not pump.wishes(client, fx.PrepareJoin)
    assert objection(client.state) == f"pools of {pool_size} nonces, expected 64..256"
    assert not pump.wishes(client, fx.Disconnect), "it may have channels"


def test_a_join_with_the_largest_pools_fits_one_message() -> None:
    most = client_role.new_client(Pump(1).clients[0].state.config).config.policy.pool_size[1]
    pump = Pump(1, policy=LspPolicy(min_clients=1, pool_size=most))
    pump.join()
    pump.build()
    pump.run()
    assert pump.is_funded()


@pytest.mark.parametrize("how", ["reconnect", "abort", "refused", "leave", "finish"])
def test_no_nonce_pool_outlives_what_it_was_made_for(how: str) -> None:
    """A pool that is never dropped is a leak, and enough of them end the daemon."""
    pump = Pump(2)
    client = pump.clients[0]
    assert client.signer is not None
    pump.join()
    old = set(pool_ids_of(kept_join(join_of(pump, client))))
    assert set(client.signer._pools) == old
    match how:
        case "reconnect":
            pump.disconnect(client)
            pump.connect(client)
            pump.run()
        case "abort":
            pump.build()
            pump.run_to(m.SignBelow)
            abort = m.Abort(attempt_id=pump.attempt.attempt_id, reason="")
            pump.tell(client, pump.lsp, abort)
        case "refused":
            pump.disconnect(client)
            pump.connect(client)
            pubkey = join_of(pump, client).factory_pool.pubkey
            pump.wire.clear()
            pump.run()
            pump.tell(client, pump.lsp, pump.sent(pump.lsp, m.Lobby)[0])
            pubkey = join_of(pump, client).factory_pool.pubkey
            pump.tell(client, pump.lsp, m.Refused(factory_pubkey=pubkey, reason="no"))
        case "leave":
            pump.handle(client, ev.LeaveRequested())
        case _:
            pump.build()
            pump.run()
    held = set() if client.state.joining is None else set(pool_ids_of(client.state.joining.join))
    assert not held & old
    assert set(client.signer._pools) == held


# The other role's words, and noise


LSP_WORDS: Final[list[m.Message]] = [
    m.Joined(factory_pubkey=stranger(), waiting=1),
    m.Refused(factory_pubkey=stranger(), reason=""),
    m.Propose(
        **IDS, factory_pubkey=bytes(33), terms=b"", client=1, factory_pubkeys=(), candidates=()
    ),
    m.SignedBelow(**IDS, candidates=()),
    m.SignedRoot(**IDS, signatures=()),
    m.Lobby(
        network=OTHER_ID,
        candidates=1,
        capacity_min_sat=1,
        capacity_max_sat=1,
        min_clients=1,
        max_clients=1,
        pool_size=64,
        deadline_seconds=1,
        fee_base_msat=0,
        fee_proportional_millionths=0,
    ),
]


@pytest.mark.parametrize("message", LSP_WORDS, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("in_ceremony", [False, True])
def test_a_client_that_speaks_as_an_lsp_is_dropped(
    message: m.Message, *, in_ceremony: bool
) -> None:
    pump = Pump(2)
    liar = pump.clients[0]
    if in_ceremony:
        pump.join()
        pump.build()
        pump.run_to(m.SignBelow)
    pump.tell(pump.lsp, liar, message)
    (drop,) = pump.wishes(pump.lsp, fx.Disconnect)
    assert drop.node_id == liar.node_id
    if in_ceremony:
        assert culprits_of(pump.attempt) == (liar.node_id,)
        pump.run()
        assert pump.is_funded(), "the other one finished"
        assert len(pump.attempt.seats) == 1


CLIENT_WORDS: Final[list[m.Message]] = [
    m.Leave(factory_pubkey=stranger()),
    m.SignBelow(**IDS, candidates=()),
    m.SignRoot(**IDS, partial_sigs=()),
    m.Acknowledge(**IDS),
    m.Resume(**IDS),
]


@pytest.mark.parametrize("message", CLIENT_WORDS, ids=lambda message: type(message).__name__)
def test_an_lsp_that_speaks_as_a_client_is_dropped(message: m.Message) -> None:
    pump = lone()
    event = ev.MessageReceived(node_id=pump.lsp.node_id, message=message)
    decision = client_role.decide(pump.clients[0].state, event)
    (effect,) = decision.effects
    assert isinstance(effect, fx.Disconnect)
    assert decision.records == ()


def test_an_lsp_that_joins_its_own_client_is_dropped() -> None:
    pump = lone()
    join = join_of(pump, pump.clients[0])
    event = ev.MessageReceived(node_id=pump.lsp.node_id, message=join)
    (effect,) = client_role.decide(pump.clients[0].state, event).effects
    assert isinstance(effect, fx.Disconnect)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", [m.Propose, m.SignBelow, m.SignedBelow, m.SignRoot, m.SignedRoot])
def test_noise_ends_the_ceremony_of_its_sender_and_no_daemon(kind: type[m.Message]) -> None:
    pump = Pump(3)
    pump.join()
    pump.build()
    pump.run_to(kind)
    first = pump.attempt
    noisy = pump.client_at(1)
    pump.handle(pump.lsp, ev.MessageMalformed(node_id=noisy.node_id, reason="noise"))
    pump.handle(pump.lsp, ev.MessageMalformed(node_id=noisy.node_id, reason="more noise"))
    pump.run()
    assert culprits_of(pump.lsp.state.attempts[first.attempt_id]) == (noisy.node_id,)
    assert len(pump.lsp.state.house.faults[noisy.node_id]) == 1, "one ceremony, one fault"
    assert pump.is_funded()
    assert len(pump.attempt.seats) == 2


@pytest.mark.parametrize("kind", [m.Propose, m.SignedBelow])
def test_noise_of_the_lsp_ends_the_connection_and_the_client_joins_again(
    kind: type[m.Message],
) -> None:
    pump = Pump(3)
    pump.join()
    pump.build()
    pump.run_to(kind)
    client = pump.client_at(1)
    pump.handle(client, ev.MessageMalformed(node_id=pump.lsp.node_id, reason="noise"))
    pump.run()
    assert client.name not in pump.links
    pump.connect(client)
    pump.run()
    assert client.state.joining is not None
    assert client.state.joining.is_accepted


def test_a_build_whose_proposal_would_not_fit_a_message_is_refused_with_its_size() -> None:
    """A binary tree of many clients, with a fee ladder: every candidate has a long branch."""
    binary = LspPolicy(min_clients=1, max_clients=1024, step_blocks=1, inner_kind=VertexKind.DW)
    pump = Pump(2, policy=binary)
    pump.join()
    house = pump.lsp.state.house
    template = next(iter(house.members.values()))
    crowd = {
        node_id: replace(template, node_id=node_id)
        for node_id in (n.to_bytes(33, "big") for n in range(1000))
    }
    crowded = replace(
        house,
        members=crowd,
        connected=frozenset(crowd),
        config=replace(
            house.config, policy=replace(house.config.policy, max_exit_delay_blocks=65_000)
        ),
    )
    with pytest.raises(Rejected, match="proposal of at most 65535 bytes"):
        plan_build(
            crowded,
            min_clients=1,
            max_clients=1000,
            feerates_sat_per_kw=(500, 2_000, 7_500, 20_000),
            needs_keys=False,
        )


def test_who_connects_and_never_joins_leaves_no_trace() -> None:
    pump = Pump(1)
    assert pump.lsp.driver is not None
    n_before = len(pump.lsp.store.entries)
    for n in range(1, 20):
        node_id = stranger(n)
        pump.handle(pump.lsp, ev.ConnectionClosed(node_id=node_id))
        decision = lsp_role.decide(pump.lsp.state, ev.ConnectionOpened(node_id=node_id))
        assert kept(decision) == ()
        (greeted,) = decision.effects
        assert isinstance(greeted, fx.Send)
        assert isinstance(greeted.message, m.Lobby)
        pump.lsp.driver.state = decision.state  # as if it were here
    assert len(pump.lsp.store.entries) == n_before
    pump.mine()
    journal = b"".join(entry.record for entry in pump.lsp.store.entries)
    assert not any(stranger(n) in journal for n in range(1, 20)), "nor does a block that it sees"


def test_who_waits_no_more_and_has_no_channel_leaves_no_trace_when_it_comes_back() -> None:
    pump = Pump(2)
    known, owner = pump.clients
    pump.join(owner)
    pump.build()
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    pump.join(known)
    pump.disconnect(known)
    n_before = len(pump.lsp.store.entries)
    for _ in range(20):
        for event in (ev.ConnectionOpened, ev.ConnectionClosed):
            pump.handle(pump.lsp, event(node_id=known.node_id))
    assert len(pump.lsp.store.entries) == n_before
    pump.mine()
    assert known.node_id not in b"".join(entry.record for entry in pump.lsp.store.entries)
    n_before = len(pump.lsp.store.entries)
    pump.disconnect(owner)
    pump.connect(owner)
    assert len(pump.lsp.store.entries) > n_before, "its channel depends on it"


def test_names_that_came_once_are_forgotten_once_their_joins_no_longer_count() -> None:
    pump = Pump(1)
    pump.join()
    state = pump.lsp.state
    join = state.house.members[pump.clients[0].node_id].join
    for n in range(50):
        joined = lr.ClientJoined(
            node_id=stranger(n + 1), message=m.encode_message(join), is_moving=False
        )
        state = lsp_role.apply(state, HOUSE, joined)
    assert len(state.house.joins) == 51
    assert not after_blocks(state, PAUSE_BLOCKS + 1).house.joins


def test_a_client_has_a_seat_while_it_signs_and_until_its_factory_expires() -> None:
    pump = Pump(2)
    first, second = pump.clients
    pump.join(first)
    assert not pump.lsp.state.has_seat(first.node_id)
    pump.build()
    pump.run_to(m.SignBelow)
    assert pump.lsp.state.has_seat(first.node_id)
    pump.run()
    assert pump.is_funded()
    state = pump.lsp.state
    assert state.has_seat(first.node_id)
    assert not state.has_seat(second.node_id)
    later = at_height(state, pump.attempt.terms.expiry_height)
    assert not later.has_seat(first.node_id)


def test_who_is_waited_for_to_join_again_is_no_stranger_whose_word_may_be_heard_late() -> None:
    """All strangers share one budget, and whoever does not join again in time pays for that."""
    pump = Pump(3, policy=LspPolicy(min_clients=2))
    pump.join()
    pump.build(min_clients=2)
    pump.run_to(m.SignBelow)
    culprit, *staying = pump.clients
    pump.disconnect(culprit)
    assert pump.deadlines_of(fx.RejoinDeadline)
    assert [pump.lsp.state.has_seat(client.node_id) for client in staying] == [True, True]
    assert not pump.lsp.state.has_seat(culprit.node_id)
    pump.wire.clear()
    pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
    assert pump.lsp.state.house.build is None
    assert not any(pump.lsp.state.has_seat(client.node_id) for client in staying)


def test_a_full_lobby_says_so() -> None:
    pump = Pump(2)
    pump.join()
    first, second = pump.clients
    join = join_of(pump, second)
    member = pump.lsp.state.house.members[first.node_id]
    crowd = {n.to_bytes(33, "big"): member for n in range(MEMBERS_MAX)}
    full = with_house(pump.lsp.state, members=crowd)
    decision = lsp_role.decide(full, ev.MessageReceived(node_id=second.node_id, message=join))
    assert "the lobby is full" in refusal(decision)
