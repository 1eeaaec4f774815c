"""Errors that say whose fault it is."""

from typing import Final

from cromford import told
from cromford.crypto.keys import sha256

# Both values of a refusal fit a message's reason, and a line of a log.
SHOWN_MAX: Final = 150  # Characters of one value; beyond, its beginning and its hash are shown.
BEGINNING: Final = 90


class Refusal(Exception):
    """A client does not sign: something differs from what it computed or allows.

    A client rarely knows that another client lied, because the LSP carried the message; so a
    refusal names the field, never a culprit.
    """

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(
            f"{field}: expected {_show(field, expected)}, received {_show(field, received)}"
        )
        self.field = field
        self.expected = expected
        self.received = received


class FaultyLsp(Exception):
    """The LSP provably deviated, or relayed what cannot be right."""


class Rejected(Exception):
    """A request from the daemon's own operator cannot be met. Nothing was changed."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


def _show(field: str, value: object) -> str:
    text = told.shown(field, value)
    if len(text) <= SHOWN_MAX:
        return text
    digest = sha256(text.encode()).hex()[:16]
    return f"{text[:BEGINNING]}… ({len(text)} characters, SHA-256 {digest})"
