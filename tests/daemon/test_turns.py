"""Turns, budgets and deadlines: nobody starves another, and nobody is blamed for the LSP's load."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cromford import effects as fx
from cromford.channel.terms import HTLCS_MAX
from cromford.daemon.budgets import (
    FAILURE_WAIT_SECONDS_MAX,
    FAILURES,
    FAILURES_BEHIND_MAX,
    OWNER_WORK,
    STRANGER_WORK,
    Budgets,
    work_ms,
)
from cromford.daemon.deadlines import LATE_SECONDS, Deadlines, Due
from cromford.daemon.peers import Peers
from cromford.daemon.turns import STRANGER_TURN_EVERY, Turns
from cromford.ports import ConnectionLost
from cromford.protocol import events as ev
from cromford.protocol.channels.signing import REVOCATION_SECONDS
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

ALICE, BOB, NOISY = (bytes([2]) + bytes([n]) * 32 for n in (1, 2, 3))
CEREMONY = Due("factory:1", fx.AttemptDeadline(attempt_id=bytes(32)))
WORD = m.Leave(factory_pubkey=ALICE)


class Line:
    """A connection whose peer has said some things already, and then is silent or hangs up."""

    def __init__(self, node_id: bytes, n_messages: int, *, ends: bool = True) -> None:
        self.node_id = node_id
        self.n_left = n_messages
        self.ends = ends
        self.closed = asyncio.Event()

    async def send(self, *_messages: bytes) -> None:
        """Nobody listens."""

    async def receive(self) -> bytes:
        # Without a pause, as from a socket that has more than anybody can read.
        if self.n_left:
            self.n_left -= 1
            return encode_message(WORD)
        if not self.ends:
            await self.closed.wait()
        raise ConnectionLost("that was all")

    async def close(self) -> None:
        self.closed.set()


class Clock:
    """A clock that goes on only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    async def pause(self, _event: asyncio.Event, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Hearing:
    """Peers, and who was heard, in order."""

    def __init__(self, *, owners: frozenset[bytes] = frozenset((ALICE, BOB))) -> None:
        self.order: list[bytes] = []
        self.clock = Clock()
        self.budgets = Budgets(lambda node_id: node_id in owners)
        self.peers = Peers(self.post, self.budgets, clock=self.read, pause=self.clock.pause)

    def read(self) -> float:
        return self.clock.now

    def post(self, event: ev.Event) -> None:
        if isinstance(event, ev.MessageReceived):
            self.order.append(event.node_id)

    async def hear(self, *lines: Line) -> None:
        await asyncio.gather(*(self.peers.run(line) for line in lines))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(main())


def test_who_says_a_thousand_things_does_not_keep_another_waiting() -> None:
    hearing = Hearing()

    async def scenario() -> None:
        await hearing.hear(Line(ALICE, 1000), Line(BOB, 3))

    run(scenario())
    assert len(hearing.order) == 1003
    last_of_bob = max(n for n, node_id in enumerate(hearing.order) if node_id == BOB)
    assert last_of_bob <= 6, "in turn, one by one"


def test_strangers_wait_for_those_with_channels_but_not_for_ever() -> None:
    order: list[str] = []

    async def scenario() -> None:
        turns = Turns()

        async def speak(name: str, n_times: int, *, is_stranger: bool) -> None:
            for _ in range(n_times):
                await turns.take(is_stranger=is_stranger)
                order.append(name)

        owners = (speak(f"owner {n}", 20, is_stranger=False) for n in range(2))
        strangers = (speak("stranger", 1, is_stranger=True) for _ in range(4))
        await asyncio.gather(*strangers, *owners)

    run(scenario())
    at = [n for n, name in enumerate(order) if name == "stranger"]
    assert at == [n * STRANGER_TURN_EVERY + STRANGER_TURN_EVERY - 1 for n in range(4)]


def test_who_goes_away_while_it_waits_takes_no_turn() -> None:
    async def scenario() -> None:
        turns = Turns()
        gone = asyncio.create_task(turns.take(is_stranger=False))
        await asyncio.sleep(0)
        gone.cancel()
        await turns.take(is_stranger=False)

    run(scenario())


@pytest.mark.parametrize(
    ("node_id", "rate"),
    [(NOISY, STRANGER_WORK), (ALICE, OWNER_WORK)],
    ids=["a stranger", "somebody with a channel"],
)
def test_beyond_its_budget_a_peer_is_heard_at_the_pace_of_its_rate(
    node_id: bytes, rate: Any
) -> None:
    hearing = Hearing()
    cost_ms = work_ms(encode_message(WORD))
    n_messages = int(2 * rate.burst / cost_ms)

    async def scenario() -> None:
        await hearing.hear(Line(node_id, n_messages))

    run(scenario())
    assert len(hearing.order) == n_messages, "slower, and not lost"
    owed_ms = n_messages * cost_ms - rate.burst
    assert hearing.clock.now == pytest.approx(owed_ms / rate.per_second, rel=0.05)


def test_who_buys_in_vain_all_the_time_uses_up_what_that_costs() -> None:
    """Of a purchase that is refused no question is counted, and it costs 2 ms each time."""
    buy = encode_message(m.Buy(attempt_id=bytes(32), quote_id=bytes(32), payment_hash=b""))
    budgets, n_heard = Budgets(lambda _node_id: True), 0
    while not budgets.wait_seconds(ALICE, buy, now=0.0):
        budgets.charge(ALICE, buy, now=0.0)
        n_heard += 1
    assert n_heard * 2.0 <= OWNER_WORK.burst


def test_a_budget_outlives_the_connection() -> None:
    hearing = Hearing()

    async def scenario() -> None:
        n_burst = int(OWNER_WORK.burst / work_ms(encode_message(WORD))) + 1
        await hearing.hear(Line(ALICE, n_burst))
        before = hearing.clock.now
        await hearing.hear(Line(ALICE, 100))
        assert hearing.clock.now > before

    run(scenario())


OFFERED = m.UpdateAddHtlc(
    channel_id=bytes(32),
    htlc_id=0,
    amount_msat=1,
    payment_hash=bytes(32),
    cltv_expiry=1,
    delivery=m.Delivery(payee=BOB, payment_secret=bytes(32), amount_msat=1),
)
ADD = encode_message(OFFERED)
FAILED = m.UpdateFailHtlc(channel_id=bytes(32), htlc_id=0, reason=b"no")
REVOKED = m.RevokeAndAck(
    channel_id=bytes(32),
    per_commitment_secret=bytes(32),
    next_per_commitment_point=ALICE,
    next_pubnonce=ALICE + BOB,
)
ARRIVED = m.UpdateFulfillHtlc(channel_id=bytes(32), htlc_id=0, payment_preimage=bytes(32))


def whose_payments_failed(n_beyond: int) -> Budgets:
    """Return budgets of which Alice has used up hers for failures, and some more."""
    budgets = Budgets(lambda _node_id: True)
    for _ in range(int(FAILURES.burst) + n_beyond):
        budgets.answered(ALICE, FAILED, now=0)
    return budgets


def test_whose_payments_keep_failing_is_slowed_and_payments_that_arrive_make_up_for_it() -> None:
    assert whose_payments_failed(0).wait_seconds(ALICE, ADD, now=0) == 0
    budgets = whose_payments_failed(1)
    assert budgets.wait_seconds(ALICE, ADD, now=0) == pytest.approx(1 / FAILURES.per_second)
    assert budgets.wait_seconds(BOB, ADD, now=0) == 0
    budgets.answered(ALICE, ARRIVED, now=0)
    assert budgets.wait_seconds(ALICE, ADD, now=0) == 0


@pytest.mark.parametrize(
    "message",
    [
        ARRIVED,
        FAILED,
        REVOKED,
    ],
    ids=lambda message: type(message).__name__,
)
def test_whose_payments_keep_failing_still_answers_what_others_pay_to_it(
    message: m.Message,
) -> None:
    """Its channel would hang else, and others' payments with it."""
    budgets = whose_payments_failed(3)
    assert budgets.wait_seconds(ALICE, encode_message(message), now=0) == 0


class Payer(Line):
    """A connection whose peer has said these things already, and hangs up then."""

    def __init__(self, *said: m.Message) -> None:
        super().__init__(ALICE, len(said))
        self.said = [encode_message(message) for message in said]

    async def receive(self) -> bytes:
        if self.said:
            return self.said.pop(0)
        raise ConnectionLost("that was all")


class PacedPeers:
    """Peers of which Alice has failed too often, and when each kind of word was heard last."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.budgets = whose_payments_failed(HTLCS_MAX)
        self.heard_at: dict[str, float] = {}

    def hear(self, *said: m.Message) -> None:
        peers = Peers(self.post, self.budgets, clock=self.now, pause=self.clock.pause)
        run(peers.run(Payer(*said)))

    def now(self) -> float:
        return self.clock.now

    def post(self, event: ev.Event) -> None:
        if isinstance(event, ev.MessageReceived):
            self.heard_at[type(event.message).__name__] = self.clock.now


def test_payments_that_failed_all_at_once_do_not_silence_their_payer_for_long() -> None:
    """What it owes for what others pay to it comes after the next payment that it offers."""
    paced = PacedPeers()
    paced.hear(OFFERED, ARRIVED, REVOKED)
    heard_at = paced.heard_at
    assert 1 / FAILURES.per_second < heard_at["UpdateAddHtlc"] <= FAILURE_WAIT_SECONDS_MAX
    assert heard_at["UpdateAddHtlc"] < LspPolicy().deadline_seconds
    assert heard_at["UpdateFulfillHtlc"] == heard_at["UpdateAddHtlc"]
    now = paced.clock.now
    left = paced.budgets.wait_seconds(ALICE, ADD, now=now, since=now)
    assert left == FAILURE_WAIT_SECONDS_MAX, "its debt is not forgiven: the next one waits, too"


def test_what_a_payer_owes_waits_no_longer_behind_many_payments_than_behind_one() -> None:
    """All that it offers in one commitment comes before its word; so they wait together.

    Each for itself, twelve would be heard for three minutes: its channels and the ceremony that it
    is in would miss one deadline after the other.
    """
    paced = PacedPeers()
    paced.hear(*(OFFERED, ARRIVED) * HTLCS_MAX, REVOKED)
    assert paced.heard_at["RevokeAndAck"] <= FAILURE_WAIT_SECONDS_MAX < REVOCATION_SECONDS
    paced.hear(*[OFFERED] * HTLCS_MAX, REVOKED)
    assert paced.heard_at["RevokeAndAck"] == pytest.approx(2 * FAILURE_WAIT_SECONDS_MAX)


def test_whoever_lets_full_channels_fail_again_and_again_gets_no_more_than_its_rate() -> None:
    """What it offers waits together, but each for itself once it is far behind."""
    budgets, now, n_failed, day = Budgets(lambda _node_id: True), 0.0, 0, 24 * 60 * 60
    while now < day:
        for _ in range(HTLCS_MAX):
            since = now
            now += budgets.wait_seconds(ALICE, ADD, now=now, since=since)
            budgets.charge(ALICE, ADD, now=now, since=since)
        budgets.charge(ALICE, encode_message(REVOKED), now=now)
        for _ in range(HTLCS_MAX):
            budgets.answered(ALICE, FAILED, now=now)
        n_failed += HTLCS_MAX
        now += 1
    allowed = FAILURES.burst + now * FAILURES.per_second + FAILURES_BEHIND_MAX + HTLCS_MAX
    assert n_failed <= allowed


def test_what_waited_does_not_wait_again_in_the_next_connection() -> None:
    """It is offered again there; until its payer revokes nothing of it can fail."""
    paced = PacedPeers()
    paced.hear(OFFERED)
    paced.hear(OFFERED, REVOKED)
    paced.hear(OFFERED)
    assert paced.heard_at["UpdateAddHtlc"] == pytest.approx(2 * FAILURE_WAIT_SECONDS_MAX)


def test_a_peer_that_waits_for_its_budget_is_let_go_when_we_hang_up() -> None:
    async def scenario() -> None:
        peers = Peers(lambda _event: None, Budgets(lambda _node_id: False))
        line = Line(NOISY, 10_000, ends=False)
        serving = asyncio.create_task(peers.run(line))
        while line.n_left > 9_900:  # noqa: ASYNC110 - the state watched has no event
            await asyncio.sleep(0)
        peers.disconnect(NOISY, "enough", is_ours=False)
        await serving
        assert peers.n_connected == 0

    run(scenario())


class Timing:
    """Deadlines in a loop, and which were reached."""

    def __init__(self, heard: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        self.reached = asyncio.Event()
        self.told: list[Due] = []
        self.now = 0.0
        self.tasks: list[asyncio.Task[None]] = []
        self.deadlines = Deadlines(
            reached=self._reach,
            heard=heard or self.nothing,
            spawn=lambda work: self.tasks.append(asyncio.create_task(work)),
            clock=lambda: self.now,
        )

    async def nothing(self) -> None:
        """Nothing has arrived."""

    def _reach(self, due: Due) -> None:
        self.told.append(due)
        self.reached.set()


# By all of these somebody has to answer us, who is named, or hung up on, if it does not.
OF_PEERS = (
    CEREMONY,
    Due("house", fx.RejoinDeadline()),
    Due("factory:1", fx.CloseDeadline(close_id=bytes(32))),
    Due("factory:1", fx.AdvanceDeadline(advance_id=bytes(32))),
    Due("factory:1", fx.RevocationDeadline(channel_id=bytes(32))),
    Due("client", fx.LeafDeadline(attempt_id=bytes(32))),
)
of_peers = pytest.mark.parametrize(
    "due", OF_PEERS, ids=[type(due.deadline).__name__ for due in OF_PEERS]
)


@of_peers
def test_time_in_which_the_daemon_was_busy_with_itself_does_not_count_against_a_client(
    due: Due,
) -> None:
    async def scenario() -> None:
        timing = Timing()
        timing.deadlines.set(due, 0.01)
        # Between two beats, twenty seconds went by.
        timing.now = 20.0
        timing.deadlines.beat()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(timing.reached.wait(), 0.05)
        left = timing.deadlines.seconds_left(due)
        assert left is not None
        assert left > 19.0
        timing.deadlines.close()

    run(scenario())


@of_peers
def test_nobody_is_late_with_an_answer_to_what_still_waits_for_our_disk(due: Due) -> None:
    async def scenario() -> None:
        timing, waiting = Timing(), list[Callable[[], None]]()
        timing.deadlines = Deadlines(
            reached=timing._reach,
            heard=timing.nothing,
            spawn=lambda work: timing.tasks.append(asyncio.create_task(work)),
            left=waiting.append,
        )
        timing.deadlines.set(due, 0.02)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(timing.reached.wait(), 0.1)
        assert due in timing.deadlines
        (leave,) = waiting
        leave()
        await asyncio.wait_for(timing.reached.wait(), 5)
        assert timing.told == [due]

        # One that was moved, or cleared, before it ran.
        timing.reached.clear()
        timing.deadlines.set(due, 0.01)
        timing.deadlines.set(due, 100.0)
        waiting[1]()
        waiting[2]()
        left = timing.deadlines.seconds_left(due)
        assert left is not None
        assert left > 90
        timing.deadlines.set(due, 0.01)
        timing.deadlines.clear(due)
        waiting[3]()
        assert due not in timing.deadlines

        # What does not run yet has all its time before it.
        timing.deadlines.set(due, 5.0)
        await asyncio.sleep(0.15)
        assert timing.deadlines.seconds_left(due) == 5.0
        timing.deadlines.close()
        waiting[4]()
        assert due not in timing.deadlines

    run(scenario())


def test_a_deadline_is_reached_on_time_where_the_daemon_was_not_busy() -> None:
    async def scenario() -> None:
        timing = Timing()
        timing.deadlines.set(CEREMONY, 0.01)
        timing.now = LATE_SECONDS / 2
        await timing.reached.wait()
        assert CEREMONY not in timing.deadlines

    run(scenario())


@pytest.mark.parametrize(
    "deadline",
    [
        fx.HoldDeadline(channel_id=bytes(32), htlc_id=0),
        fx.InvoiceDeadline(payment_hash=bytes(32)),
        fx.NonceDeadline(channel_id=bytes(32)),
    ],
    ids=lambda deadline: type(deadline).__name__,
)
def test_what_nobody_has_to_answer_is_reached_by_the_clock(deadline: fx.Deadline) -> None:
    """However busy the daemon was: a payer waits for a hold's end, and an invoice expires."""

    async def scenario() -> None:
        timing = Timing()
        timing.deadlines.set(Due("factory:1", deadline), 0.01)
        timing.now = 20.0
        timing.deadlines.beat()
        await asyncio.wait_for(timing.reached.wait(), 5)
        assert not timing.tasks

    run(scenario())


def test_the_deadlines_of_two_streams_never_meet() -> None:
    """Whatever they are of: each is moved, cleared and reached for its own stream."""

    async def scenario() -> None:
        timing = Timing()
        elsewhere = CEREMONY._replace(stream="factory:2")
        timing.deadlines.set(elsewhere, 60)
        timing.deadlines.set(CEREMONY, 0.01)
        await timing.reached.wait()
        assert timing.told == [CEREMONY]
        assert elsewhere in timing.deadlines
        timing.deadlines.set(CEREMONY, 60)
        timing.deadlines.clear(elsewhere)
        assert timing.deadlines.seconds_left(elsewhere) is None
        assert timing.deadlines.seconds_left(CEREMONY) is not None
        timing.deadlines.close()

    run(scenario())


@of_peers
def test_what_has_arrived_before_a_deadline_is_heard_before_it_is_reached(due: Due) -> None:
    async def scenario() -> None:
        timing: Timing

        async def heard() -> None:
            timing.deadlines.clear(due)  # The last signature was among it.

        timing = Timing(heard)
        timing.deadlines.set(due, 0.0)
        while not timing.tasks:  # noqa: ASYNC110 - the state watched has no event
            await asyncio.sleep(0)
        await timing.tasks[0]
        assert not timing.reached.is_set()

    run(scenario())


def test_deadlines_that_come_together_hear_together() -> None:
    """Each hears everybody: those of many clients that went at once would take all turns."""
    n_heard = 0
    missed = [Due("factory:1", fx.RevocationDeadline(channel_id=bytes([n]) * 32)) for n in range(9)]

    async def scenario() -> None:
        timing: Timing

        async def heard() -> None:
            nonlocal n_heard
            n_heard += 1
            if n_heard == 1:
                for due in missed[5:]:  # Meanwhile the time of others is over.
                    timing.deadlines.set(due, 0.0)
                await asyncio.sleep(0.01)
                timing.deadlines.clear(missed[0])

        timing = Timing(heard)
        for due in missed[:5]:
            timing.deadlines.set(due, 0.0)
        while len(timing.told) < 8:  # noqa: ASYNC110 - the state watched has no event
            await asyncio.sleep(0)
        assert timing.told == missed[1:]
        (task,) = timing.tasks
        await task
        timing.deadlines.set(CEREMONY, 0.0)
        await wait_until_told(timing, CEREMONY)

    run(scenario())
    assert n_heard == 3


async def wait_until_told(timing: Timing, due: Due) -> None:
    while timing.told[-1] != due:  # noqa: ASYNC110 - the state watched has no event
        await asyncio.sleep(0)


def test_whoever_says_something_all_the_time_holds_no_deadline_up() -> None:
    hearing = Hearing()
    talkers = [bytes([2]) + bytes([n]) * 32 for n in range(4, 9)]
    hearing.budgets = Budgets(lambda _node_id: True)
    hearing.peers = Peers(hearing.post, clock=hearing.read, pause=hearing.clock.pause)

    async def scenario() -> None:
        lines = [Line(name, 10**6, ends=False) for name in talkers]
        serving = [asyncio.create_task(hearing.peers.run(line)) for line in lines]
        while not hearing.order:  # noqa: ASYNC110 - the state watched has no event
            await asyncio.sleep(0)
        hearing.order.clear()
        await hearing.peers.heard()
        for name in talkers:
            assert 2 * HTLCS_MAX < hearing.order.count(name) < 3 * HTLCS_MAX
        for task in serving:
            task.cancel()
        await asyncio.wait(serving)

    run(scenario())


def test_all_that_somebody_with_a_channel_has_said_is_heard_first() -> None:
    hearing = Hearing()

    async def scenario() -> None:
        lines = [Line(ALICE, 20, ends=False), Line(NOISY, 1000, ends=False)]
        serving = [asyncio.create_task(hearing.peers.run(line)) for line in lines]
        await asyncio.sleep(0)
        await hearing.peers.heard()
        assert hearing.order.count(ALICE) == 20
        assert hearing.order.count(NOISY) < 20
        for task in serving:
            task.cancel()
        await asyncio.wait(serving)

    run(scenario())
