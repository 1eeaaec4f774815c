"""What an agent holds is durable, one way to each channel, and no more than it has room for."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.watch.packages import encoded, package

from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.agent.keeping import PACKAGES, STREAM, ForeignHome, HeldPackage, Keeping, NotHeld
from cromford.bitcoin.network import REGTEST, SIGNET
from cromford.ports import Checkpoint, Entry, Row, StoreFailed

ALICE, BOB = package(5, 3), package(5, 1)


def keeping_of(store: MemoryJournal | Journal, *, packages_max: int = 10) -> Keeping:
    return Keeping(store, REGTEST, packages_max=packages_max)


def test_what_is_taken_begun_and_given_back_outlives_the_process(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        keeping = keeping_of(journal)
        assert keeping.take(ALICE)
        assert keeping.take(BOB)
        keeping.begin(ALICE.package_id, 812_345)
    with Journal(tmp_path) as journal:
        keeping = keeping_of(journal)
        assert keeping.held == {
            ALICE.package_id: HeldPackage(package=ALICE, begun_height=812_345),
            BOB.package_id: HeldPackage(package=BOB),
        }
        keeping.give_back(ALICE.package_id)
        assert list(keeping.held) == [BOB.package_id]
    with Journal(tmp_path) as journal:
        keeping = keeping_of(journal)
        assert list(keeping.held) == [BOB.package_id]
        # And it may come back, not begun.
        assert keeping.take(ALICE)
        assert keeping.held[ALICE.package_id].begun_height is None
    with Journal(tmp_path) as journal:
        assert keeping_of(journal).held[ALICE.package_id] == HeldPackage(package=ALICE)


class FullDisk(MemoryJournal):
    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        raise StoreFailed(f"no room for {len(checkpoint.rows)}")


def test_what_the_disk_did_not_take_is_not_held() -> None:
    keeping = keeping_of(FullDisk())
    with pytest.raises(StoreFailed):
        keeping.take(ALICE)
    assert keeping.held == {}


def test_one_package_of_each_channel_is_held() -> None:
    keeping = keeping_of(MemoryJournal())
    assert keeping.take(ALICE)
    assert not keeping.take(ALICE)
    other = replace(ALICE, txs=(*ALICE.txs[:-1], BOB.txs[-1]))
    assert other.package_id == ALICE.package_id
    with pytest.raises(NotHeld, match="another package of the same channel") as refused:
        keeping.take(other)
    assert refused.value.code == "package_held"
    assert keeping.held == {ALICE.package_id: HeldPackage(package=ALICE)}


def test_a_commitment_may_be_added_to_what_is_held_and_not_taken_away() -> None:
    store = MemoryJournal()
    keeping = keeping_of(store)
    keeping.take(ALICE)
    keeping.begin(ALICE.package_id, 7)
    leaving = package(5, 3, is_leaving=True)
    assert not keeping.take(leaving)
    expected = {ALICE.package_id: HeldPackage(package=leaving, begun_height=7)}
    assert keeping.held == keeping_of(store).held == expected
    with pytest.raises(NotHeld):
        keeping.take(ALICE)
    assert keeping.held == expected


def test_there_is_room_for_a_number_of_packages() -> None:
    keeping = keeping_of(MemoryJournal(), packages_max=1)
    keeping.take(ALICE)
    with pytest.raises(NotHeld, match="holds 1 packages, its most") as refused:
        keeping.take(BOB)
    assert refused.value.code == "agent_full"
    assert not keeping.take(ALICE)
    keeping.give_back(ALICE.package_id)
    assert keeping.take(BOB)


def test_a_journal_of_somebody_else_is_left_alone() -> None:
    store = MemoryJournal()
    keeping_of(store)
    with pytest.raises(ForeignHome, match="expected the journal of an agent on signet"):
        Keeping(store, SIGNET, packages_max=1)
    other = MemoryJournal()
    other.append([Entry("creation", b"{}")])
    with pytest.raises(ForeignHome):
        keeping_of(other)
    assert [entry.stream for entry in other.entries] == ["creation"]


def test_a_package_that_cannot_be_read_any_more_takes_none_of_the_others_along() -> None:
    store = MemoryJournal()
    keeping = keeping_of(store)
    keeping.take(ALICE)
    row = Row(PACKAGES, BOB.package_id, encoded(BOB)[:-1])
    store.replace_checkpoint(Checkpoint(stream=STREAM, n=0, snapshot=b"", rows=(row,)))
    again = keeping_of(store)
    assert list(again.held) == [ALICE.package_id]
    assert again.n_unreadable == 1
    full = keeping_of(store, packages_max=2)
    assert full.take(BOB), "handed over once more, it takes its own place"
    assert full.n_unreadable == 0
    store.replace_checkpoint(Checkpoint(stream=STREAM, n=0, snapshot=b"", rows=(row,)))
    again = keeping_of(store)
    again.give_back(BOB.package_id)
    assert again.n_unreadable == keeping_of(store).n_unreadable == 0
    assert list(keeping_of(store).held) == [ALICE.package_id]
