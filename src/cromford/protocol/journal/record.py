"""What every entry of a journal is: a frozen value with a name of its own."""

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The base of all records."""
