import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scripted_chain import Change, ScriptedChain, ref

from cromford.adapters.chain_check import ChainMismatch
from cromford.adapters.follower import (
    BATCH_EVENTS_MAX,
    KNOWN_BLOCKS_MAX,
    ChainEvent,
    ChainFollower,
    Connected,
    Disconnected,
)
from cromford.bitcoin.tx import Txid
from cromford.ports import Block, BlockRef, BlocksPruned, ChainStatus, ChainUnavailable

A_DAY = 144


def following(
    chain: ScriptedChain, known: Sequence[BlockRef], *, batch_events_max: int = BATCH_EVENTS_MAX
) -> ChainFollower:
    return ChainFollower(
        chain,
        known,
        poll_seconds=0,
        batch_events_max=batch_events_max,
        backoff_first_seconds=0,
        backoff_max_seconds=0,
    )


def fold(stack: list[BlockRef], batch: Sequence[ChainEvent]) -> None:
    """Do what a driver does, and check that it can."""
    for event in batch:
        match event:
            case Connected(block):
                assert (block.height, block.previous_hash) == (
                    stack[-1].height + 1,
                    stack[-1].block_hash,
                )
                stack.append(ref(block))
            case Disconnected(block_ref):
                assert stack.pop() == block_ref


async def follow_to_the_end(
    chain: ScriptedChain, follower: ChainFollower, stack: list[BlockRef]
) -> list[int]:
    """Fold batches until nothing changes any more; return the sizes of the batches."""
    sizes: list[int] = []
    if not chain.script and stack == [ref(block) for block in chain.active]:
        return sizes
    async with asyncio.timeout(20):
        async for batch in follower.batches():
            fold(stack, batch)
            sizes.append(len(batch))
            if not chain.script and stack == [ref(block) for block in chain.active]:
                return sizes
    raise AssertionError


changes = st.builds(
    Change,
    after_calls=st.integers(1, 150),
    n_leaving=st.integers(0, 12),
    n_coming=st.integers(0, 15),
)


@pytest.mark.sampled(0)
@given(
    n_blocks=st.integers(1, 20),
    n_known=st.integers(1, 20),
    script=st.lists(changes, max_size=8).map(
        lambda all_: sorted(all_, key=lambda c: c.after_calls)
    ),
    silent_calls=st.sets(st.integers(1, 200), max_size=40),
    batch_events_max=st.integers(1, 10),
)
def test_whatever_the_chain_does_the_events_lead_to_its_tip(
    n_blocks: int,
    n_known: int,
    script: list[Change],
    silent_calls: set[int],
    batch_events_max: int,
) -> None:
    # Last of all it outgrows every height it had: until then it may look like a node behind.
    script.append(Change(after_calls=200, n_leaving=0, n_coming=150))
    chain = ScriptedChain(script=script, silent_calls=silent_calls)
    chain.mine(n_blocks)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack[-n_known:], batch_events_max=batch_events_max)
    sizes = asyncio.run(follow_to_the_end(chain, follower, stack))
    assert all(1 <= size <= batch_events_max for size in sizes)


def test_a_reorganisation_undoes_before_it_does() -> None:
    chain = ScriptedChain()
    chain.mine(5)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack)
    chain.reorganise(n_leaving=2, n_coming=3)

    async def first_batch() -> tuple[ChainEvent, ...]:
        return await anext(follower.batches())

    batch = asyncio.run(first_batch())
    assert [type(event) for event in batch] == [Disconnected] * 2 + [Connected] * 3
    fold(stack, batch)
    assert stack == [ref(block) for block in chain.active]


def test_a_reorganisation_below_the_known_blocks_is_walked_back_by_their_parents() -> None:
    chain = ScriptedChain()
    chain.mine(10)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack[-1:])
    chain.reorganise(n_leaving=9, n_coming=10)
    asyncio.run(follow_to_the_end(chain, follower, stack))


