"""A driver and its streams out of memory: found by a restart, loaded by what concerns them only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    book,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_leaving import QUICK
from tests.simulation.sim_node import SimStore, all_awake, durable

from cromford.daemon import streams
from cromford.daemon.backup.restored import mark_as_restored
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.ports import Checkpoint
from cromford.protocol import events as ev
from cromford.protocol.journal.records import StoreRestored, decode_record
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_stream

FIRST_MSAT = 30_000_000
AMOUNT_MSAT = 5_000_000


@dataclass
class CountingStore(SimStore):
    """A journal that counts who is read from it."""

    loads: list[str] = field(default_factory=list)

    def checkpoint(self, stream: str) -> Checkpoint | None:
        self.loads.append(stream)
        return super().checkpoint(stream)


class CountingNode(PumpNode):
    """An LSP as it runs: nobody looks at what sleeps in order to compare it with anything."""

    lsp_role = LSP_ROLE

    def __init__(self, name: str, **given: Any) -> None:
        super().__init__(name, **given)
        counted = CountingStore(owner=name, entries=self.store.entries)
        self.store, self.counted = counted, counted
        self.die()
        self.start()


class CountingPump(Pump):
    """A pump with such an LSP."""

    lsp_kind = CountingNode
    lsp: CountingNode


def two_factories() -> CountingPump:
    """Return two clients with money, each in a factory of its own."""
    pump = CountingPump(2, policy=QUICK)
    for client in pump.clients:
        pump.join(client)
        pump.build()
        pump.run()
        pump.mine(QUICK.min_depth)
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    return pump


@pytest.fixture
def pump() -> CountingPump:
    """The same, all gone and both factories asleep."""
    pump = two_factories()
    all_away(pump)
    assert sleeping(pump) == {0, 1}
    pump.lsp.counted.loads.clear()
    return pump


def driver_of(pump: Pump) -> Driver[Any]:
    assert pump.lsp.driver is not None
    return pump.lsp.driver


def start_again(pump: Pump) -> None:
    """Let the LSP's process end and begin, while nobody is connected."""
    pump.lsp.die()
    pump.lsp.start()


def loaded(pump: CountingPump) -> list[str]:
    """Return which factories were read from the journal since the last look."""
    streams, pump.lsp.counted.loads = pump.lsp.counted.loads, []
    return [stream for stream in streams if stream.startswith("factory")]


def numbers(streams: Sequence[str]) -> set[str]:
    return {stream for stream in streams if stream.startswith("factory")}


def test_a_block_that_does_not_concern_a_factory_does_not_load_it(pump: CountingPump) -> None:
    pump.mine(20)
    assert loaded(pump) == []
    assert numbers(driver_of(pump).open_streams) == set()


def test_a_store_that_was_restored_wakes_every_factory_and_they_sleep_once_it_is_proven(
    pump: CountingPump,
) -> None:
    store = pump.lsp.counted
    heads = {factory_stream(number): store.head(factory_stream(number)) for number in (0, 1)}
    pump.lsp.die()
    assert mark_as_restored(store, backup_id=bytes(16), source="a backup") == 3
    pump.lsp.start()
    assert sleeping(pump) == set()
    for stream, head in heads.items():
        marked = decode_record(next(iter(store.replay(stream, after=head))))
        assert marked == StoreRestored(backup_id=bytes(16), source="a backup")
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(), "what it may have lost is watched for"
    pump.handle(pump.lsp, ev.StoreProven())
    pump.lsp.checkpoint()
    assert sleeping(pump) == {0, 1}
    start_again(pump)
    assert sleeping(pump) == {0, 1}


def test_a_restart_finds_asleep_what_slept_and_reads_none_of_it(pump: CountingPump) -> None:
    asleep, before = lsp_state(pump).asleep, all_awake(lsp_state(pump)).durable
    loaded(pump)
    start_again(pump)
    assert lsp_state(pump).asleep == asleep
    assert loaded(pump) == []
    pump.mine(3)
    assert loaded(pump) == []
    assert all_awake(lsp_state(pump)).durable.factories == before.factories


