"""A second and a third place that are none protect nothing, and are refused by name."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

import msgspec
import pytest

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.network import REGTEST
from cromford.daemon.backup.header import Owner
from cromford.daemon.backup.high_water import MEMO_KEY, Memo
from cromford.daemon.backup.places import PlaceRefused, check_places, shared_devices
from cromford.daemon.backup.reading import load
from cromford.daemon.backup.restored import NOT_NAMED, mark_as_restored
from cromford.daemon.options import ClientOptions
from cromford.daemon.safekeeping import Safekeeping
from cromford.ports import Archived, Entry
from cromford.protocol.journal.streams import CLIENT, CREATION
from cromford.signing.keychain import Keychain

KEYCHAIN: Final = Keychain(bytes(32), REGTEST, journal_number=1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("data/regtest", "second", "third", "second/within"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "loop").symlink_to(tmp_path / "second" / "within")
    return tmp_path


@pytest.mark.parametrize(
    ("backup_dir", "mark_dir"),
    [(None, None), ("second", None), (None, "third"), ("second", "third"), ("data2", "not/there")],
)
def test_three_places_are_taken(base: Path, backup_dir: str | None, mark_dir: str | None) -> None:
    check_places(
        base / "data",
        backup_dir=None if backup_dir is None else base / backup_dir,
        mark_dir=None if mark_dir is None else base / mark_dir,
    )


@pytest.mark.parametrize(
    ("backup_dir", "mark_dir", "named"),
    [
        ("data", None, "--backup-dir"),
        ("data/regtest", None, "--backup-dir"),
        ("data/new", None, "--backup-dir"),
        ("data/../data", None, "--backup-dir"),
        ("link", None, "--backup-dir"),
        ("link/new", None, "--backup-dir"),
        (".", None, "--backup-dir"),
        (None, "data", "--mark-dir"),
        (None, ".", "--mark-dir"),
        ("second", "second", "--mark-dir"),
        ("second", "second/within", "--mark-dir"),
        ("second", "loop", "--mark-dir"),
        ("second/within", "second", "--mark-dir"),
        ("second", "link", "--mark-dir"),
    ],
)
def test_a_place_that_is_no_other_is_refused_by_name(
    base: Path, backup_dir: str | None, mark_dir: str | None, named: str
) -> None:
    with pytest.raises(PlaceRefused, match=f"^{named}: .* are one place, or one is within"):
        check_places(
            base / "data",
            backup_dir=None if backup_dir is None else base / backup_dir,
            mark_dir=None if mark_dir is None else base / mark_dir,
        )


def test_places_on_one_device_are_said_to_be(base: Path) -> None:
    assert shared_devices(base / "data", backup_dir=None, mark_dir=None) == ()
    (said,) = shared_devices(base / "data", backup_dir=base / "second", mark_dir=base / "third")
    assert "the data directory, --backup-dir and --mark-dir are on one device" in said
    assert shared_devices(base / "data", backup_dir=base / "none", mark_dir=None) == ()


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_store_whose_mark_is_left_out_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_kept: bool
) -> None:
    memo = Memo(number=3, digest=bytes(32), line=b"line", is_kept=is_kept)
    options = SimpleNamespace(network=REGTEST, datadir=tmp_path, backup_dir=None, mark_dir=None)
    with Journal(tmp_path) as store:
        store.append([], [Archived(CREATION, MEMO_KEY, msgspec.msgpack.encode(memo))])
        Safekeeping(store, tmp_path, cast("ClientOptions", options), KEYCHAIN, role="client")
    assert ("mark_left_out" in caplog.text) is is_kept


def run(
    store: Journal, home: Path, record: bytes, *, mark_dir: Path | None, second: Path | None = None
) -> bool:
    """Run a daemon's safekeeping while it remembers something; say whether a mark proves it."""
    options = SimpleNamespace(network=REGTEST, datadir=home, backup_dir=second, mark_dir=mark_dir)
    safe = Safekeeping(store, home, cast("ClientOptions", options), KEYCHAIN, role="client")
    entries = [Entry(CLIENT, record)]
    store.append(entries, [] if safe.marks is None else [safe.marks.grown(entries)])
    is_proven = safe.marks is not None and safe.marks.cover() and safe.marks.is_proven
    safe.close()
    return is_proven


def test_who_begins_a_journal_beside_the_replica_of_a_lost_one_is_told_for_as_long_as_it_is_there(
    tmp_path: Path,
) -> None:
    """Whoever brought back the words alone sees in `status` what else could be brought back."""
    second = tmp_path / "second"
    second.mkdir()

    def said(number: int, role: str = "client") -> list[str]:
        home = tmp_path / f"{role}-{number}"
        options = SimpleNamespace(network=REGTEST, datadir=home, backup_dir=second, mark_dir=None)
        keychain = Keychain(bytes(32), REGTEST, journal_number=number)
        with Journal(home) as store:
            store.append([Entry(CLIENT, b"one")])
            safe = Safekeeping(store, home, cast("ClientOptions", options), keychain, role=role)
            assert safe.replica is not None
            while not safe.replica.reached:
                time.sleep(0.002)
            warnings = safe.shown()["warnings"]
            safe.close()
        return [text for text in warnings if "another journal of this seed" in text]

    assert said(1) == []
    (first,) = second.iterdir()
    (told,) = said(2)
    assert told.startswith(f"{first} is the replica of another journal of this seed")
    (told,) = said(2)
    assert "`backup restore`" in told
    assert said(3, role="lsp") == []
    shutil.rmtree(first)
    assert said(2) == []


@pytest.mark.parametrize("is_left_out", [False, True])
def test_a_mark_that_was_left_out_proves_nothing_of_what_was_copied_meanwhile(
    tmp_path: Path, *, is_left_out: bool
) -> None:
    home, back, third = (tmp_path / name for name in ("home", "back", "third"))
    for path in (home, third):
        path.mkdir()
    with Journal(home) as store:
        run(store, home, b"one", mark_dir=third)
        run(store, home, b"two", mark_dir=None if is_left_out else third)
    shutil.copytree(home, back)
    if is_left_out:
        with Journal(home) as store:
            store.append([Entry(CLIENT, b"lost")])
    with Journal(back) as store:
        mark_as_restored(store, backup_id=NOT_NAMED, source=str(tmp_path / "second"))
        assert run(store, back, b"goes on", mark_dir=third) is not is_left_out


def test_a_replica_knows_that_a_mark_was_left_out(tmp_path: Path) -> None:
    home, back, second, third = (tmp_path / name for name in ("home", "back", "second", "third"))
    for path in (back, second, third):
        path.mkdir()
    with Journal(home) as store:
        run(store, home, b"one", mark_dir=third, second=second)
        run(store, home, b"two", mark_dir=None, second=second)
    owner = Owner(
        role="client",
        network=REGTEST,
        fingerprint=KEYCHAIN.seed_fingerprint,
        secret=KEYCHAIN.backup_secret,
    )
    assert load(second, owner, back).newest == 2
    with Journal(back) as store:
        mark_as_restored(store, backup_id=NOT_NAMED, source=str(second))
        assert not run(store, back, b"goes on", mark_dir=third)


def test_a_mark_that_is_kept_again_proves_what_is_copied_from_then_on(tmp_path: Path) -> None:
    third = tmp_path / "third"
    third.mkdir()
    with Journal(tmp_path / "home") as store:
        for place in (third, None, None, third, third):
            run(store, tmp_path, b"goes on", mark_dir=place)
        mark_as_restored(store, backup_id=NOT_NAMED, source=str(tmp_path / "second"))
        assert run(store, tmp_path, b"restored", mark_dir=third)
