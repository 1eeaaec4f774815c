"""What one daemon serves of the operations: handlers, with the types of what goes in and out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cromford.daemon.api.handlers import Handler, Params
from cromford.daemon.api.operations import OPERATIONS, Operation

Answers = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An operation as one role has it.

    Attributes:
        operation: Where it is, and who may ask for it.
        params: What it takes; None for nothing.
        answer: The type of its answer, as msgspec knows it.
    """

    operation: Operation
    params: type[msgspec.Struct] | None
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOperation:
    """An operation that a daemon serves.

    Attributes:
        described: What it is.
        handler: What answers it.
    """

    described: Described
    handler: Handler


def described(name: str, params: Params, answers: Answers) -> Described:
    """Return an operation as a role has it, from the role's tables."""
    return Described(
        operation=OPERATIONS[name],
        params=params.get(name),
        answer=answers.get(name, dict[str, Any]),
    )


def endpoints(
    methods: Mapping[str, Handler], *, params: Params, answers: Answers
) -> tuple[ServedOperation, ...]:
    """Return what a daemon serves, in the order of the operations.

    Args:
        methods: Its handlers, by the names of the operations.
        params: What they take, by name; whatever is missing takes nothing.
        answers: The types of what they answer, by name.
    """
    return tuple(
        ServedOperation(described=described(name, params, answers), handler=methods[name])
        for name in OPERATIONS
        if name in methods
    )
