"""A snapshot that was written once is read for ever: what its classes were then, they still hold.

A field is added with a default, a union grows, an enumeration gets a member: that is read. Whoever
changes the state otherwise writes a reader of the older shape first. See ADR 22.
"""

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.frozen_state import CONFIGS, FROZEN_FILE, LSP, classes_in, described

from cromford.protocol.journal.client_state import ClientConfig, new_client
from cromford.protocol.journal.factory import new_factory
from cromford.protocol.journal.quotes import SkimDue
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


def test_a_factory_that_knew_one_payee_of_each_payment_is_read() -> None:
    known = classes_in("factory")[0]["Factory"]
    before = {**known.fields, "skims": shape_of(Map[bytes, SkimDue])}
    assert problem_with_class(known, "Factory", before) is None
    state = new_factory(LSP, number=1)
    held = {name: getattr(state, name) for name in known.fields}
    dues = {b"a": SkimDue(client=1, price_msat=2), b"b": SkimDue(client=1, price_msat=3)}
    dues[b"c"] = SkimDue(client=4, price_msat=5)
    read = known.reader_of(before)(**{**held, "skims": Map(dues)})
    skims = Map({1: Map({b"a": 2, b"b": 3}), 4: Map({b"c": 5})})
    assert read == replace(state, skims=skims)
