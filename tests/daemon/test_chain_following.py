"""A daemon's eyes before a node that stalls, lags, goes back, prunes, or is not there yet."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.scripted_chain import ScriptedChain, ref

from cromford.adapters.chain_check import ChainMismatch
from cromford.bitcoin.tx import Tx
from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.own_fees import asked_again
from cromford.ports import BlockRef, ChainUnavailable, CredentialsRefused
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.watch.feerates import OwnFees

NOW = 1_700_000_000
REMEMBERED = 5  # A role forgets old blocks; this one soon.


@dataclass
class Reader:
    """A role that remembers its newest blocks, and the facts it would have decided by."""

    recent: list[BlockRef] = field(default_factory=list)
    events: list[ev.Event] = field(default_factory=list)
    stale: list[str | None] = field(default_factory=list)
    told: list[Facts] = field(default_factory=list)
    following: ChainFollowing | None = None
    recorded_height: int = -1

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        return tuple(self.recent)

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        return tuple(txs)

    def post(self, event: ev.Event) -> None:
        assert self.following is not None
        if isinstance(event, ev.FactsChanged):
            self.told.append(self.following.facts())
            return
        self.events.append(event)
        self.stale.append(self.following.facts().stale)
        match event:
            case ev.BlockAdded(height=height, block_hash=block_hash):
                self.recent.append(BlockRef(height=height, block_hash=block_hash))
                del self.recent[:-REMEMBERED]
                self.recorded_height = height
            case ev.BlockRemoved(height=height):
                self.recent = [block for block in self.recent if block.height < height]
                self.recorded_height = height - 1
            case _:
                raise AssertionError(event)

    @property
    def heights(self) -> list[int]:
        """The heights of the blocks that were added, none having been removed."""
        added = [event for event in self.events if isinstance(event, ev.BlockAdded)]
        assert added == self.events
        return [event.height for event in added]

    @property
    def height(self) -> int:
        return self.recent[-1].height if self.recent else -1


@dataclass
class Eyes:
    """A reader whose following runs, and its clock."""

    chain: ScriptedChain
    reader: Reader
    following: ChainFollowing
    times: list[float]
    task: asyncio.Task[None]
    answers: list[int]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - the loop is what is waited for
                await asyncio.sleep(0)

    def kind(self) -> str | None:
        stale = self.following.stale()
        return None if stale is None else stale.kind


async def fits() -> None:
    """Any node does."""


@contextlib.asynccontextmanager
async def eyes(
    chain: ScriptedChain,
    recent: Sequence[BlockRef] = (),
    *,
    check: Callable[[], Awaitable[None]] = fits,
    has_real_time: bool = False,
    recorded_height: int = -1,
) -> AsyncIterator[Eyes]:
    reader = Reader(recent=list(recent), recorded_height=recorded_height)
    times = [float(NOW)]
    answers: list[int] = []
    following = ChainFollowing(
        chain,
        reader,
        check=check,
        has_real_time=has_real_time,
        poll_seconds=0,
        answered=lambda: answers.append(1),
        clock=lambda: times[0],
    )
    reader.following = following
    task = asyncio.create_task(following.run())
    try:
        yield Eyes(chain, reader, following, times, task, answers)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pause be one turn of the loop."""
    sleep = asyncio.sleep

    async def turn(_seconds: float) -> None:
        await sleep(0)

    monkeypatch.setattr("cromford.adapters.follower.asyncio.sleep", turn)


def mined(n_blocks: int) -> ScriptedChain:
    chain = ScriptedChain(tip_time=NOW)
    chain.mine(n_blocks)
    return chain


def test_a_new_journal_begins_at_the_tip() -> None:
    async def scenario() -> None:
        async with eyes(mined(7)) as seen:
            await seen.until(seen.following.has_block.is_set)
            assert seen.reader.recent == [ref(seen.chain.active[7])]
            assert seen.kind() is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "trouble"),
    [
        ("initial_download", {"is_initial_download": True}),
        ("blocks_missing", {"header_height": 700_000}),
        ("tip_old", {"tip_time": NOW - 5 * 3600}),
        ("clock_off", {"tip_time": NOW + 3 * 3600}),
    ],
)
def test_a_new_journal_waits_for_a_node_that_is_fresh(kind: str, trouble: dict[str, int]) -> None:
    async def scenario() -> None:
        chain = mined(7)
        for name, value in trouble.items():
            setattr(chain, name, value)
        async with eyes(chain, has_real_time=True) as seen:
            await chain.until_asked(9)
            assert (seen.reader.events, seen.kind()) == ([], kind)
            chain.is_initial_download, chain.header_height, chain.tip_time = False, None, NOW
            await seen.until(seen.following.has_block.is_set)
            assert seen.kind() is None

    asyncio.run(scenario())


