"""JSON and MessagePack of whoever wrote it: a value of the expected type, or one error."""

from typing import Protocol, TypeVar

from cromford.codec.reader import MalformedBytes

T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """A decoder of msgspec, for one type."""

    def decode(self, data: bytes, /) -> T_co:
        """Return the value of these bytes."""


def decoded(decoder: Decoder[T_co], data: bytes) -> T_co:
    """Return the value of bytes.

    Besides its own error msgspec raises Python's: of text that is no UTF-8, and of what is nested
    too deeply, even where that is in a field that nobody knows.

    Raises:
        MalformedBytes: If they have none of the decoder's type.
    """
    try:
        return decoder.decode(data)
    except ValueError as error:
        raise MalformedBytes(str(error)) from error
    except RecursionError as error:
        raise MalformedBytes("nested too deeply") from error
