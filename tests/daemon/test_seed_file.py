"""The seed file: written once, readable by its owner, refused before anything is written."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wallycore
from mnemonic import Mnemonic

from cromford.daemon import seed_file
from cromford.daemon.home import MARK
from cromford.daemon.seed_file import (
    SEED_FILE,
    BadSeed,
    NotEncrypted,
    WrongPassphrase,
    change_passphrase,
    check_phrase,
    is_encrypted,
    load_or_create_seed,
    read_phrase,
    seed_of,
    write_phrase,
)
from cromford.signing.bip32 import master_of

# BIP 39's phrase of all-zero entropy, and its seed without a passphrase.
PHRASE = "abandon " * 11 + "about"
SEED_HEX = (
    "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
    "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4"
)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_the_first_start_draws_a_seed_that_every_later_start_finds(
    tmp_path: Path, passphrase: str | None
) -> None:
    first = load_or_create_seed(tmp_path, passphrase)

    assert load_or_create_seed(tmp_path, passphrase) == first
    assert len(read_phrase(tmp_path, passphrase).split()) == 24
    assert (tmp_path / SEED_FILE).stat().st_mode & 0o777 == 0o600


def test_a_known_phrase_gives_its_published_seed(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, None)

    assert load_or_create_seed(tmp_path, None).hex() == SEED_HEX


def test_the_vectors_of_bip_39_are_drawn_taken_and_made_a_seed(
    tmp_path: Path, json_vectors: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = json_vectors("bip39.json")["english"]
    for number, (entropy, phrase, seed, xprv) in enumerate(vectors):
        drawn, taken = tmp_path / f"drawn{number}", tmp_path / f"taken{number}"
        drawn.mkdir()
        taken.mkdir()
        monkeypatch.setattr(secrets, "token_bytes", lambda _, raw=entropy: bytes.fromhex(raw))
        ours = load_or_create_seed(drawn, None)
        assert read_phrase(drawn, None) == phrase
        write_phrase(taken, phrase, None)
        assert load_or_create_seed(taken, None) == ours
        # The vectors have a passphrase, which ends the salt and which our seeds do without.
        for salt, expected in (("mnemonic", ours), ("mnemonicTREZOR", bytes.fromhex(seed))):
            stretched = hashlib.pbkdf2_hmac("sha512", phrase.encode(), salt.encode(), 2048)
            assert stretched == expected
        master = master_of(bytes.fromhex(seed))
        key = wallycore.bip32_key_from_base58(xprv)
        assert master.seckey == bytes(wallycore.bip32_key_get_priv_key(key))
        assert master.chain_code == bytes(wallycore.bip32_key_get_chain_code(key))
    assert len(vectors) == 24


def test_an_encrypted_file_shows_no_word(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, "correct horse")

    data = (tmp_path / SEED_FILE).read_bytes()
    assert b"abandon" not in data
    assert b"correct" not in data
    assert read_phrase(tmp_path, "correct horse") == PHRASE


@pytest.mark.usefixtures("whole_cost")
def test_to_guess_a_passphrase_costs_what_rfc_9106_recommends(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, "correct horse")

    stored = json.loads((tmp_path / SEED_FILE).read_bytes())
    assert (stored["iterations"], stored["memory_kib"], stored["lanes"]) == (3, 64 * 1024, 4)
    assert read_phrase(tmp_path, "correct horse") == PHRASE


@pytest.mark.sampled(1)
@pytest.mark.parametrize("passphrase", [None, "", "Correct horse", "correct horse "])
def test_a_missing_or_wrong_passphrase_opens_nothing(
    tmp_path: Path, passphrase: str | None
) -> None:
    write_phrase(tmp_path, PHRASE, "correct horse")

    with pytest.raises(WrongPassphrase):
        load_or_create_seed(tmp_path, passphrase)


@pytest.mark.parametrize(
    ("phrase", "complaint"),
    [
        (PHRASE + "\n", "one space"),
        (" " + PHRASE, "one space"),
        (PHRASE.replace(" ", "  ", 1), "one space"),
        (PHRASE.replace("abandon", "Abandon", 1), "not in the BIP 39 list"),
        (PHRASE.replace("about", "abut"), "word 12 is not in the BIP 39 list"),
        ("abandon " * 11 + "abandon", "checksum"),
        ("abandon " * 10 + "about", "received 11"),
        ("", "one space"),
    ],
)
def test_a_wrong_phrase_is_refused_before_anything_is_written(
    tmp_path: Path, phrase: str, complaint: str
) -> None:
    with pytest.raises(BadSeed, match=complaint):
        write_phrase(tmp_path, phrase, None)

    assert list(tmp_path.iterdir()) == []


def test_a_refusal_never_repeats_the_phrase() -> None:
    with pytest.raises(BadSeed) as refused:
        check_phrase(PHRASE.replace("about", "zzzz"))

    assert "abandon" not in str(refused.value)
    assert "zzzz" not in str(refused.value)


def test_a_seed_is_never_overwritten(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, None)

    with pytest.raises(BadSeed, match="already"):
        write_phrase(tmp_path, Mnemonic("english").to_mnemonic(bytes(range(16))), None)

    assert read_phrase(tmp_path, None) == PHRASE


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_a_passphrase_for_a_seed_that_is_not_encrypted_is_refused(
    tmp_path: Path, passphrase: str
) -> None:
    """Who gives one believes that it protects something."""
    write_phrase(tmp_path, PHRASE, None)
    with pytest.raises(NotEncrypted, match="not encrypted, and a passphrase was given"):
        load_or_create_seed(tmp_path, passphrase)
    assert read_phrase(tmp_path, None) == PHRASE


@pytest.mark.sampled(1)
@pytest.mark.parametrize("old", [None, "correct horse"])
def test_another_passphrase_opens_the_same_seed_and_the_old_one_no_longer(
    tmp_path: Path, old: str | None
) -> None:
    write_phrase(tmp_path, PHRASE, old)
    change_passphrase(tmp_path, old=old, new="battery staple")
    assert read_phrase(tmp_path, "battery staple") == PHRASE
    assert is_encrypted(tmp_path)
    with pytest.raises(WrongPassphrase):
        read_phrase(tmp_path, old)
    assert [path.name for path in tmp_path.iterdir()] == [SEED_FILE]
    assert (tmp_path / SEED_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("written", "old", "new", "refusal"),
    [
        ("correct horse", "wrong", "battery staple", WrongPassphrase),
        ("correct horse", None, "battery staple", WrongPassphrase),
        (None, "correct horse", "battery staple", NotEncrypted),
        ("correct horse", "correct horse", "", BadSeed),
        (None, None, "", BadSeed),
    ],
)
def test_a_refused_change_of_the_passphrase_leaves_the_file_as_it_was(
    tmp_path: Path, written: str | None, old: str | None, new: str, refusal: type[BadSeed]
) -> None:
    write_phrase(tmp_path, PHRASE, written)
    before = (tmp_path / SEED_FILE).read_bytes()
    with pytest.raises(refusal):
        change_passphrase(tmp_path, old=old, new=new)
    assert (tmp_path / SEED_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [SEED_FILE]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_phrase(tmp_path, PHRASE, None)

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="no space"):
            change_passphrase(tmp_path, old=None, new="battery staple")
    assert read_phrase(tmp_path, None) == PHRASE
    assert [path.name for path in tmp_path.iterdir()] == [SEED_FILE]


def test_a_file_that_does_not_read_back_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_phrase(tmp_path, PHRASE, None)
    fsync, other = os.fsync, Mnemonic("english").to_mnemonic(bytes(range(16)))

    def spoil(descriptor: int) -> None:
        fsync(descriptor)
        for path in tmp_path.glob("*.new"):
            path.write_text(other, encoding="utf-8")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", spoil)
        with pytest.raises(BadSeed):
            change_passphrase(tmp_path, old=None, new="battery staple")
        (tmp_path / SEED_FILE).rename(tmp_path / "kept")
        with pytest.raises(BadSeed, match="something else was read"):
            write_phrase(tmp_path, PHRASE, None)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_a_crash_left_half_written_is_overwritten(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, None)
    (tmp_path / SEED_FILE).with_suffix(".new").write_bytes(b"half")
    change_passphrase(tmp_path, old=None, new="battery staple")
    assert read_phrase(tmp_path, "battery staple") == PHRASE
    assert [path.name for path in tmp_path.iterdir()] == [SEED_FILE]


def test_an_empty_passphrase_encrypts_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadSeed, match="passphrase"):
        write_phrase(tmp_path, PHRASE, "")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", ["correct horse", f"{MARK}correct horse"])
@pytest.mark.parametrize("given", ["correct horse", f"{MARK}correct horse"])
def test_a_mark_that_an_editor_wrote_locks_nobody_out(
    tmp_path: Path, written: str, given: str
) -> None:
    """What is in a file with the mark is typed without it, and the other way round."""
    write_phrase(tmp_path, PHRASE, written)
    assert read_phrase(tmp_path, given) == PHRASE
    with pytest.raises(WrongPassphrase):
        read_phrase(tmp_path, f"{given} ")


@pytest.mark.parametrize("given", ["correct horse", f"{MARK}correct horse"])
def test_a_file_that_was_encrypted_with_the_mark_opens_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Files of before were: to take it off what is given would lock out whoever has one."""
    monkeypatch.setattr(seed_file, "without_mark", lambda passphrase: passphrase)
    write_phrase(tmp_path, PHRASE, f"{MARK}correct horse")
    monkeypatch.undo()
    assert read_phrase(tmp_path, given) == PHRASE
    change_passphrase(tmp_path, old=given, new=f"{MARK}battery")
    assert read_phrase(tmp_path, "battery") == PHRASE


