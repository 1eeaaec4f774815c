"""A reader over bytes that cannot run past their end."""

from dataclasses import dataclass


class MalformedBytes(ValueError):
    """The bytes are not an encoding of what was expected. The caller decides whose fault it is."""


@dataclass(slots=True)
class Reader:
    """Read a byte string from the front, once."""

    data: bytes
    position: int = 0

    def take(self, length_bytes: int) -> bytes:
        """Return the next `length_bytes` bytes.

        Raises:
            MalformedBytes: If fewer are left.
        """
        end = self.position + length_bytes
        if end > len(self.data):
            raise MalformedBytes(
                f"expected {length_bytes} bytes at offset {self.position}, "
                f"received {len(self.data) - self.position}"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def byte(self) -> int:
        """Return the next byte.

        Raises:
            MalformedBytes: If there is none.
        """
        position = self.position
        if position >= len(self.data):
            raise MalformedBytes(f"expected 1 bytes at offset {position}, received 0")
        self.position = position + 1
        return self.data[position]

    def uint_le(self, length_bytes: int) -> int:
        """Return the next little-endian unsigned integer (Bitcoin's order)."""
        return int.from_bytes(self.take(length_bytes), "little")

    def uint_be(self, length_bytes: int) -> int:
        """Return the next big-endian unsigned integer (the BOLTs' order)."""
        return int.from_bytes(self.take(length_bytes), "big")

    @property
    def n_left(self) -> int:
        """The bytes not yet read."""
        return len(self.data) - self.position

    def check_end(self) -> None:
        """Refuse trailing bytes.

        Raises:
            MalformedBytes: If bytes are left.
        """
        if self.n_left:
            raise MalformedBytes(f"{self.n_left} unexpected bytes after the end")