async def rounds_of(
    follower_of: Callable[[Callable[[ChainStatus], None]], ChainFollower], n_rounds: int
) -> list[ChainEvent]:
    """Let a follower ask so many times; return what it told."""
    told: list[ChainEvent] = []
    rounds = asyncio.Semaphore(0)
    follower = follower_of(lambda _status: rounds.release())

    async def follow() -> None:
        async for batch in follower.batches():
            told.extend(batch)

    task = asyncio.create_task(follow())
    for _ in range(n_rounds):
        await rounds.acquire()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return told


@pytest.mark.parametrize("shown_height", [0, 3, 8, 9])
def test_a_node_that_goes_back_to_an_ancestor_is_waited_for(shown_height: int) -> None:
    chain = ScriptedChain()
    chain.mine(10)
    stack = [ref(block) for block in chain.active]
    chain.shown_height = shown_height  # It rebuilds its chainstate.

    def follower_of(heard: Callable[[ChainStatus], None]) -> ChainFollower:
        return ChainFollower(chain, stack[-5:], poll_seconds=0, heard=heard)

    assert asyncio.run(rounds_of(follower_of, 20)) == []


def test_a_node_that_went_back_is_followed_on_from_where_it_was() -> None:
    chain = ScriptedChain()
    chain.mine(300)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack)
    chain.shown_height = 7

    async def scenario() -> None:
        batches = follower.batches()
        waiting = asyncio.ensure_future(anext(batches))
        for shown_height in (0, 100, 299, 300):
            chain.shown_height = shown_height
            await chain.until_asked(9)
            assert not waiting.done()
        chain.mine(1)
        chain.shown_height = None
        assert [type(event) for event in await waiting] == [Connected]

    asyncio.run(scenario())


def test_a_fork_that_shows_below_our_tip_is_a_reorganisation() -> None:
    chain = ScriptedChain()
    chain.mine(10)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack)
    chain.reorganise(n_leaving=4, n_coming=2)

    async def scenario() -> None:
        batch = await anext(follower.batches())
        assert [type(event) for event in batch] == [Disconnected] * 4 + [Connected] * 2

    asyncio.run(scenario())


def test_a_fork_that_shows_after_the_node_went_back_is_followed() -> None:
    chain = ScriptedChain()
    chain.mine(10)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack)

    async def scenario() -> None:
        batches = follower.batches()
        waiting = asyncio.ensure_future(anext(batches))
        chain.shown_height = 5
        await chain.until_asked(12)
        assert not waiting.done()
        chain.reorganise(n_leaving=2, n_coming=3)
        chain.shown_height = None
        fold(stack, await waiting)
        assert stack == [ref(block) for block in chain.active]

    asyncio.run(scenario())


def test_a_node_that_stalled_for_300_blocks_is_read_without_a_gap() -> None:
    chain = ScriptedChain()
    stack = [ref(block) for block in chain.active]
    chain.is_silent = True
    chain.mine(300)
    missed: list[ChainUnavailable] = []

    def hear(unavailable: ChainUnavailable) -> None:
        missed.append(unavailable)
        chain.is_silent = len(missed) < 5

    follower = ChainFollower(
        chain, stack, poll_seconds=0, backoff_first_seconds=0, backoff_max_seconds=0, missed=hear
    )
    asyncio.run(follow_to_the_end(chain, follower, stack))
    assert len(missed) == 5
    assert [block.height for block in stack] == list(range(301))


def test_blocks_that_were_pruned_unread_are_refused_by_height_and_never_skipped() -> None:
    chain = ScriptedChain()
    chain.mine(5)
    stack = [ref(block) for block in chain.active[:3]]
    chain.kept_height = 4
    missed: list[ChainUnavailable] = []

    async def scenario() -> None:
        asked = asyncio.Event()

        def hear(unavailable: ChainUnavailable) -> None:
            missed.append(unavailable)
            asked.set()

        follower = ChainFollower(chain, stack, backoff_first_seconds=0, missed=hear)
        waiting = asyncio.ensure_future(anext(follower.batches()))
        await asked.wait()
        assert not waiting.done()
        # Another node, or this one after it loaded them again.
        chain.kept_height = 0
        fold(stack, await waiting)

    asyncio.run(scenario())
    assert stack == [ref(block) for block in chain.active]
    pruned = missed[0]
    assert isinstance(pruned, BlocksPruned)
    assert (pruned.needed_height, pruned.kept_height) == (3, 4)
    assert "from height 3 to 3" in str(pruned)
    assert "--chain-url" in str(pruned)
    assert "-reindex" in str(pruned)