def test_a_mark_alone_encrypts_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadSeed, match="at least one character"):
        write_phrase(tmp_path, PHRASE, MARK)


def test_a_seed_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_phrase(tmp_path, PHRASE, None)
    (tmp_path / SEED_FILE).chmod(0o640)

    with pytest.raises(BadSeed, match="0600"):
        read_phrase(tmp_path, None)


FORGED = (
    '{"version":%d,"kdf":"argon2id","iterations":3,"memory_kib":%d,"lanes":4,'
    '"salt":"AAAAAAAAAAAAAAAAAAAAAA==","nonce":"AAAAAAAAAAAAAAAA","ciphertext":""}'
)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"version":1}',
        b"{" + b" " * 5000,
        (FORGED % (2, 65_536)).encode(),
        (FORGED % (1, 999_999_999)).encode(),
        b"\xff\xfe",
    ],
)
def test_a_forged_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / SEED_FILE
    path.write_bytes(data)
    path.chmod(0o600)

    with pytest.raises(BadSeed):
        read_phrase(tmp_path, "correct horse")


def test_a_missing_seed_is_said_to_be_missing(tmp_path: Path) -> None:
    for ask in (lambda: read_phrase(tmp_path, None), lambda: is_encrypted(tmp_path)):
        with pytest.raises(BadSeed, match="no seed"):
            ask()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("old", [None, "correct horse"])
