"""An agent's rounds: nothing before its time, everything until it is in a block, whatever fails."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.agent.path_chain import PathChain
from tests.watch.packages import package

from cromford.adapters.chain_check import ChainMismatch
from cromford.adapters.memory import MemoryJournal
from cromford.agent import rounds as rounds_module
from cromford.agent.keeping import Keeping
from cromford.agent.looking import look, publish
from cromford.agent.rounds import Attended, Rounds
from cromford.bitcoin.network import REGTEST
from cromford.ports import ChainUnavailable, Checkpoint, CredentialsRefused, StoreFailed
from cromford.watch.package import ExitPackage
from cromford.watch.package_progress import AwaitDeadline, NothingFound, PathOnChain, PublishNow

ALICE, BOB = package(5, 3), package(5, 1)
SECONDS = 10.0


@dataclass
class World:
    """A node, an agent's packages, and its rounds."""

    chain: PathChain = field(default_factory=PathChain)
    store: MemoryJournal = field(default_factory=MemoryJournal)
    now: float = 1_000_000.0
    checks: int = 0
    mismatch: Exception | None = None
    keeping: Keeping = field(init=False)
    rounds: Rounds = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.keeping = Keeping(self.store, REGTEST, packages_max=10)
        self.rounds = Rounds(
            self.chain,
            self.keeping,
            check=self.check,
            has_real_time=False,
            poll_seconds=0,
            clock=lambda: self.now,
        )

    async def check(self) -> None:
        self.checks += 1
        if self.mismatch is not None:
            raise self.mismatch
        await self.chain.block_hash(0)

    def hold(self, *packages: ExitPackage) -> None:
        for one in packages:
            self.chain.fund(one)
            self.keeping.take(one)

    def mine_to(self, height: int) -> None:
        self.chain.confirm(height - self.chain.height)

    def of(self, held: ExitPackage) -> Attended:
        return self.rounds.attended[held.package_id]

    def go(self, holds: Callable[[], object]) -> None:
        """Let the rounds run until it holds."""

        async def run() -> None:
            running = asyncio.create_task(self.rounds.run())
            async with asyncio.timeout(SECONDS):
                while not (running.done() or holds()):  # noqa: ASYNC110 - another task's doing
                    await asyncio.sleep(0)
            running.cancel()
            (error,) = await asyncio.gather(running, return_exceptions=True)
            if error is not None and not isinstance(error, asyncio.CancelledError):
                raise error

        asyncio.run(run())

    def round(self) -> None:
        """Let one whole round be made, of the newest block."""
        self.go(lambda: self.rounds.height == self.chain.height)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "WAIT_FIRST_SECONDS", 0)
    monkeypatch.setattr(rounds_module, "WAIT_MAX_SECONDS", 0)


def deadline_of(held: ExitPackage) -> int:
    deadline = held.remaining(confirmed={}, tip_height=0).exit_deadline_height
    assert deadline is not None
    return deadline


def test_what_is_due_goes_out_and_goes_on_to_the_end_with_a_restart_at_each_block() -> None:
    w = World()
    w.hold(ALICE)
    w.mine_to(deadline_of(ALICE) - 1)
    w.round()
    assert isinstance(w.of(ALICE).action, AwaitDeadline)
    assert w.chain.n_broadcast == 0
    while True:
        w.chain.confirm()
        w.restart()
        w.round()
        action = w.of(ALICE).action
        if isinstance(action, PathOnChain):
            break
        assert w.of(ALICE).refused is None
        assert w.chain.mempool == ([action.step.tx] if isinstance(action, PublishNow) else [])
    assert ALICE.channel_outpoint in w.chain.unspent
    took = w.chain.height - deadline_of(ALICE)
    delays = sum(step.delay_blocks for step in ALICE.steps)
    assert took == delays + sum(not step.delay_blocks for step in ALICE.steps)


def test_what_a_mempool_forgot_or_a_reorganisation_took_is_published_again() -> None:
    w = World()
    w.hold(ALICE)
    w.mine_to(deadline_of(ALICE))
    w.round()
    root = ALICE.txs[0]
    w.chain.mempool.clear()
    w.chain.mine(1)
    w.round()
    assert w.chain.mempool == [root]
    w.chain.confirm()
    w.round()
    assert w.chain.mempool == []
    w.chain.forget(root)
    w.chain.fund(ALICE)
    w.go(lambda: w.chain.mempool)  # Another block at the same height.
    assert w.chain.mempool == [root]


def test_an_exit_that_began_goes_on_though_the_deadline_is_later_by_then() -> None:
    """With a part of the path six deep the rest needs less time; and is not left lying for it."""
    w = World()
    w.hold(ALICE)
    w.mine_to(deadline_of(ALICE))
    w.round()
    assert w.keeping.held[ALICE.package_id].begun_height == deadline_of(ALICE)
    w.chain.confirm_path([ALICE.txs[1]])
    w.chain.confirm(6)
    w.restart()
    w.round()
    assert w.chain.mempool == [ALICE.txs[2]]


def test_what_the_node_refuses_is_tried_at_each_block_and_said() -> None:
    w = World()
    w.hold(ALICE)
    w.chain.refusal = "mempool min fee not met"
    w.mine_to(deadline_of(ALICE))
    for n in range(1, 4):
        w.round()
        assert w.of(ALICE).refused == "mempool min fee not met"
        assert w.chain.n_broadcast == n
        w.chain.confirm()
    w.chain.refusal = None
    w.round()
    assert w.of(ALICE).refused is None
    assert w.chain.mempool == [ALICE.txs[0]]


