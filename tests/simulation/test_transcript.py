"""A transcript is the same for the same behaviour, and another for any other."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import pytest
from btclib_secp256k1 import _scalar

from cromford.crypto import curve
from cromford.ports import Entry
from tests.simulation.exits import run_exits
from tests.simulation.life import run_life
from tests.simulation.sim_node import SimStore
from tests.simulation.transcript import Transcript, played, recording, transcript_of

pytestmark = pytest.mark.sampled_file(3)


@cache
def first(run: Callable[[int], str]) -> Transcript:
    """Return what the first time gave: whoever only looks at it does not play it again."""
    return played(run, 1)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("run", [run_life, run_exits])
def test_one_seed_gives_one_transcript(run: Callable[[int], str]) -> None:
    assert first(run).hexdigest() == transcript_of(run, 1)


@pytest.mark.sampled(1)
def test_a_seed_replays_in_another_process() -> None:
    """The order of a set depends on the process: nothing that is kept or said may depend on it."""
    said = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--transcript", "--seeds", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(said) == 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("run", [run_life, run_exits])
def test_records_messages_and_transactions_are_in_a_transcript(run: Callable[[int], str]) -> None:
    transcript = first(run)
    assert transcript.counts["kept"] > transcript.counts["published"] > 0
    assert transcript.counts["sent"] > 0


def test_another_seed_gives_another_transcript() -> None:
    assert first(run_life).hexdigest() != transcript_of(run_life, 2)


def test_whatever_is_kept_and_whoever_keeps_it_is_in_a_transcript() -> None:
    entries = ((("a", (b"1", b"23")),), (("a", (b"12", b"3")),), (("b", (b"1", b"23")),))
    hashes = set()
    for kept in entries:
        with recording("seed") as transcript:
            for owner, records in kept:
                SimStore(owner=owner).append([Entry("house", record) for record in records])
        hashes.add(transcript.hexdigest())
    assert len(hashes) == len(entries)
    assert Transcript().hexdigest() not in hashes


def test_after_a_transcript_nonces_are_as_random_as_before() -> None:
    with recording("seed"):
        drawn = vars(curve)["secrets"], vars(_scalar)["secrets"]
    assert secrets not in drawn
    assert vars(curve)["secrets"] is vars(_scalar)["secrets"] is secrets
