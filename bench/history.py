"""What is left of many payments: how large a store is, and how long it takes to start on it.

The payments are real ones between two clients of one LSP, with the production roles, drivers and
journals. They are made in a file system without a disk where there is one, for nobody times them;
the stores are then copied to a disk, opened, and loaded as a daemon loads them.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from bench.ceremony import Participant
from bench.payments import PayingWorld
from bench.rows import CPU

from cromford.adapters.sqlite import Journal
from cromford.crypto.keys import sha256
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver, Role
from cromford.daemon.lspd import LSP_ROLE
from cromford.effects import RecallCommitment
from cromford.ports import Store
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import CHAIN, HOUSE
from cromford.shelf import Shelf, with_shelves

PAYMENTS_DEFAULT: Final = 2_000
PAYMENTS_QUICK: Final = 200
AMOUNT_MSAT: Final = 1_000_000
TEXT_SIZE: Final = 340  # An invoice of a wallet has about as many characters.
WITHOUT_DISK: Final = Path("/dev/shm")  # noqa: S108 - a folder of a random name is made in it
NAMES: Final = ("LSP", "first client", "second client")
MB: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class StoreRow:
    """One participant's store after many payments.

    Attributes:
        name: Whose.
        n_payments: How many there were.
        start_ms: From opening the file to the state, wall-clock.
        n_folded: How many records that folded, after the checkpoint.
        n_records: How many there ever were.
        size_mb: Of all its files, closed.
        size_open_mb: The largest that they were at a thousandth payment, in use.
        snapshot_mb: Of the last checkpoint.
        recall_ms: To look up what a peer's first commitment said, revoked before all others.
    """

    name: str
    n_payments: int
    start_ms: float
    n_folded: int
    n_records: int
    size_mb: float
    size_open_mb: float
    snapshot_mb: float
    recall_ms: float


def rows(n_payments: int, say: Callable[[str], None] = lambda _text: None) -> Iterator[StoreRow]:
    """Make so many payments, and yield a row for each participant.

    Raises:
        AssertionError: If a payment did not arrive, or a store is not what it was.
    """
    with TemporaryDirectory(prefix="cromford-bench-") as on_disk:
        with _made(n_payments, say) as (base, world, sizes_open):
            shutil.copytree(base, on_disk, dirs_exist_ok=True)
            participants = (world.lsp, *world.clients)
        for number, name in enumerate(NAMES):
            yield _row(
                name,
                Path(on_disk, str(number)),
                participants[number],
                n_payments=n_payments,
                size_open=sizes_open[number],
            )


@contextmanager
def _made(
    n_payments: int, say: Callable[[str], None]
) -> Iterator[tuple[Path, PayingWorld, list[int]]]:
    """Inside the block the stores are closed, in numbered folders of which the LSP's is 0."""
    directory = WITHOUT_DISK if WITHOUT_DISK.is_dir() else None
    with TemporaryDirectory(prefix="cromford-bench-", dir=directory) as name:
        base, numbers, sizes_open = Path(name), iter(range(len(NAMES))), [0] * len(NAMES)
        with ExitStack() as opened:

            def open_store() -> Store:
                journal = Journal(base / str(next(numbers)))
                opened.callback(journal.close)
                return journal

            world = PayingWorld(0, open_store, CPU)
            for n in range(n_payments):
                _pay(world, n)
                if n % 1000 == 0 or n == n_payments - 1:
                    say(f"history: {n} of {n_payments} payments")
                    sizes = [_size_of(base / str(number)) for number in range(len(NAMES))]
                    sizes_open = [max(pair) for pair in zip(sizes_open, sizes, strict=True)]
            world.lsp.driver.state = _off_the_shelf(world.lsp.driver.state)
        yield base, world, sizes_open


def _off_the_shelf(state: LspState) -> LspState:
    """Return a state that reads nothing from a journal that is closed."""

    def taken(_name: str, shelf: Shelf[Any, Any]) -> Shelf[Any, Any]:
        return Shelf(dict(shelf.walk()))

    house, scan = with_shelves(state.house, taken), with_shelves(state.scan, taken)
    return replace(state, house=house, scan=scan)


def _pay(world: PayingWorld, n: int) -> None:
    payer, payee = world.clients if n % 2 == 0 else reversed(world.clients)
    text = b"".join(sha256(b"%d %d" % (n, part)) for part in range(6)).hex()[:TEXT_SIZE]
    request = world.invoice(payee, AMOUNT_MSAT, text)
    world.pay(payer, request)
    world.check_paid([(payer, request)])
    for participant in (world.lsp, *world.clients):
        driver = participant.driver
        for due in list(driver.due_checkpoints()):
            driver.keep(driver.begin_checkpoint(due)())


def _row(name: str, home: Path, was: Participant, *, n_payments: int, size_open: int) -> StoreRow:
    size = _size_of(home)
    role: Role[Any] = LSP_ROLE if name == NAMES[0] else CLIENT_ROLE
    began = monotonic()
    with Journal(home) as journal:
        driver = Driver(role, was.driver.beginning, journal, lambda _effect: ())
        start_ms = 1000 * (monotonic() - began)
        if not _is_same(driver.state, was.driver.state):
            raise AssertionError(f"the store of {name} is not what it was")
        checkpoints = {name: journal.checkpoint(name) for name in driver.open_streams}
        kept = [checkpoint for checkpoint in checkpoints.values() if checkpoint is not None]
        n_records = sum(journal.head(name) for name in driver.open_streams)
        channel_id = min(driver.state.book.links)
        began = monotonic()
        if not [
            *driver.recall(
                RecallCommitment(channel_id=channel_id, number=0, stream=_stream_of(driver))
            )
        ]:
            raise AssertionError("a revoked commitment is not known")
        recall_ms = 1000 * (monotonic() - began)
    return StoreRow(
        name=name,
        n_payments=n_payments,
        start_ms=start_ms,
        n_folded=n_records - sum(checkpoint.n for checkpoint in kept),
        n_records=n_records,
        size_mb=size / MB,
        size_open_mb=size_open / MB,
        snapshot_mb=sum(len(checkpoint.snapshot) for checkpoint in kept) / MB,
        recall_ms=recall_ms,
    )


def _is_same(found: Any, was: Any) -> bool:  # noqa: ANN401 - either role's states
    if isinstance(found, LspState):
        return bool(found.durable == was.durable)
    return bool(found == was)


def _stream_of(driver: Driver[Any]) -> str:
    """Return the stream that the one factory's channels are in."""
    return next(name for name in driver.open_streams if name not in {HOUSE, CHAIN})


def _size_of(home: Path) -> int:
    return sum(path.stat().st_size for path in home.iterdir())
