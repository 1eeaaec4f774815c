"""The kept inputs of every reader: each gives a value or the reader's one error, and no other.

`make fuzz` goes on from them. What was a finding once is among them.
"""

import logging
import random
from collections.abc import Iterator

import pytest

from tests.fuzz.bounds import check_memory, large_inputs
from tests.fuzz.corpus import FOLDER, KEPT_SIZE_MAX, kept_inputs
from tests.fuzz.target import is_read
from tests.fuzz.targets import TARGETS
from tests.simulation.seeds import seeds

N_CHANGED = 8  # Inputs of a reader that is quick; a slow one has a few.
N_CHANGED_SLOWLY = 2
SIZE = 256
CHANGES_MAX = 4


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing of what is refused."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_a_value_or_the_one_error(name: str) -> None:
    answers = [is_read(TARGETS[name], data) for data in kept_inputs(name)]
    assert any(answers), "one of them at least is a value"
    assert not all(answers) or not TARGETS[name].errors, "and another is refused"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("start", seeds(1))
def test_changed_inputs_are_values_or_the_one_error(name: str, start: int) -> None:
    rng = random.Random(f"{start} {name}")
    kept = kept_inputs(name)
    for _ in range(N_CHANGED_SLOWLY if TARGETS[name].is_slow else N_CHANGED):
        data = bytearray(rng.choice(kept))
        for _ in range(rng.randint(1, CHANGES_MAX)):
            first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            part = rng.choice([rng.randbytes(1), rng.choice(kept)[first:last], data[first:last]])
            data[first : min(last, first + len(part))] = part
        is_read(TARGETS[name], bytes(data))


@pytest.mark.parametrize("name", [name for name in TARGETS if not TARGETS[name].is_slow])
def test_what_an_input_only_claims_to_be_takes_no_memory(name: str) -> None:
    for shorter, _ in large_inputs(kept_inputs(name), SIZE):
        check_memory(TARGETS[name], shorter)


def test_every_kept_file_is_a_readers_and_small() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(TARGETS)
    assert all(path.stat().st_size <= 2 * KEPT_SIZE_MAX for path in FOLDER.iterdir())