def test_a_follower_told_to_start_elsewhere_drops_what_it_had_found() -> None:
    chain = ScriptedChain()
    chain.mine(6)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack[:5], batch_events_max=1)

    async def scenario() -> None:
        batches = follower.batches()
        await anext(batches)
        follower.start_after(stack[:2])
        told = [await anext(batches) for _ in range(5)]
        heights = [event.block.height for (event,) in told if isinstance(event, Connected)]
        assert heights == [2, 3, 4, 5, 6]
        with pytest.raises(ValueError, match="at least one"):
            follower.start_after(())

    asyncio.run(scenario())


def test_another_genesis_block_is_a_mismatch_not_a_reorganisation() -> None:
    chain, other = ScriptedChain(), ScriptedChain()
    other.active.clear()
    other.mine(3)

    async def scenario() -> None:
        follower = following(chain, [ref(other.active[0])])
        with pytest.raises(ChainMismatch, match="genesis hash"):
            await anext(follower.batches())

    asyncio.run(scenario())


def test_before_a_block_is_undone_the_node_is_asked_whether_it_is_still_ours() -> None:
    """Another one may be at its address without a moment in which nobody answered there."""
    chain = ScriptedChain()
    chain.mine(40)
    stack = [ref(block) for block in chain.active]
    asked: list[int] = []

    async def check() -> None:
        asked.append(chain.n_calls)
        if chain.active[1:] and chain.active[1].block_hash != stack[1].block_hash:
            raise ChainMismatch("chain", expected="main", received="test")

    async def scenario() -> None:
        follower = ChainFollower(chain, stack[-20:], poll_seconds=0, check=check)
        batches = follower.batches()
        chain.mine(1)
        await anext(batches)
        assert not asked, "what is added needs no question"
        chain.reorganise(n_leaving=2, n_coming=3)
        assert [type(event) for event in await anext(batches)][:2] == [Disconnected] * 2
        assert len(asked) == 1
        chain.active[1:] = []
        chain.mine(60)
        with pytest.raises(ChainMismatch, match="expected main, received test"):
            await anext(batches)

    asyncio.run(scenario())


def another_chain(n_known: int) -> tuple[ScriptedChain, list[BlockRef], list[Block]]:
    """Return a node with another chain than it had; what is known of that, and all of it."""
    chain = ScriptedChain()
    chain.mine(A_DAY + 10)
    known = [ref(block) for block in chain.active][-n_known:]
    ours, chain.active[1:] = chain.active[1:], []
    chain.mine(A_DAY + 20)
    return chain, known, ours


async def first_of(chain: ScriptedChain, known: list[BlockRef]) -> tuple[ChainEvent, ...]:
    return await anext(following(chain, known).batches())


@pytest.mark.parametrize("n_known", [1, 2, A_DAY])
def test_a_chain_that_shares_nothing_but_its_beginning_undoes_no_block(n_known: int) -> None:
    """Two signets of people's own, or two regtest nodes: a store was begun on the other one."""
    chain, known, ours = another_chain(n_known)
    for one in ours:
        del chain.blocks[one.block_hash]
    (oldest, there) = known[0], chain.active[known[0].height]
    with pytest.raises(ChainMismatch) as refused:
        asyncio.run(first_of(chain, known))
    assert str(refused.value) == (
        f"block {oldest.height}: expected {oldest.block_hash}, received {there.block_hash}"
    )


@pytest.mark.parametrize("n_known", [1, 2, A_DAY])
def test_a_fork_that_is_longer_than_what_is_known_is_followed(n_known: int) -> None:
    chain, known, ours = another_chain(n_known)
    assert isinstance(asyncio.run(first_of(chain, known))[0], Disconnected)
    del chain.blocks[ours[-1].block_hash]
    if n_known > 1:  # The node came later, and knows where ours left its chain.
        assert isinstance(asyncio.run(first_of(chain, known))[0], Disconnected)


