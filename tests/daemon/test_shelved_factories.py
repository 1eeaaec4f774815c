"""An LSP of whose sleeping factories nothing is in memory: found, woken and listed all the same."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from tests.daemon.test_sleeping_streams import (
    AMOUNT_MSAT,
    FIRST_MSAT,
    CountingPump,
    CountingStore,
    driver_of,
    two_factories,
)
from tests.protocol.frozen_journal import read
from tests.protocol.paying_clients import balance, newest_link, pay
from tests.protocol.pump import Pump
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_frozen_journal import driver_of as frozen_driver
from tests.protocol.test_frozen_journal import said
from tests.protocol.test_rest import SHORT
from tests.simulation.sim_node import Crash, durable
from tests.simulation.sums import check_sums

from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.streams import shelves_of
from cromford.ports import Checkpoint, Row, Store, StoreDamaged, StoreFailed
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.snapshot import UnreadableSnapshot
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_stream

pytestmark = pytest.mark.sampled_file(8)

READS_OF_A_BLOCK_MAX: Final = 4
READS_OF_A_VISIT_MAX: Final = 30


@dataclass
class ShelfStore(CountingStore):
    """A journal that counts the rows that are read from it."""

    rows_read: list[tuple[str, str]] = field(default_factory=list)

    def row(self, stream: str, shelf: str, key: bytes) -> bytes | None:
        self.rows_read.append((stream, shelf))
        return super().row(stream, shelf, key)

    def rows(self, stream: str, shelf: str, *, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for row in super().rows(stream, shelf, start=start):
            self.rows_read.append((stream, shelf))
            yield row


def with_counted_rows(pump: CountingPump) -> ShelfStore:
    """Let the LSP begin again on a journal that counts the rows that are read, and nobody here."""
    kept = pump.lsp.store
    store = ShelfStore(
        owner="lsp",
        entries=kept.entries,
        checkpoints=kept.checkpoints,
        shelves=kept.shelves,
        archive=kept.archive,
    )
    pump.lsp.store = pump.lsp.counted = store
    start_again(pump)
    store.rows_read.clear()
    return store


def start_again(pump: Pump) -> None:
    pump.lsp.die()
    pump.lsp.start()


def in_memory(state: LspState) -> dict[str, int]:
    """Return how much of each shelf of the house and of the scan is in memory."""
    return {
        f"{stream} {name}": len(shelf.changed)
        for stream, value in ((HOUSE, state.house), (CHAIN, state.scan))
        for name, shelf in shelves_of(value).items()
        if shelf.changed
    }


def shelve(pump: Pump) -> None:
    """Take a checkpoint of the house and of the scan."""
    driver = driver_of(pump)
    for name in (HOUSE, CHAIN):
        driver.keep(driver.begin_checkpoint(name)())


@pytest.fixture
def pump() -> CountingPump:
    """Two factories that sleep, each client's gone, and all of it on the shelf."""
    pump = two_factories()
    all_away(pump)
    shelve(pump)
    assert sleeping(pump) == {0, 1}
    return pump


def test_of_a_factory_that_sleeps_nothing_is_in_memory(pump: CountingPump) -> None:
    state = lsp_state(pump)
    assert in_memory(state) == {}
    assert not state.factories
    assert set(driver_of(pump).open_streams) == {HOUSE, CHAIN}
    begun = driver_of(pump)._streams
    for stream in (HOUSE, CHAIN):
        assert not any(one.changed for one in shelves_of(begun[stream].state).values())
    start_again(pump)
    pump.lsp.checkpoint()
    again = lsp_state(pump)
    assert in_memory(again) == {}
    assert (again.house.entries, again.scan) == (state.house.entries, state.scan)


def test_what_a_block_reads_does_not_depend_on_how_many_sleep(pump: CountingPump) -> None:
    store = with_counted_rows(pump)
    driver_of(pump).handle(
        ev.BlockAdded(height=pump.chain.height + 1, block_hash=pump.published[0].txid, txs=())
    )
    assert len(store.rows_read) <= READS_OF_A_BLOCK_MAX
    assert sleeping(pump) == {0, 1}


