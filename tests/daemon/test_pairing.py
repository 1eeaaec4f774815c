"""Seed and journal belong together: no daemon begins with a pair that is none."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET, Network
from cromford.daemon.pairing import (
    ForeignJournal,
    ForeignSeed,
    SeedMissing,
    SeedUnnamed,
    check_factory_keys,
    creation_in,
    open_keychain,
)
from cromford.daemon.seed_file import (
    SEED_FILE,
    change_passphrase,
    load_or_create_seed,
    read_phrase,
    seed_of,
    write_phrase,
)
from cromford.ports import Entry
from cromford.protocol.journal.records import Created, Started, decode_record, encode_record
from cromford.protocol.journal.streams import CREATION
from cromford.signing.keychain import FactoryKey, Keychain, seed_fingerprint

# BIP 39's own vectors.
PHRASE = "abandon " * 11 + "about"
OTHER_PHRASE = "zoo " * 11 + "wrong"
PASSPHRASE = "correct horse"
# As a version wrote it that did not name the seed: client, regtest, journal number 7.
OLD_CREATED = bytes.fromhex(
    "0294a763726561746564a6636c69656e74c420"
    "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f07"
)
ROLES = ("client", "lsp")


def start(
    home: Path, *, role: str = "client", network: Network = REGTEST, passphrase: str | None = None
) -> Keychain:
    """Begin as a daemon does."""
    with Journal(home) as journal:
        return open_keychain(journal, home, role=role, network=network, passphrase=passphrase)


def fingerprint(phrase: str) -> str:
    return seed_fingerprint(seed_of(phrase), REGTEST).hex()


def journalled(home: Path, *records: bytes) -> list[bytes]:
    """Append records to the journal in a directory, and return all it holds."""
    with Journal(home) as journal:
        journal.append([Entry(CREATION, record) for record in records])
        return list(journal.replay(CREATION))


@pytest.mark.parametrize("role", ROLES)
def test_the_first_record_names_the_seed_and_every_later_start_finds_the_same_keys(
    tmp_path: Path, role: str
) -> None:
    keychain = start(tmp_path, role=role)
    (data,) = journalled(tmp_path)
    created = decode_record(data)
    assert isinstance(created, Created)
    seed = load_or_create_seed(tmp_path, None)
    assert created.seed_fingerprint == seed_fingerprint(seed, REGTEST)
    again = start(tmp_path, role=role)
    name = FactoryKey(attempt=0)
    assert (again.node_id, again.pubkey(name)) == (keychain.node_id, keychain.pubkey(name))
    assert journalled(tmp_path) == [data]


@pytest.mark.parametrize("role", ROLES)
def test_a_journal_without_its_seed_is_refused_and_no_seed_is_made(
    tmp_path: Path, role: str
) -> None:
    write_phrase(tmp_path, PHRASE, None)
    start(tmp_path, role=role)
    (tmp_path / SEED_FILE).unlink()
    with pytest.raises(SeedMissing, match=rf"seed {fingerprint(PHRASE)}, and .*/seed is not there"):
        start(tmp_path, role=role)
    assert not (tmp_path / SEED_FILE).exists()
    write_phrase(tmp_path, PHRASE, None)
    start(tmp_path, role=role)


def test_a_first_start_waits_for_the_seed_that_a_link_leads_to(tmp_path: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "stick" / SEED_FILE
    home.mkdir()
    (home / SEED_FILE).symlink_to(place)
    with pytest.raises(SeedMissing, match=f"{home / SEED_FILE} is a link that leads nowhere"):
        start(home)
    assert (home / SEED_FILE).is_symlink()
    place.parent.mkdir()
    write_phrase(place.parent, PHRASE, None)
    assert start(home).seed_fingerprint == seed_fingerprint(seed_of(PHRASE), REGTEST)


@pytest.mark.parametrize("role", ROLES)
def test_a_journal_with_another_seed_is_refused_and_both_are_named(
    tmp_path: Path, role: str
) -> None:
    write_phrase(tmp_path, PHRASE, None)
    start(tmp_path, role=role)
    before = journalled(tmp_path)
    (tmp_path / SEED_FILE).unlink()
    write_phrase(tmp_path, OTHER_PHRASE, None)
    with pytest.raises(ForeignSeed) as refused:
        start(tmp_path, role=role)
    assert str(refused.value) == (
        f"the journal belongs to the seed {fingerprint(PHRASE)}, and the seed beside it is "
        f"{fingerprint(OTHER_PHRASE)}"
    )
    assert journalled(tmp_path) == before
    assert read_phrase(tmp_path, None) == OTHER_PHRASE


def test_a_seed_without_a_journal_begins_one_with_fresh_factory_keys_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_phrase(tmp_path, PHRASE, None)
    first = start(tmp_path)
    (tmp_path / JOURNAL_NAME).unlink()
    caplog.clear()
    second = start(tmp_path)
    assert first.node_id == second.node_id
    assert first.pubkey(FactoryKey(attempt=0)) != second.pubkey(FactoryKey(attempt=0))
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert fingerprint(PHRASE) in told.getMessage()
    assert "this seed had no journal here" in told.getMessage()
    caplog.clear()
    start(tmp_path)
    assert not caplog.records


def test_a_passphrase_that_was_changed_changes_no_pair(tmp_path: Path) -> None:
    first = start(tmp_path)
    change_passphrase(tmp_path, old=None, new=PASSPHRASE)
    assert start(tmp_path, passphrase=PASSPHRASE).node_id == first.node_id


def test_a_journal_from_before_seeds_were_named_is_refused_for_that(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, None)
    created = decode_record(OLD_CREATED)
    assert created == Created(role="client", network=REGTEST.genesis_hash, journal_number=7)
    journalled(tmp_path, OLD_CREATED)
    with pytest.raises(SeedUnnamed, match="does not name its seed"):
        start(tmp_path)
    assert journalled(tmp_path) == [OLD_CREATED]


@pytest.mark.parametrize(("role", "network"), [("client", REGTEST), ("lsp", SIGNET)])
def test_a_journal_of_another_role_or_network_is_refused_before_a_seed_is_made(
    tmp_path: Path, role: str, network: Network
) -> None:
    start(tmp_path, role="lsp")
    (tmp_path / SEED_FILE).unlink()
    with pytest.raises(ForeignJournal, match=f"a {role} on {network.name}, .* on regtest"):
        start(tmp_path, role=role, network=network)
    assert not (tmp_path / SEED_FILE).exists()


def test_a_journal_without_its_beginning_is_refused(tmp_path: Path) -> None:
    journalled(tmp_path, encode_record(Started()))
    with pytest.raises(ForeignJournal, match="does not begin with its creation"):
        start(tmp_path)


def test_a_journal_of_other_streams_only_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([Entry("client", encode_record(Started()))])
    with pytest.raises(ForeignJournal, match="does not begin with its creation"):
        start(tmp_path)


def test_what_is_beside_a_seed_is_known_without_a_daemon(tmp_path: Path) -> None:
    def created() -> Created | None:
        return creation_in(tmp_path, role="client", network=REGTEST)

    assert created() is None
    assert list(tmp_path.iterdir()) == []
    journalled(tmp_path)
    assert created() is None, "a journal without a record is nobody's"
    write_phrase(tmp_path, PHRASE, None)
    start(tmp_path)
    found = created()
    assert found is not None
    assert found.seed_fingerprint.hex() == fingerprint(PHRASE)


def test_a_factory_key_that_the_seed_does_not_derive_is_named() -> None:
    seed = seed_of(PHRASE)
    own, foreign = (Keychain(seed, REGTEST, journal_number=number) for number in (1, 2))
    keys = [(attempt, own.pubkey(FactoryKey(attempt=attempt))) for attempt in range(3)]
    check_factory_keys(own, keys)
    with pytest.raises(ForeignSeed) as refused:
        check_factory_keys(foreign, keys[1:])
    derived = foreign.pubkey(FactoryKey(attempt=1))
    assert str(refused.value) == (
        f"factory key 1: the journal has {keys[1][1].hex()}, the seed derives {derived.hex()}"
    )


class PowerLost(BaseException):
    """The machine stops here: nothing that was to clean up runs either."""


class Fuse:
    """Lets that many changes of the disk happen, then none."""

    def __init__(self, n_left: int) -> None:
        self.n_left = n_left

    def guard(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.n_left == 0:
                raise PowerLost
            self.n_left -= 1
            return change(*args, **kwargs)

        return guarded


CHANGES: tuple[tuple[Any, str], ...] = (
    (os, "open"),
    (os, "fsync"),
    (Path, "rename"),
    (Path, "unlink"),
    (Journal, "append"),
)
N_CHANGES_MAX = 60


def until_power_is_lost(
    monkeypatch: pytest.MonkeyPatch, n_changes: int, work: Callable[[], object]
) -> bool:
    """Do some work while the disk takes that many changes; say whether they were enough."""
    fuse = Fuse(n_changes)
    with monkeypatch.context() as patched:
        for owner, name in CHANGES:
            patched.setattr(owner, name, fuse.guard(getattr(owner, name)))
        try:
            work()
        except PowerLost:
            return False
    return True


@pytest.mark.parametrize("phrase", [None, PHRASE], ids=["a first start", "after a restore"])
def test_a_first_start_that_is_cut_off_anywhere_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phrase: str | None
) -> None:
    for n_changes in range(N_CHANGES_MAX):
        home = tmp_path / str(n_changes)
        home.mkdir()
        if phrase is not None:
            write_phrase(home, phrase, None)
        is_done = until_power_is_lost(monkeypatch, n_changes, partial(start, home))
        had_seed = (home / SEED_FILE).exists()
        seed = load_or_create_seed(home, None) if had_seed else None
        keychain = start(home)
        assert seed in (None, load_or_create_seed(home, None))
        assert keychain.node_id == start(home).node_id
        assert not (home / SEED_FILE).with_suffix(".new").exists()
        if is_done:
            return
    raise AssertionError("a first start takes more changes of the disk")


@pytest.mark.sampled(0)
def test_a_change_of_the_passphrase_that_is_cut_off_leaves_one_that_opens_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_old = 0
    for n_changes in range(N_CHANGES_MAX):
        home = tmp_path / str(n_changes)
        home.mkdir()
        write_phrase(home, PHRASE, None)
        change = partial(change_passphrase, home, old=None, new=PASSPHRASE)
        is_done = until_power_is_lost(monkeypatch, n_changes, change)
        is_new = (home / SEED_FILE).read_bytes().startswith(b"{")
        assert read_phrase(home, PASSPHRASE if is_new else None) == PHRASE
        n_old += not is_new
        load_or_create_seed(home, PASSPHRASE if is_new else None)
        assert [path.name for path in home.iterdir()] == [SEED_FILE]
        if is_done:
            assert is_new
            assert 0 < n_old < n_changes
            return
    raise AssertionError("a change of the passphrase takes more changes of the disk")


def test_mainnet_keys_are_another_seeds_by_their_fingerprint(tmp_path: Path) -> None:
    """A home is one network's, and so is what names its seed."""
    write_phrase(tmp_path, PHRASE, None)
    start(tmp_path, network=MAINNET)
    created = creation_in(tmp_path, role="client", network=MAINNET)
    assert created is not None
    assert created.seed_fingerprint.hex() != fingerprint(PHRASE)