def test_a_node_that_is_not_there_yet_is_waited_for() -> None:
    async def scenario() -> None:
        chain = mined(7)
        tries: list[int] = []

        async def check() -> None:
            tries.append(1)
            if len(tries) < 5:
                raise ChainUnavailable("connection refused")

        async with eyes(chain, check=check) as seen:
            assert seen.kind() == "node_silent"
            await seen.until(lambda: len(tries) == 4)
            stale = seen.following.stale()
            assert stale is not None
            assert stale.reason.endswith(": connection refused")
            assert not seen.answers
            await seen.until(lambda: seen.reader.height == 7)
            assert seen.answers
            assert seen.kind() is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "fatal",
    [
        CredentialsRefused("HTTP 401"),
        ChainMismatch("chain", expected="main", received="test"),
        ChainMismatch("version", expected="290000 or newer", received=280_000),
    ],
)
def test_a_node_that_is_the_wrong_one_ends_the_daemon(fatal: Exception) -> None:
    async def scenario() -> None:
        async def check() -> None:
            raise fatal

        async with eyes(mined(1), check=check) as seen:
            with pytest.raises(type(fatal)):
                await seen.task

    asyncio.run(scenario())


def test_a_node_that_comes_back_as_another_ends_the_daemon_and_undoes_nothing() -> None:
    """Somebody else's node may answer at the address now; its chain shows none of our blocks."""

    async def scenario() -> None:
        chain = mined(50)
        checks: list[int] = []

        async def check() -> None:
            await chain.status()
            checks.append(1)
            if len(checks) > 1:
                raise ChainMismatch("chain", expected="main", received="test")

        async with eyes(chain, [ref(block) for block in chain.active[40:51]], check=check) as seen:
            await chain.until_asked(3)
            assert len(checks) == 1, "asked no more often than it has to be"
            chain.is_silent = True
            await chain.until_asked(3)
            chain.reorganise(n_leaving=50, n_coming=60)
            chain.is_silent = False
            with pytest.raises(ChainMismatch):
                await seen.task
            assert seen.reader.events == []

    asyncio.run(scenario())


def test_a_stall_of_300_blocks_is_stale_until_all_of_them_were_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="cromford.daemon.chain_following")

    async def scenario() -> None:
        chain = mined(10)
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: seen.kind() is None)
            chain.is_silent = True
            chain.mine(300)
            await chain.until_asked(3)
            assert seen.kind() is None
            seen.times[0] += 121
            assert seen.kind() == "node_silent"
            shown = seen.following.shown()
            assert (shown["fresh"], shown["stale_since"]) == (False, NOW)
            seen.times[0] += 300 * 600
            chain.is_silent = False
            await seen.until(lambda: seen.reader.height == 310)
            await seen.until(lambda: seen.kind() is None)
            assert seen.reader.heights == list(range(11, 311))
            # What was decided on the way was decided by a stale chain, up to the last two blocks.
            assert all(reason is not None for reason in seen.reader.stale[:298])
            assert seen.following.facts().header_height == 310

    asyncio.run(scenario())
    told = [record.getMessage().split()[0] for record in caplog.records]
    assert "chain_stale" in told
    assert told[-1] == "chain_fresh_again"


def test_a_node_that_lags_behind_its_headers_is_stale_and_deadlines_hear_of_the_headers() -> None:
    async def scenario() -> None:
        chain = mined(310)
        chain.shown_height = 10
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: seen.kind() == "blocks_missing")
            assert seen.following.facts().header_height == 310
            chain.shown_height = None
            await seen.until(lambda: seen.reader.height == 310)
            assert seen.kind() is None

    asyncio.run(scenario())