def test_what_a_client_that_comes_reads_is_its_own(pump: CountingPump) -> None:
    store = with_counted_rows(pump)
    pump.connect(pump.clients[0])
    pump.run()
    assert sleeping(pump) == {1}
    assert 0 < len(store.rows_read) <= READS_OF_A_VISIT_MAX
    store.rows_read.clear()
    assert pay(pump, pump.lsp, pump.clients[0], AMOUNT_MSAT).status == "paid"
    assert len(store.rows_read) <= READS_OF_A_VISIT_MAX


def by_its_client(pump: Pump) -> None:
    pump.connect(pump.clients[1])
    pump.run()


def by_a_spend_of_its_output(pump: Pump) -> None:
    bob = pump.clients[1]
    pump.handle(bob, ev.ExitRequested(attempt_id=newest_link(bob).attempt_id))
    pump.mine()


def by_its_operator(pump: Pump) -> None:
    attempt_id = newest_link(pump.clients[1]).attempt_id
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt_id, client=1))


def by_mail_that_waited(pump: Pump) -> None:
    """The chain's letter to it is in an outbox when the process ends."""
    driver = driver_of(pump)
    driver._role = replace(driver._role, decide=partial(lsp_role.decide, delivers=False))
    by_a_spend_of_its_output(pump)
    assert sleeping(pump) == {0, 1}
    start_again(pump)


WAKERS: Final[dict[str, Callable[[Pump], None]]] = {
    "its client": by_its_client,
    "a spend of its output": by_a_spend_of_its_output,
    "its operator": by_its_operator,
    "mail": by_mail_that_waited,
}


@pytest.mark.parametrize("waker", WAKERS)
def test_after_a_restart_with_all_on_the_shelf_it_is_woken(pump: CountingPump, waker: str) -> None:
    start_again(pump)
    assert in_memory(lsp_state(pump)).keys() <= {"house House.last_seen"}
    WAKERS[waker](pump)
    assert sleeping(pump) == {0}
    assert set(lsp_state(pump).factories) == {1}
    check_sums(lsp_state(pump))


def test_after_a_restart_with_all_on_the_shelf_it_wakes_at_its_height() -> None:
    pump = CountingPump(2, policy=SHORT)
    pump.join()
    pump.build()
    pump.run()
    pump.mine(SHORT.min_depth)
    for client in pump.clients:
        pump.blind.add(client.name)  # Or they would leave before.
    all_away(pump)
    shelve(pump)
    start_again(pump)
    expiry_height = lsp_state(pump).factory(0).lifetime.expiry_height
    while (wake_height := lsp_state(pump).asleep[0].wake_height) <= expiry_height:
        pump.mine(wake_height - pump.chain.height - 1)
        assert sleeping(pump) == {0}
        pump.mine()
        assert sleeping(pump) == set()
        if wake_height == expiry_height:
            break
        all_away(pump)
    assert lsp_state(pump).house.lent_sat() == 0


def test_it_pays_on_as_if_it_had_always_been_there(pump: CountingPump) -> None:
    start_again(pump)
    alice, bob = pump.clients
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    assert pay(pump, alice, bob, AMOUNT_MSAT).status == "paid"
    assert balance(bob).own_msat == FIRST_MSAT + AMOUNT_MSAT
    all_away(pump)
    assert sleeping(pump) == {0, 1}
    assert lsp_state(pump).book.n_finished == 1