def test_a_restart_reads_no_factory_to_learn_which_mail_it_took() -> None:
    """What house and chain told it stands in records of theirs that are folded again."""
    pump = two_factories()
    for client in pump.clients:
        pump.disconnect(client)
    driver = driver_of(pump)
    for name in list(driver.quiet()):
        driver.keep(driver.begin_checkpoint(name)())
        assert driver.put_to_sleep(name)
    before = lsp_state(pump)
    loaded(pump)
    start_again(pump)
    assert sleeping(pump) == {0, 1}
    assert loaded(pump) == []
    assert lsp_state(pump).scan.post == before.scan.post, "and none of it is on its way again"
    assert lsp_state(pump).house.post == before.house.post


def test_a_client_that_comes_loads_its_own_factory_once(pump: CountingPump) -> None:
    pump.connect(pump.clients[0])
    pump.run()
    pump.mine(3)
    assert pay(pump, pump.lsp, pump.clients[0], AMOUNT_MSAT).status == "paid"
    assert loaded(pump) == [factory_stream(0)]
    assert sleeping(pump) == {1}


def test_a_checkpoint_that_cannot_be_read_stops_its_factory_and_no_other(
    pump: CountingPump,
) -> None:
    """What it said is known to a backup alone; whoever is in another factory pays on."""
    damaged, other = pump.clients
    stream = factory_stream(0)
    checkpoint = pump.lsp.store.checkpoints[stream]
    spoilt = checkpoint._replace(snapshot=checkpoint.snapshot[:-1])
    pump.lsp.store.checkpoints[stream] = spoilt
    pump.may_stop = True
    pump.connect(damaged)
    pump.connect(other)
    pump.run()
    assert dict(lsp_state(pump).stopped) == {stream: "StoreDamaged"}
    had_msat = balance(other).own_msat
    begin_payment(pump, pump.lsp, other, AMOUNT_MSAT)
    assert balance(other).own_msat == had_msat + AMOUNT_MSAT

    pump.lsp.store.checkpoints[stream] = checkpoint
    pump.mine()
    pump.run()
    assert not lsp_state(pump).stopped, "it is tried again with the next block"
    pump.connect(damaged)
    pump.run()
    assert pay(pump, damaged, other, AMOUNT_MSAT).status == "paid"


def test_what_the_chain_had_for_a_factory_that_cannot_be_read_waits_for_it(
    pump: CountingPump,
) -> None:
    """What a client published meanwhile is not overlooked, though its factory is read later."""
    stream = factory_stream(0)
    leaver = pump.clients[0]
    outpoint = newest_link(leaver).path[0].outpoint
    checkpoint = pump.lsp.store.checkpoints[stream]
    spoilt = checkpoint._replace(snapshot=checkpoint.snapshot[:-1])
    pump.lsp.store.checkpoints[stream] = spoilt
    pump.may_stop = True
    pump.handle(leaver, ev.ExitRequested(attempt_id=newest_link(leaver).attempt_id))
    pump.run()
    pump.mine(2)
    assert dict(lsp_state(pump).stopped) == {stream: "StoreDamaged"}
    assert outpoint in leaver.state.chain.spends

    pump.lsp.store.checkpoints[stream] = checkpoint
    pump.mine()
    assert not lsp_state(pump).stopped
    assert outpoint in lsp_state(pump).factory(0).chain.spends
    assert durable(pump.lsp.durable_state()) == durable(all_awake(lsp_state(pump)))


def test_what_happens_in_a_factory_that_woke_follows_its_old_checkpoint(
    pump: CountingPump,
) -> None:
    stream = factory_stream(0)
    kept = pump.lsp.counted.checkpoints[stream]
    assert pump.lsp.counted.heads()[stream] == kept.n
    pump.connect(pump.clients[0])
    pump.run()
    assert pay(pump, pump.lsp, pump.clients[0], AMOUNT_MSAT).status == "paid"
    assert pump.lsp.counted.checkpoints[stream] is kept
    assert pump.lsp.counted.heads()[stream] > kept.n
    assert len(list(pump.lsp.counted.replay(stream, after=kept.n))) > 0
    live = lsp_state(pump).durable
    pump.disconnect(pump.clients[0])
    start_again(pump)
    assert sleeping(pump) == {1}, "a label with records after it says nothing"
    factory, before = lsp_state(pump).factory(0), live.factory(0)
    assert factory.book.payments == before.book.payments
    pump.connect(pump.clients[0])
    pump.run()
    assert pay(pump, pump.lsp, pump.clients[0], AMOUNT_MSAT).status == "paid"
    assert balance(pump.clients[0]).own_msat == FIRST_MSAT + 2 * AMOUNT_MSAT
    all_away(pump)
    assert pump.lsp.counted.checkpoints[stream].n > kept.n
    assert sleeping(pump) == {0, 1}