def test_a_bug_that_one_package_meets_costs_no_other_its_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = World()
    w.hold(ALICE, BOB)

    async def stumble(chain: PathChain, held: ExitPackage) -> object:
        if held == ALICE:
            raise ZeroDivisionError
        return await look(chain, held)

    monkeypatch.setattr(rounds_module, "look", stumble)
    w.mine_to(deadline_of(BOB))
    w.round()
    assert (w.of(ALICE).is_failed, w.of(ALICE).action) == (True, NothingFound())
    assert w.chain.mempool == [BOB.txs[0]]
    monkeypatch.setattr(rounds_module, "look", look)
    w.chain.confirm()
    w.round()
    assert not w.of(ALICE).is_failed


def test_a_package_that_the_node_chokes_on_costs_no_other_its_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked for again and again, behind the others."""

    async def choke(chain: PathChain, held: ExitPackage) -> object:
        if held == first:
            raise ChainUnavailable("gettxout: an answer that nobody can read")
        return await look(chain, held)

    w = World()
    w.hold(ALICE, BOB)
    first = w.keeping.held[next(iter(w.keeping.held))].package
    monkeypatch.setattr(rounds_module, "look", choke)
    w.mine_to(deadline_of(first))
    w.go(lambda: w.chain.mempool)
    assert w.chain.mempool == [BOB.txs[0]]
    assert first == ALICE
    monkeypatch.setattr(rounds_module, "look", look)
    w.round()
    assert len(w.rounds.attended) == 2


def test_a_node_that_does_not_answer_is_waited_for_and_asked_again_who_it_is() -> None:
    w = World()
    w.hold(ALICE)
    w.mine_to(deadline_of(ALICE))
    w.chain.is_silent = True
    w.go(lambda: w.checks > 2)
    assert w.rounds.height == -1
    w.chain.is_silent = False
    w.round()
    assert w.chain.mempool == [ALICE.txs[0]]
    # In the middle of a round, too.
    for n in range(12):
        w.chain.mempool.clear()
        w.chain.mine(1)
        before = w.checks
        w.chain.silent_calls = {w.chain.n_calls + n}
        w.round()
        assert w.chain.mempool == [ALICE.txs[0]]
        assert w.checks <= before + 2


def test_a_node_of_another_network_that_comes_to_the_address_is_refused() -> None:
    w = World()
    w.hold(ALICE)
    w.round()
    w.mine_to(deadline_of(ALICE))
    w.mismatch = ChainMismatch("chain", expected="regtest", received="main")
    w.chain.silent_calls = {w.chain.n_calls + 1}
    with pytest.raises(ChainMismatch):
        w.round()
    assert w.chain.n_broadcast == 0


def test_a_node_that_lets_nobody_in_is_told_at_the_start_and_waited_for_later() -> None:
    w = World(mismatch=CredentialsRefused("401"))
    with pytest.raises(CredentialsRefused):
        w.round()
    w = World()
    w.round()
    w.mismatch = CredentialsRefused("401")
    w.chain.silent_calls = {w.chain.n_calls + 1}
    before = w.checks
    w.go(lambda: w.checks > before + 2)
    w.mismatch = None
    w.chain.confirm()
    w.round()


def test_a_disk_that_refuses_ends_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better none than one that forgets what it began."""
    w = World()
    w.hold(ALICE)

    def full(_checkpoint: Checkpoint) -> None:
        raise StoreFailed("no room")

    monkeypatch.setattr(w.store, "replace_checkpoint", full)
    w.mine_to(deadline_of(ALICE))
    with pytest.raises(StoreFailed):
        w.round()
    assert w.chain.n_broadcast == 0


def test_blocks_that_the_node_keeps_back_count_for_a_deadline() -> None:
    w = World()
    w.hold(ALICE)
    w.mine_to(deadline_of(ALICE) - 100)
    w.chain.header_height = deadline_of(ALICE)
    w.round()
    assert w.chain.n_broadcast == 0  # They may still be on their way.
    assert w.rounds.stale is not None
    w.now += 601
    w.chain.mine(1)
    w.round()
    assert w.chain.mempool == [ALICE.txs[0]]


def test_what_was_given_back_is_not_published_by_the_round_that_is_under_way() -> None:
    """Whoever gives a package back waits for what is being done with one."""
    w = World()
    w.hold(ALICE, BOB)
    w.mine_to(deadline_of(ALICE))
    order: list[str] = []

    async def run() -> None:
        running = asyncio.create_task(w.rounds.run())
        while not w.rounds.lock.locked():  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0)
        async with w.rounds.lock:
            order.append(f"given back after {w.chain.n_broadcast}")
            for held in tuple(w.keeping.held):
                if held not in w.rounds.attended:
                    w.keeping.give_back(held)
        while w.rounds.height < w.chain.height:  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert order == ["given back after 1"]
    assert w.chain.n_broadcast == 1
    assert len(w.keeping.held) == 1


def test_a_look_is_of_one_block() -> None:
    """A block that comes between two questions is looked at anew, never half."""
    for n_questions in range(1, 4):
        chain = PathChain()
        chain.fund(ALICE)
        chain.confirm(5)
        chain.confirms_after = chain.n_calls + n_questions
        sight = asyncio.run(look(chain, ALICE))
        assert sight.height == chain.height
        assert sight.place is not None
        assert sight.place.height == 0


def test_a_silent_node_is_no_answer() -> None:
    chain = PathChain(is_silent=True)
    chain.fund(ALICE)
    with pytest.raises(ChainUnavailable):
        asyncio.run(look(chain, ALICE))
    with pytest.raises(ChainUnavailable):
        asyncio.run(publish(chain, ALICE, ALICE.steps[0]))