@pytest.mark.sampled(4)
@pytest.mark.parametrize("n_lived", range(4))
@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("stream", [HOUSE, CHAIN])
def test_a_crash_before_or_after_the_rows_are_stored_loses_nothing(
    stream: str,
    is_stored: bool,  # noqa: FBT001 - a parameter of pytest
    n_lived: int,
) -> None:
    """Rows and snapshot are stored together, while the LSP lives on; then its process ends."""
    pump = two_factories()
    driver = driver_of(pump)
    shelve(pump)
    pump.mine()
    made = driver.begin_checkpoint(stream)()
    lives: tuple[Callable[[], object], ...] = (
        pump.mine,
        lambda: all_away(pump),
        lambda: by_its_client(pump),
    )
    for live in lives[:n_lived]:
        live()
    if is_stored and made.n >= _kept_n(pump.lsp.store, stream):
        pump.lsp.store.replace_checkpoint(made)
    live_state = durable(driver.state)
    check_sums(driver.state)
    start_again(pump)
    assert durable(lsp_state(pump)).house.entries == live_state.house.entries
    everything = MemoryJournal(entries=list(pump.lsp.store.entries))
    folded = Driver(LSP_ROLE, driver.beginning, everything, lambda _effect: ())
    assert durable(lsp_state(pump)) == durable(folded.state)
    check_sums(lsp_state(pump))


def _kept_n(store: Store, stream: str) -> int:
    kept = store.checkpoint(stream)
    return 0 if kept is None else kept.n