def test_where_the_seed_is_a_link_another_passphrase_leaves_nothing_where_it_leads(
    tmp_path: Path, old: str | None
) -> None:
    """Else what was encrypted would lie open still, on the stick that the link leads to."""
    home, stick = tmp_path / "home", tmp_path / "stick"
    home.mkdir()
    stick.mkdir()
    write_phrase(stick, PHRASE, old)
    (home / SEED_FILE).symlink_to(stick / SEED_FILE)
    before = (stick / SEED_FILE).read_bytes()
    change_passphrase(home, old=old, new="another")
    assert (home / SEED_FILE).is_symlink()
    assert read_phrase(stick, "another") == read_phrase(home, "another") == PHRASE
    assert (stick / SEED_FILE).read_bytes() != before
    assert [path.name for path in (*home.iterdir(), *stick.iterdir())] == [SEED_FILE] * 2


def test_a_link_that_leads_nowhere_is_no_place_for_a_new_seed(tmp_path: Path) -> None:
    """What it leads to may lie on a disk that is mounted late."""
    place = tmp_path / "stick" / SEED_FILE
    (tmp_path / SEED_FILE).symlink_to(place)
    for make in (
        lambda: load_or_create_seed(tmp_path, None),
        lambda: write_phrase(tmp_path, PHRASE, None),
    ):
        with pytest.raises(BadSeed, match="it is a link that leads nowhere"):
            make()
    place.parent.mkdir()
    with pytest.raises(BadSeed, match="it is a link that leads nowhere"):
        load_or_create_seed(tmp_path, None)
    assert list(place.parent.iterdir()) == []
    write_phrase(place.parent, PHRASE, None)
    assert load_or_create_seed(tmp_path, None) == seed_of(PHRASE)
