import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.adapters.chain_check import ChainMismatch
from cromford.adapters.follower import (
    BATCH_EVENTS_MAX,
    KNOWN_BLOCKS_MAX,
    ChainEvent,
    ChainFollower,
    Connected,
    Disconnected,
)
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.crypto.keys import sha256d
from cromford.ports import Block, BlockRef, ChainUnavailable, Coin


def ref(block: Block) -> BlockRef:
    return BlockRef(height=block.height, block_hash=block.block_hash)


@dataclass(frozen=True, kw_only=True)
class Change:
    """After so many questions, this many blocks leave and that many others come."""

    after_calls: int
    n_leaving: int
    n_coming: int


@dataclass
class ScriptedChain:
    """A chain that changes between any two questions, and sometimes does not answer."""

    script: list[Change] = field(default_factory=list)
    silent_calls: set[int] = field(default_factory=set)
    n_calls: int = 0
    active: list[Block] = field(default_factory=list)
    blocks: dict[Txid, Block] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mine(1)

    def mine(self, n_blocks: int) -> None:
        for _ in range(n_blocks):
            previous_hash = self.active[-1].block_hash if self.active else Txid(bytes(32))
            # Every block is another one, also at a height that has been reached before.
            block_hash = Txid(sha256d(previous_hash + len(self.blocks).to_bytes(4, "big")))
            block = Block(
                height=len(self.active),
                block_hash=block_hash,
                previous_hash=previous_hash,
                txs=(),
            )
            self.blocks[block_hash] = block
            self.active.append(block)

    def reorganise(self, *, n_leaving: int, n_coming: int) -> None:
        del self.active[max(1, len(self.active) - n_leaving) :]
        self.mine(n_coming)

    def _answer(self) -> None:
        self.n_calls += 1
        while self.script and self.script[0].after_calls <= self.n_calls:
            change = self.script.pop(0)
            self.reorganise(n_leaving=change.n_leaving, n_coming=change.n_coming)
        if self.n_calls in self.silent_calls:
            raise ChainUnavailable("scripted silence")

    async def tip(self) -> BlockRef:
        self._answer()
        return ref(self.active[-1])

    async def block_hash(self, height: int) -> Txid | None:
        self._answer()
        return self.active[height].block_hash if height < len(self.active) else None

    async def block(self, block_hash: Txid) -> Block:
        self._answer()
        return self.blocks[block_hash]

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        raise AssertionError(outpoint)

    async def broadcast(self, tx: Tx) -> None:
        raise AssertionError(tx)

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        raise AssertionError(txs)


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
    # A last block after everything else, so that the end of the script can be seen.
    script.append(Change(after_calls=200, n_leaving=0, n_coming=1))
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


def test_a_shorter_active_chain_disconnects_what_it_lacks() -> None:
    chain = ScriptedChain()
    chain.mine(3)
    stack = [ref(block) for block in chain.active]
    follower = following(chain, stack)
    chain.reorganise(n_leaving=2, n_coming=0)
    asyncio.run(follow_to_the_end(chain, follower, stack))
    assert len(stack) == 2


def test_another_genesis_block_is_a_mismatch_not_a_reorganisation() -> None:
    chain, other = ScriptedChain(), ScriptedChain()
    other.active.clear()
    other.mine(3)

    async def scenario() -> None:
        follower = following(chain, [ref(other.active[0])])
        with pytest.raises(ChainMismatch, match="genesis hash"):
            await anext(follower.batches())

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
        chain.script.append(Change(after_calls=chain.n_calls + 4, n_leaving=0, n_coming=1))
        assert len(await anext(batches)) == 1

    asyncio.run(scenario())
    assert waits == [1, 2, 4, 4, 4, 1, 7]
    assert caplog.text.count("chain_unavailable") == 6


@pytest.mark.parametrize(
    ("heights", "complaint"), [((), "at least one"), ((5, 7), "consecutive"), ((7, 6), "consec")]
)
def test_known_blocks_have_to_be_consecutive(heights: tuple[int, ...], complaint: str) -> None:
    known = [BlockRef(height=height, block_hash=Txid(bytes(32))) for height in heights]
    with pytest.raises(ValueError, match=complaint):
        ChainFollower(ScriptedChain(), known)