@pytest.mark.parametrize("silent", range(1, 8))
def test_a_node_that_does_not_answer_for_a_moment_has_no_other_chain(silent: int) -> None:
    chain, known, _ = another_chain(A_DAY)
    chain.silent_calls.add(silent)
    assert isinstance(asyncio.run(first_of(chain, known))[0], Disconnected)


def test_a_block_at_another_height_than_the_next_is_not_taken() -> None:
    chain = ScriptedChain()
    chain.mine(3)
    missed: list[ChainUnavailable] = []
    good = chain.active[3]
    chain.blocks[good.block_hash] = replace(good, height=1_000_003)

    async def scenario() -> None:
        follower = ChainFollower(
            chain,
            [ref(chain.active[2])],
            poll_seconds=0,
            backoff_first_seconds=0,
            missed=missed.append,
        )
        waiting = asyncio.ensure_future(anext(follower.batches()))
        await chain.until_asked(20)
        assert not waiting.done()
        assert str(missed[0]) == f"block {good.block_hash}: expected height 3, received 1000003"
        chain.blocks[good.block_hash] = good
        assert await waiting == (Connected(good),)

    asyncio.run(scenario())


def test_a_batch_that_was_not_processed_is_told_again() -> None:
    chain = ScriptedChain()
    chain.mine(3)
    follower = following(chain, [ref(chain.active[0])], batch_events_max=2)

    async def scenario() -> None:
        untaken = await anext(follower.batches())
        again = follower.batches()
        assert await anext(again) == untaken
        assert len(follower.known) == 1
        assert [type(event) for event in await anext(again)] == [Connected]
        assert follower.known == tuple(ref(block) for block in chain.active[:3])

    asyncio.run(scenario())


def test_the_blocks_remembered_are_bounded() -> None:
    chain = ScriptedChain()
    chain.mine(KNOWN_BLOCKS_MAX + 20)
    stack = [ref(chain.active[0])]
    follower = following(chain, stack)
    asyncio.run(follow_to_the_end(chain, follower, stack))
    assert len(follower.known) <= KNOWN_BLOCKS_MAX


def test_an_unavailable_node_is_asked_again_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    chain = ScriptedChain(silent_calls=set(range(1, 6)))
    known = [ref(chain.active[0])]
    chain.mine(1)
    follower = ChainFollower(
        chain, known, poll_seconds=7, backoff_first_seconds=1, backoff_max_seconds=4
    )

    async def scenario() -> None:
        batches = follower.batches()
        assert len(await anext(batches)) == 1
        chain.silent_calls.add(chain.n_calls + 1)
        chain.script.append(Change(after_calls=chain.n_calls + 3, n_leaving=0, n_coming=1))
        assert len(await anext(batches)) == 1

    asyncio.run(scenario())
    assert waits == [1, 2, 4, 4, 4, 1, 7]
    assert caplog.text.count("chain_unavailable") == 6


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_where_nothing_is_new_one_question_says_so(
    monkeypatch: pytest.MonkeyPatch, n_blocks: int
) -> None:
    """Every daemon asks again and again: what it asks is most of what a node hears of it."""
    chain = ScriptedChain()
    chain.mine(n_blocks)
    n_asked: list[int] = []

    async def until_mined(_seconds: float) -> None:
        n_asked.append(chain.n_calls)
        if len(n_asked) == 3:
            chain.mine(1)

    monkeypatch.setattr(asyncio, "sleep", until_mined)

    async def scenario() -> None:
        batches = following(chain, [ref(block) for block in chain.active]).batches()
        assert len(await anext(batches)) == 1

    asyncio.run(scenario())
    assert n_asked == [1, 2, 3]


@pytest.mark.parametrize(
    ("heights", "complaint"), [((), "at least one"), ((5, 7), "consecutive"), ((7, 6), "consec")]
)
def test_known_blocks_have_to_be_consecutive(heights: tuple[int, ...], complaint: str) -> None:
    known = [BlockRef(height=height, block_hash=Txid(bytes(32))) for height in heights]
    with pytest.raises(ValueError, match=complaint):
        ChainFollower(ScriptedChain(), known)