def test_a_forward_loads_the_payees_factory_when_the_payee_comes(pump: CountingPump) -> None:
    alice, bob = pump.clients
    pump.connect(alice)
    pump.run()
    assert loaded(pump) == [factory_stream(0)]
    begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
    pump.mine()
    assert loaded(pump) == [], "a payment that waits is no reason to look"
    pump.connect(bob)
    pump.run()
    assert loaded(pump) == [factory_stream(1)]
    assert book(alice).payments[begun.payment_hash].status in {"paid", "failed"}


def test_news_loads_one_factory_and_it_goes_on_from_its_checkpoint(pump: CountingPump) -> None:
    bob = pump.clients[1]
    pump.handle(bob, ev.ExitRequested(attempt_id=newest_link(bob).attempt_id))
    pump.mine()
    assert loaded(pump) == [factory_stream(1)]
    assert sleeping(pump) == {0}
    factory = lsp_state(pump).factory(1)
    assert factory.attempt.funding_outpoint in factory.chain.spends


def test_who_only_looks_at_a_factory_lets_it_sleep(pump: CountingPump) -> None:
    driver = driver_of(pump)
    assert lsp_state(pump).factory(0).book.links
    assert lsp_state(pump).factory(0).book.links
    assert loaded(pump) == [factory_stream(0)], "as long as nothing else happens, read once"
    assert factory_stream(0) in driver.open_streams
    pump.mine()
    assert sleeping(pump) == {0, 1}
    assert numbers(driver.open_streams) == set()


def test_an_operator_who_shows_a_factory_wakes_it_until_nothing_happens_again(
    pump: CountingPump,
) -> None:
    driver = driver_of(pump)
    driver.wake(factory_stream(1))
    assert sleeping(pump) == {0}
    assert list(driver.state.asleep) == [0]
    driver.wake(factory_stream(1))
    driver.wake("house")
    assert loaded(pump) == [factory_stream(1)]
    assert list(driver.quiet()) == [factory_stream(1)]
    assert driver.put_to_sleep(factory_stream(1)), "its checkpoint still says all of it"
    assert sleeping(pump) == {0, 1}


def test_a_factory_does_not_sleep_on_a_checkpoint_that_says_less(pump: CountingPump) -> None:
    driver = driver_of(pump)
    name = factory_stream(0)
    pump.connect(pump.clients[0])
    pump.run()
    assert not driver.put_to_sleep(name), "it has a guest"
    begun = driver.begin_checkpoint(name)
    assert pay(pump, pump.lsp, pump.clients[0], AMOUNT_MSAT).status == "paid"
    pump.disconnect(pump.clients[0])
    driver.keep(begun())
    assert list(driver.quiet()) == [name]
    assert not driver.put_to_sleep(name), "records followed it"
    driver.keep(driver.begin_checkpoint(name)())
    assert driver.put_to_sleep(name)
    assert not driver.put_to_sleep(name), "it does so already"


def test_of_a_factory_whose_ceremony_is_under_way_no_checkpoint_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would say everybody's nonces and halves, of which nothing is left once it is funded."""
    monkeypatch.setattr(streams, "TAIL_SIZE_MIN", 0)
    pump = CountingPump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run(until=lambda: pump.attempt.is_open)
    driver, stream = driver_of(pump), pump.factory.stream
    assert list(driver.due_checkpoints()) == [CHAIN, HOUSE]
    pump.run()
    assert pump.is_funded()
    assert list(driver.due_checkpoints()) == [CHAIN, stream, HOUSE]
