"""What a line of the log says and its record does not: which factory, and whether that is live."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from cromford.protocol.journal.book import HtlcKey
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.failures import describe_failure
from cromford.protocol.journal.lsp_attempt import Funded
from cromford.protocol.journal.lsp_state import LspState

PENDING: Final = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEnd:
    """What became of a payment: its status, and why it failed if it did."""

    status: str
    reason: str = ""


class Lookup(Protocol):
    """A role's state, as far as lines of the log need it."""

    def factory_of(self, channel_id: bytes) -> bytes:
        """Return the factory of a channel; empty if it is not known any more."""

    def is_live(self, attempt_id: bytes) -> bool:
        """Say whether all that are to use a factory found its funding deep enough."""

    def pending(self) -> Iterable[bytes]:
        """Yield the hashes of our own payments that are on their way."""

    def payment(self, payment_hash: bytes) -> PaymentEnd:
        """Return what became of one of our own payments."""

    def forwards(self) -> Iterable[tuple[HtlcKey, bytes | None]]:
        """Yield the HTLCs that went on and have not ended, and why each failed if it did."""


def _end_of(status: str, failure: bytes | None, refused: str | None = None) -> PaymentEnd:
    if status != "failed":
        return PaymentEnd(status=status)
    return PaymentEnd(status=status, reason=refused or describe_failure(failure or b""))


class ClientLookup:
    """Looks into a client's state.

    Args:
        state: Returns the state of now.
    """

    def __init__(self, state: Callable[[], ClientState]) -> None:
        self._state = state

    def factory_of(self, channel_id: bytes) -> bytes:
        """Return the factory of a channel; empty if it is not known any more."""
        link = self._state().book.links.get(channel_id)
        return b"" if link is None else link.attempt_id

    def is_live(self, attempt_id: bytes) -> bool:
        """Say whether both sides found the funding deep enough."""
        attempt = self._state().attempts.get(attempt_id)
        return attempt is not None and attempt.is_ready_on_both_sides

    def pending(self) -> Iterable[bytes]:
        """Yield the hashes of the payments that are on their way."""
        for payment_hash, payment in self._state().book.payments.items():
            if payment.status == PENDING:
                yield payment_hash

    def payment(self, payment_hash: bytes) -> PaymentEnd:
        """Return what became of a payment."""
        payment = self._state().book.payments[payment_hash]
        if payment.status == "unknown":
            return PaymentEnd(status=payment.status, reason=payment.ended)
        return _end_of(payment.status, payment.failure)

    def forwards(self) -> Iterable[tuple[HtlcKey, bytes | None]]:
        """Yield nothing: a client forwards nothing."""
        return ()


class LspLookup:
    """Looks into an LSP's state; no factory is woken for it.

    Args:
        state: Returns the state of now.
    """

    def __init__(self, state: Callable[[], LspState]) -> None:
        self._state = state

    def factory_of(self, channel_id: bytes) -> bytes:
        """Return the factory of a channel; empty if that sleeps."""
        state = self._state()
        number = state.channels.get(channel_id)
        return b"" if number is None else state.house.entry_of(number).attempt_id

    def is_live(self, attempt_id: bytes) -> bool:
        """Say whether the LSP and every client found the funding deep enough."""
        state = self._state()
        entry = state.house.entries.get(attempt_id)
        if entry is None or entry.number not in state.factories:
            return False
        attempt = state.factory(entry.number).attempt
        funded = attempt.stage
        return (
            isinstance(funded, Funded)
            and funded.ready_sent
            and len(funded.ready_received) == attempt.terms.n_clients
        )

    def pending(self) -> Iterable[bytes]:
        """Yield the hashes of the operator's payments that are on their way."""
        for payment_hash, payment in self._state().house.payments.items():
            if payment.status == PENDING:
                yield payment_hash

    def payment(self, payment_hash: bytes) -> PaymentEnd:
        """Return what became of a payment that the operator ordered."""
        payment = self._state().house.payments[payment_hash]
        return _end_of(payment.status, payment.failure, payment.refused)

    def forwards(self) -> Iterable[tuple[HtlcKey, bytes | None]]:
        """Yield the HTLCs that went on and have not ended; a factory with one does not sleep."""
        for key, forward in self._state().book.forwards.items():
            yield key, forward.failure