@pytest.mark.parametrize("is_after", [False, True])
def test_a_process_that_dies_as_it_stores_them_goes_on_from_before_or_after(
    is_after: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    pump = two_factories()
    node, driver = pump.lsp, driver_of(pump)
    fuse = iter([*[False] * is_after, True])
    node.store.dice = lambda: next(fuse)
    made = driver.begin_checkpoint(HOUSE)()
    with pytest.raises(Crash):
        driver.keep(made)
    node.store.dice = lambda: False
    assert (node.store.checkpoint(HOUSE) is not None) == is_after
    before = durable(driver.state)
    start_again(pump)
    assert durable(lsp_state(pump)).house.tally == before.house.tally
    check_sums(lsp_state(pump))


ROW_DAMAGES: Final = {
    "House.order": "DELETE FROM shelf WHERE name = 'House.order'",
    "Scan.watchers": "UPDATE shelf SET value = CAST(value || x'00' AS BLOB) "
    "WHERE name = 'Scan.watchers'",
    "Post.taken": "INSERT INTO shelf SELECT stream, name, x'7a', value FROM shelf "
    "WHERE name = 'Post.taken' LIMIT 1",
}


def damaged_home(pump: CountingPump, home: Path, statement: str) -> None:
    """Leave the LSP's journal with its checkpoints, and some of their rows damaged."""
    kept = pump.lsp.store
    with Journal(home) as journal:
        journal.append(kept.entries)
        for checkpoint in kept.checkpoints.values():
            journal.replace_checkpoint(checkpoint._replace(rows=_rows_of(kept, checkpoint)))
    connection = apsw.Connection(str(home / "journal.sqlite"))
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("shelf", ROW_DAMAGES)
def test_rows_that_were_lost_or_changed_are_made_anew_of_the_records(
    pump: CountingPump, tmp_path: Path, caplog: pytest.LogCaptureFixture, shelf: str
) -> None:
    beginning = driver_of(pump).beginning
    damaged_home(pump, tmp_path, ROW_DAMAGES[shelf])
    with Journal(tmp_path) as journal:
        driver = Driver(LSP_ROLE, beginning, journal, lambda _effect: ())
        assert durable(driver.state) == durable(lsp_state(pump))
        assert f"are damaged: {shelf}" in caplog.text
        for name in driver.due_checkpoints():
            driver.keep(driver.begin_checkpoint(name)())
    caplog.clear()
    with Journal(tmp_path) as journal:
        driver = Driver(LSP_ROLE, beginning, journal, lambda _effect: ())
        assert durable(driver.state) == durable(lsp_state(pump))
    assert not caplog.text


def test_rows_that_were_lost_or_changed_start_nothing_where_the_records_are_gone(
    pump: CountingPump, tmp_path: Path
) -> None:
    beginning = driver_of(pump).beginning
    for number, (shelf, statement) in enumerate(ROW_DAMAGES.items()):
        home = tmp_path / str(number)
        damaged_home(pump, home, statement)
        connection = apsw.Connection(str(home / "journal.sqlite"))
        connection.execute("DELETE FROM journal WHERE n = 1 AND number > 1")
        connection.close()
        with (
            Journal(home) as journal,
            pytest.raises(StoreDamaged, match=rf"rows of \w+ are damaged: {shelf}"),
        ):
            Driver(LSP_ROLE, beginning, journal, lambda _effect: ())


def test_a_row_that_changed_while_the_daemon_runs_is_found_before_its_records_go(
    pump: CountingPump, tmp_path: Path
) -> None:
    """By the first checkpoint of a run: it must not take the place of what all can be made of."""
    damaged_home(pump, tmp_path, "SELECT 1")
    with Journal(tmp_path) as journal:
        driver = Driver(LSP_ROLE, driver_of(pump).beginning, journal, lambda _effect: ())
        rows = journal.rows(HOUSE, "House.entries")
        key, value = next(iter(rows))
        changed = value[:-1] + bytes([value[-1] ^ 1])
        for now, is_found in ((changed, True), (value, False)):
            journal._connection.execute(
                "UPDATE shelf SET value = ? WHERE name = 'House.entries' AND key = ?", (now, key)
            )
            if is_found:
                with pytest.raises(UnreadableSnapshot, match=r"damaged: House.entries"):
                    driver.begin_checkpoint(HOUSE)()
            else:
                driver.keep(driver.begin_checkpoint(HOUSE)())


def test_a_label_that_was_changed_starts_nothing_and_is_named(pump: CountingPump) -> None:
    beginning, kept = driver_of(pump).beginning, pump.lsp.store
    stream, label = next(iter(kept.labels()))
    kept.checkpoints[stream] = kept.checkpoints[stream]._replace(label=label[:-1])
    with pytest.raises(StoreFailed, match=f"the label of {stream} is damaged"):
        Driver(LSP_ROLE, beginning, kept, lambda _effect: ())


def _rows_of(store: MemoryJournal, checkpoint: Checkpoint) -> list[Row]:
    return [
        Row(shelf, key, value)
        for (stream, shelf), lying in store.shelves.items()
        if stream == checkpoint.stream
        for key, value in lying.items()
    ]


def test_an_older_checkpoint_in_one_piece_is_put_on_shelves_at_once() -> None:
    driver: Any = frozen_driver("lsp", with_checkpoints=True)
    before = said("lsp", driver.state)
    check_sums(driver.state)
    assert in_memory(driver.state)["house House.entries"] == 3
    assert list(driver.due_checkpoints()) == [CHAIN, HOUSE]
    for name in (CHAIN, HOUSE):
        driver.keep(driver.begin_checkpoint(name)())
    assert in_memory(driver.state) == {}
    assert list(driver.due_checkpoints()) == []
    again: Any = Driver(LSP_ROLE, driver.beginning, driver._store, lambda _effect: ())
    assert said("lsp", again.state) == before == read("lsp").digest
    check_sums(again.state)
    own = dict(again.state.house.own_keys())
    assert set(own) == {1, 2}
    assert all(again.state.house.keys[pubkey] == number for number, pubkey in own.items())


def test_a_checkpoint_that_was_overtaken_by_another_is_not_made(pump: CountingPump) -> None:
    """Its rows would be counted from what is stored no more."""
    driver = driver_of(pump)
    overtaken = driver.begin_checkpoint(HOUSE)
    pump.mine()
    shelve(pump)
    with pytest.raises(AssertionError, match="another checkpoint of house was stored meanwhile"):
        overtaken()
    start_again(pump)
    check_sums(lsp_state(pump))


def test_a_checkpoint_that_somebody_who_looks_may_cause_leaves_it_asleep(
    pump: CountingPump,
) -> None:
    """It is open because somebody looked; its label is what it is found by."""
    driver = driver_of(pump)
    lsp_state(pump).factory(0)
    driver.keep(driver.begin_checkpoint(factory_stream(0))())
    assert sleeping(pump) == {0, 1}
    start_again(pump)
    assert sleeping(pump) == {0, 1}