def test_a_node_that_goes_back_disconnects_nothing_and_is_stale() -> None:
    async def scenario() -> None:
        chain = mined(300)
        async with eyes(chain, [ref(chain.active[300])]) as seen:
            await seen.until(lambda: seen.kind() is None)
            # Rebuilt from nothing: without its headers, too.
            chain.shown_height = chain.header_height = 0
            await seen.until(lambda: seen.kind() == "blocks_missing")
            for height in (50, 250, 297):
                chain.shown_height = chain.header_height = height
                await chain.until_asked(9)
                assert seen.kind() == "blocks_missing"
            assert seen.reader.events == []
            chain.mine(2)
            chain.shown_height = chain.header_height = None
            await seen.until(lambda: seen.reader.height == 302)
            assert [type(event) for event in seen.reader.events] == [ev.BlockAdded] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("is_back", [False, True])
def test_a_journal_with_a_past_goes_on_from_its_last_block_and_never_from_the_tip(
    is_back: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    async def scenario() -> None:
        chain = mined(50)
        # The role remembers no block, but its journal does: all that it remembered was undone.
        chain.shown_height = 10 if is_back else None
        async with eyes(chain, recorded_height=20) as seen:
            if is_back:
                await chain.until_asked(9)
                assert seen.reader.events == []
                assert not seen.following.has_block.is_set()
                chain.shown_height = None
            await seen.until(lambda: seen.reader.height == 50)
            assert seen.reader.heights == list(range(20, 51))

    asyncio.run(scenario())


def test_pruned_past_what_was_seen_it_stays_stale_and_says_the_way_out() -> None:
    async def scenario() -> None:
        chain = mined(100)
        chain.kept_height = 60
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: seen.kind() == "blocks_pruned")
            shown = seen.following.shown()
            assert (shown["kept_height"], shown["needed_height"]) == (60, 11)
            assert "from height 11 to 59" in str(shown["stale_reason"])
            assert seen.reader.events == []
            assert not seen.task.done()
            chain.kept_height = 0
            await seen.until(lambda: seen.reader.height == 100)
            assert seen.kind() is None

    asyncio.run(scenario())


def test_at_the_start_it_is_said_from_where_on_the_node_has_to_keep_blocks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="cromford.daemon.chain_following")

    async def scenario() -> None:
        chain = mined(100)
        chain.kept_height = 5
        async with eyes(chain, [ref(chain.active[99])]) as seen:
            await seen.until(lambda: seen.reader.height == 100)

    asyncio.run(scenario())
    assert "blocks_needed from=100 kept_from=5 tip=100" in caplog.text


def test_a_role_is_told_once_whenever_its_chain_is_fresh_again() -> None:
    async def scenario() -> None:
        chain = mined(10)
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: len(seen.reader.told) == 1)
            await chain.until_asked(9)
            assert seen.reader.told == [Facts(header_height=10)]
            chain.is_silent = True
            await chain.until_asked(3)
            seen.times[0] += 121
            # A peer's message, say, is decided meanwhile.
            stale = seen.following.facts().stale
            assert stale is not None
            chain.is_silent = False
            await seen.until(lambda: len(seen.reader.told) == 2)
            await chain.until_asked(9)
            assert seen.reader.told == [Facts(header_height=10)] * 2

    asyncio.run(scenario())


def test_a_role_knows_from_which_height_on_it_sees_blocks_as_they_come() -> None:
    """What came before it was away for; a silence begins that anew, and no block does."""

    async def scenario() -> None:
        chain = mined(4)
        past = ref(chain.active[4])
        chain.mine(300)
        async with eyes(chain, [past], recorded_height=4) as seen:
            assert seen.following.facts().fresh_since == -1
            await seen.until(lambda: seen.reader.height == 304)
            await seen.until(lambda: seen.kind() is None)
            first = seen.following.facts().fresh_since
            assert 301 <= first <= 304
            chain.mine(2)
            await seen.until(lambda: seen.reader.height == 306)
            assert seen.following.facts().fresh_since == first

            seen.times[0] += 1_000
            assert seen.kind() == "node_silent"
            assert seen.following.facts().fresh_since == -1
            await seen.until(lambda: seen.kind() is None)
            assert seen.following.facts().fresh_since == 306

    asyncio.run(scenario())


def test_a_role_is_told_of_headers_only_where_their_blocks_do_not_come() -> None:
    async def scenario() -> None:
        chain = mined(10)
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: len(seen.reader.told) == 1)
            chain.shown_height = 10
            chain.mine(5)
            await seen.until(lambda: seen.kind() == "blocks_missing")
            await chain.until_asked(9)
            assert len(seen.reader.told) == 1, "they may come at any moment"
            seen.times[0] += 601
            await seen.until(lambda: len(seen.reader.told) == 2)
            await chain.until_asked(9)
            chain.mine(2)
            await seen.until(lambda: len(seen.reader.told) == 3)
            await chain.until_asked(9)
            heights = [facts.header_height for facts in seen.reader.told]
            assert heights == [10, 15, 17]
            assert [facts.stale is None for facts in seen.reader.told] == [True, False, False]

    asyncio.run(scenario())


