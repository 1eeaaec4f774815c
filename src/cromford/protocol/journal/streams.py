"""The streams of a journal, by name: each is one line of records, and folds to one value.

A client has one. An LSP has its house, its view of the chain, and one stream for each factory, so
that what happens in one factory is no work for the others.
"""

from typing import Final

CREATION: Final = "creation"  # Of the first record: whose journal it is.
CLIENT: Final = "client"
HOUSE: Final = "house"
CHAIN: Final = "chain"
_FACTORY: Final = "factory:"


def factory_stream(number: int) -> str:
    """Return the stream of a factory. Its number is a step of its keys' paths: no other has it."""
    return f"{_FACTORY}{number}"


def factory_number(stream: str) -> int | None:
    """Return the number of a factory by its stream; None if it is no factory's."""
    if not stream.startswith(_FACTORY):
        return None
    number = stream[len(_FACTORY) :]
    return int(number) if number.isdecimal() else None
