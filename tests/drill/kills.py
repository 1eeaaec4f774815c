"""Real processes, killed at random moments while factories are built, used, closed and left."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.block import COINBASE_MATURITY
from cromford.bitcoin.network import REGTEST
from cromford.daemon.options import ChainOptions
from cromford.demo.processes import interruptible
from cromford.ports import EVENTS_KEPT
from cromford.protocol.journal.records import decode_record
from cromford.regtest.node import RegtestNode
from tests.drill.killing import Killer, schedule
from tests.drill.life import Life
from tests.drill.people import LSP, DrillFailed, People, free_port
from tests.drill.sums import NOBODY, Accounts, Blocks
from tests.drill.warm import WarmInterpreter

N_CLIENTS: Final = 3
N_COINS: Final = 6
PAYMENTS: Final = 9
POLL: Final = "0.2"
# Of the kills of one round: most where most is said.
SHARES: Final = {"build": 6, "pay": 6, "buy": 5, "end": 5}
STEP_BLOCKS: Final = "8"
LSP_WORDS: Final = (
    *("--step-blocks", STEP_BLOCKS, "--lstock-csv-blocks", STEP_BLOCKS),
    *("--to-self-delay-lsp-blocks", STEP_BLOCKS, "--to-self-delay-client-blocks", STEP_BLOCKS),
    *("--connections-per-address", "64", "--hold-seconds", "5", "--poll-seconds", POLL),
)
CLIENT_WORDS: Final = (
    *("--step-blocks-min", STEP_BLOCKS, "--to-self-delay-blocks-min", STEP_BLOCKS),
    *("--poll-seconds", POLL),
)
CLIENT_FILE: Final = f"[client]\nlstock_csv_blocks_min = {STEP_BLOCKS}\n"
# What no log may say, whoever was killed.
ALARMS: Final = ("double_signing", "stream_stopped", "decision_failed", "Traceback", "keys_damaged")


@dataclass(kw_only=True)
class Outcome:
    """What a drill came to."""

    seed: int
    n_kills: int
    seconds: float
    by_phase: dict[str, int]
    done: dict[str, int]
    sums: list[str]
    told: list[str] = field(repr=False)

    def lines(self) -> Iterator[str]:
        """Yield what there is to show."""
        phases = ", ".join(f"{name} {n}" for name, n in self.by_phase.items())
        yield f"killed {self.n_kills} times in {self.seconds:.0f} s: {phases}"
        yield from (f"{what}: {n:,}" for what, n in sorted(self.done.items()))
        yield from self.sums


def run_kills(
    seed: int, n_kills: int, *, told: Callable[[str], None] = lambda _line: None
) -> Outcome:
    """Kill that many times, and check that nothing is lost.

    Raises:
        DrillFailed: If a daemon ends by itself, does not come to an end, or a number is wrong.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(interruptible())
        base = Path(stack.enter_context(TemporaryDirectory(prefix="cromford-drill-")))
        node = stack.enter_context(RegtestNode(base / "node", persist=False))
        people = People(stack.enter_context(WarmInterpreter()), base)
        blocks = Blocks(node, address_of_script(NOBODY, REGTEST))
        told(f"node after {time.monotonic() - began:.1f} s")
        begin(people, blocks, ChainOptions(url=node.url, cookie_file=node.cookie_file))
        told(f"begun after {time.monotonic() - began:.1f} s")
        killer = Killer(people, schedule(seed, n_kills, people.clients))
        killer.begin()
        accounts = Accounts(people, blocks)
        life = Life(people, blocks, accounts, killer, seed=seed)
        try:
            live(life, random.Random(f"lives {seed}"), told)
            sums = accounts.check(life.tally.coins_sat)
            people.stop()
            check_logs(people)
            life.tally.done["records read again"] = sum(
                map(read_again, map(people.home, people.names))
            )
        except BaseException:
            for line in (*killer.told, *map(repr, life.tally.done.items()), *stands(life)):
                told(line)
            raise
    return Outcome(
        seed=seed,
        n_kills=killer.n_done,
        seconds=time.monotonic() - began,
        by_phase=dict(killer.by_phase),
        done=life.tally.done,
        sums=sums,
        told=killer.told,
    )


def begin(people: People, blocks: Blocks, chain: ChainOptions) -> None:
    """Start everybody, and give the LSP coins."""
    where = ("--chain-url", chain.url, "--chain-cookie", str(chain.cookie_file))
    listen = f"127.0.0.1:{free_port()}"
    people.add(LSP, "lsp", "run", "--listen", listen, *LSP_WORDS, *where)
    people.until("the LSP", lambda: people.ask(LSP, "status")["listen"])
    status = people.ask(LSP, "status")
    blocks.mine(N_COINS, status["wallet"]["address"])
    blocks.mine(COINBASE_MATURITY)
    address = f"{status['node_id']}@{listen}"
    for number in range(N_CLIENTS):
        name = f"client-{'abcdefgh'[number]}"
        told = ("client", "run", "--lsp", address, *CLIENT_WORDS, *where)
        people.add(name, *told, configuration=CLIENT_FILE)
    people.until_all_at(blocks.height())


def live(life: Life, dice: random.Random, told: Callable[[str], None]) -> None:
    """Live through factories until the killer has nothing more to do; the last one in peace."""
    killer = life.killer
    is_left = dice.random() < 0.5
    while True:
        n_kept = len(killer.planned) - killer.n_done
        end = life.leave if is_left else life.close
        steps: dict[str, Callable[[], None]] = {
            "build": life.build,
            "pay": lambda: life.pay(PAYMENTS),
            "buy": life.buy,
            "end": end,
        }
        left = 0
        for step, live_through in steps.items():
            phase = end.__name__ if step == "end" else step
            killer.allow(SHARES[step] + left, phase)
            began = time.monotonic()
            live_through()
            left = killer.hold()
            told(f"{phase} took {time.monotonic() - began:.1f} s, {killer.n_done} kills so far")
            if step != "end":
                life.at_rest()
            if step == "buy":
                life.verify()
        is_left = not is_left
        if not n_kept:
            return


def stands(life: Life) -> Iterator[str]:
    """Yield where everybody stands, for whoever looks for what went wrong."""
    yield f"the last refusal: {life.refused}"
    for name in life.people.names:
        yield f"{name}: {life.people.wish(name, 'status')}"
        yield f"{name}: {life.people.wish(name, 'balances' if name == LSP else 'balance')}"
    yield f"{life.people.wish(LSP, 'factory_show', factory_id=life.factory_id)}"
    for life_of, line in life.people.logs():
        yield f"{life_of}: {line}"


def check_logs(people: People) -> None:
    """Check that nobody met a bug.

    Raises:
        DrillFailed: With the line.
    """
    for life, line in people.logs():
        if any(alarm in line for alarm in ALARMS):
            raise DrillFailed(f"{life} says: {line}")


def read_again(home: Path) -> int:
    """Read every record of a store, and return how many there are.

    Raises:
        DrillFailed: If one is missing.
    """
    with Journal(home) as journal:
        kept = journal.history(after=0, limit=EVENTS_KEPT)
        for one in kept:
            decode_record(one.record)
        if len(kept) != min(journal.newest, EVENTS_KEPT):
            raise DrillFailed(f"{home}: expected {journal.newest} records, received {len(kept)}")
        return len(kept)
