"""A second and a third place that are none protect nothing, and are refused by name."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.network import REGTEST
from cromford.daemon.backup.high_water import MEMO_KEY, Memo
from cromford.daemon.backup.places import PlaceRefused, check_places, shared_devices
from cromford.daemon.options import ClientOptions
from cromford.daemon.safekeeping import Safekeeping
from cromford.ports import Archived
from cromford.protocol.journal.streams import CREATION
from cromford.signing.keychain import Keychain


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
    keychain = Keychain(bytes(32), REGTEST, journal_number=1)
    with Journal(tmp_path) as store:
        store.append([], [Archived(CREATION, MEMO_KEY, msgspec.msgpack.encode(memo))])
        Safekeeping(store, tmp_path, cast("ClientOptions", options), keychain, role="client")
    assert ("mark_left_out" in caplog.text) is is_kept
