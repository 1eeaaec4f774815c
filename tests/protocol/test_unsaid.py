"""What an older record or checkpoint does not say is nothing: no event, no number, no claim.

A field is added with a default, and an older journal is read as if it had said that. A default that
claims something would let years of journals say what never happened.
"""

import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from typing import Any, Final

import msgspec
import pytest
from immutables import Map
from tests.protocol.frozen_state import LSP

from cromford.changed import changed
from cromford.protocol import journal
from cromford.protocol.journal.lsp_state import new_lsp
from cromford.protocol.journal.restless import Restless

# Where nothing is not what it looks like, and why.
SAID: Final[dict[str, tuple[object, str]]] = {
    "AttemptAborted.tries_again": (True, "whatever hindered an older attempt, it was tried again"),
    "CeremonyEnded.tries_again": (True, "the same, in a letter"),
    "FactoryEntry.status": ("building", "an entry begins with its ceremony"),
    "House.is_stirred": (True, "at its start a run has looked at nobody"),
    "KnownChain.recorded_height": (-1, "there is a block at height 0"),
    "Link.archived_below": ((0, 0), "the first number of either party: none is archived"),
    "NextFunding.peer_stage": (-1, "0 says that the peer signed nothing"),
    "Quoted.height": (-1, "there is a block at height 0"),
    "Restless.height": (-1, "there is a block at height 0"),
    "RowSum.total": (bytes(32), "what no rows add up to"),
    "Scan.recorded_height": (-1, "there is a block at height 0"),
}


def classes() -> Iterator[type[Any]]:
    """Yield every class of records, letters and states."""
    for found in pkgutil.iter_modules(journal.__path__, f"{journal.__name__}."):
        module = import_module(found.name)
        for one in vars(module).values():
            if inspect.isclass(one) and one.__module__ == found.name:
                yield one


def defaults_of(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a class that may be left out, each with what it is then."""
    if is_dataclass(cls):
        for one in fields(cls):
            if one.default is not MISSING:
                yield one.name, one.default
            elif one.default_factory is not MISSING:
                yield one.name, one.default_factory()
    elif issubclass(cls, msgspec.Struct):
        for of in msgspec.structs.fields(cls):
            if not of.required:
                made = of.default_factory
                yield of.name, of.default if made is msgspec.NODEFAULT else made()
    else:
        yield from getattr(cls, "_field_defaults", {}).items()


def is_nothing(value: Any) -> bool:
    """Say whether a value claims nothing: it is empty, or made of what claims nothing."""
    if is_dataclass(value):
        name = type(value).__name__
        return all(
            f"{name}.{one.name}" in SAID or is_nothing(getattr(value, one.name))
            for one in fields(value)
        )
    return not value


def test_what_nobody_said_is_nothing_but_where_it_is_named_here() -> None:
    unsaid = {
        f"{cls.__name__}.{name}": value
        for cls in classes()
        for name, value in defaults_of(cls)
        if not inspect.isfunction(value) and not is_nothing(value)
    }
    assert unsaid == {name: value for name, (value, _) in SAID.items()}


def test_the_walk_finds_records_letters_and_states() -> None:
    names = {cls.__name__ for cls in classes()}
    assert {"BlockConnected", "Ordered", "House", "LspState", "RowSum"} <= names
    assert sum(1 for cls in classes() for _ in defaults_of(cls)) > 400


def functions() -> Iterator[tuple[str, Any]]:
    """Yield every function of the journal's modules, and of their classes, by its name."""
    for found in pkgutil.iter_modules(journal.__path__, f"{journal.__name__}."):
        module = import_module(found.name)
        for owner in (module, *(one for one in classes() if one.__module__ == found.name)):
            for one in vars(owner).values():
                is_here = inspect.isfunction(one) and one.__module__ == found.name
                if is_here and one.__name__ != "__init__":  # Those of dataclasses are fields.
                    yield f"{found.name}.{one.__qualname__}", one


def test_a_fold_that_is_told_no_time_knows_none() -> None:
    """In unix seconds, and 0 is what every reader takes for unknown."""
    told = {
        f"{name}({parameter.name})": parameter.default
        for name, function in functions()
        for parameter in inspect.signature(function).parameters.values()
        if type(parameter.default) is int or isinstance(parameter.default, bool)
    }
    assert {name for name in told if name.endswith("(at)")} >= {
        "cromford.protocol.journal.book_fold.apply_to_book(at)",
        "cromford.protocol.journal.client_state.apply(at)",
        "cromford.protocol.journal.entries.FactoryEntry.with_sale(at)",
    }
    assert {name: default for name, default in told.items() if default} == {}


@pytest.mark.parametrize(
    "other",
    [
        {"load": lambda _number: None},
        {"find": lambda _number: None},
        {"due": lambda _height: iter(())},
        {"outlasting": Map({1: 900})},
        {"channels": Map({b"c": 1})},
        {"holding": frozenset({1})},
        {"restless": Restless(height=7)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_how_an_lsp_finds_what_its_journal_says_is_no_part_of_its_state(
    other: dict[str, Any],
) -> None:
    state = new_lsp(LSP)
    assert changed(state, **other) == state