def test_a_role_whose_blocks_were_pruned_is_told_of_headers() -> None:
    async def scenario() -> None:
        chain = mined(300)
        chain.kept_height = 290
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: seen.kind() == "blocks_pruned")
            await seen.until(lambda: len(seen.reader.told) == 1)
            chain.mine(3)
            await seen.until(lambda: len(seen.reader.told) == 2)
            assert [facts.header_height for facts in seen.reader.told] == [300, 303]
            assert not seen.reader.events

    asyncio.run(scenario())


def test_a_role_decides_about_a_block_by_what_its_node_asks_for_on_that_day() -> None:
    """A node that does not answer has not changed its mind."""

    async def scenario() -> None:
        chain = mined(10)
        async with eyes(chain, [ref(chain.active[10])]) as seen:
            await seen.until(lambda: len(seen.reader.told) == 1)
            assert seen.following.facts().fees == OwnFees()
            chain.estimates = {2: 5_000, 36: 700}
            chain.relay = replace(chain.relay, mempool_min_sat_per_kw=750)
            chain.mine(1)
            await seen.until(lambda: seen.reader.height == 11)
            fees = seen.following.facts().fees
            expected = ((2, 5_000), (6, 5_000), (36, 700), (144, 700), (1008, 700))
            assert fees.estimates == expected
            assert fees.mempool_min_sat_per_kw == 750
            assert [fees.within(n) for n in (1, 2, 35, 36, 1_000)] == [
                5_000,
                5_000,
                5_000,
                750,
                750,
            ]
            chain.is_silent = True
            await chain.until_asked(3)
            assert seen.following.facts().fees == fees

    asyncio.run(scenario())


def test_what_a_node_asks_for_is_known_from_the_first_moment_of_a_fresh_chain() -> None:
    """Terms, and what is published, are judged by it, and the next block may be an hour away."""

    async def scenario() -> None:
        chain = mined(10)
        chain.estimates = {2: 5_000}
        chain.relay = replace(chain.relay, mempool_min_sat_per_kw=750)
        for recent in ([ref(chain.active[10])], []):
            async with eyes(chain, recent) as seen:
                await seen.until(lambda: len(seen.reader.told) == 1)
                (facts,) = seen.reader.told
                assert facts.stale is None
                assert facts.fees.mempool_min_sat_per_kw == 750
                assert facts.fees.within(2) == 5_000

    asyncio.run(scenario())


def test_a_node_without_an_estimate_is_told_of_once_and_once_it_has_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may relay blocks only, or be young: what hurries then begins at a guess."""

    async def scenario(*, has_real_time: bool) -> list[str]:
        caplog.clear()
        chain = mined(10)
        chain.tip_time, chain.is_silent = NOW, True
        async with eyes(chain, [ref(chain.active[8])], has_real_time=has_real_time) as seen:
            await seen.following.ask_fees()
            assert "estimates" not in caplog.text, "it has not said that it has none"
            chain.is_silent = False
            await seen.until(lambda: seen.reader.height == 10)
            chain.estimates = {2: 5_000}
            chain.mine(1)
            await seen.until(lambda: seen.reader.height == 11)
            chain.mine(1)
            await seen.until(lambda: seen.reader.height == 12)
        return [one.getMessage() for one in caplog.records if "estimate" in one.getMessage()]

    caplog.set_level(logging.INFO)
    assert asyncio.run(scenario(has_real_time=True)) == [
        "estimates_missing fallback_sat_per_vb=2.0",
        "estimates_known",
    ]
    assert asyncio.run(scenario(has_real_time=False)) == []


def test_what_a_mempool_asks_for_is_known_though_its_node_has_not_told_its_estimates() -> None:
    async def scenario() -> None:
        chain = mined(10)
        chain.relay = replace(chain.relay, mempool_min_sat_per_kw=750)
        chain.estimates = {2: 5_000}
        chain.silent_calls = {2}
        before = OwnFees(estimates=((2, 900),))
        told = await asked_again(chain, before)
        assert told == replace(before, mempool_min_sat_per_kw=750)

    asyncio.run(scenario())
