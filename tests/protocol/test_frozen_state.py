"""A snapshot that was written once is read for ever: what its classes were then, they still hold.

A field is added with a default, a union grows, an enumeration gets a member: that is read. Whoever
changes the state otherwise writes a reader of the older shape first. See ADR 22.
"""

import json
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.frozen_state import CONFIGS, FROZEN_FILE, classes_in, described

from cromford.protocol.journal.client_state import ClientConfig, new_client
from cromford.protocol.journal.state_classes import (
    problem_with_class,
    problem_with_enum,
    shape_of,
)

FROZEN: Final[dict[str, Any]] = json.loads(FROZEN_FILE.read_text(encoding="utf-8"))
STREAMS: Final = pytest.mark.parametrize("stream", CONFIGS)


@STREAMS
def test_a_snapshot_that_was_written_once_can_be_read(stream: str) -> None:
    classes, enums = classes_in(stream)
    frozen = FROZEN[stream]
    problems = [
        problem_with_class(classes.get(name), name, fields)
        for name, fields in frozen["classes"].items()
    ]
    problems += [
        problem_with_enum(enums[name], members) for name, members in frozen["enums"].items()
    ]
    assert [problem for problem in problems if problem is not None] == []


@STREAMS
def test_what_a_state_is_made_of_is_what_the_file_says(stream: str) -> None:
    assert described()[stream] == FROZEN[stream], "python -m tests.protocol.frozen_state"


def test_a_client_that_counted_its_tries_of_advances_in_all_factories_at_once_is_read() -> None:
    known = classes_in("client")[0]["ClientState"]
    before = {**known.fields, "advance_heights": shape_of(tuple[int, ...])}
    assert problem_with_class(known, "ClientState", before) is None
    config = CONFIGS["client"][1]
    assert isinstance(config, ClientConfig)
    state = new_client(config)
    held = {name: getattr(state, name) for name in known.fields}
    assert known.reader_of(before)(**{**held, "advance_heights": (7,) * 16}) == state
    assert state.advance_heights == Map()
