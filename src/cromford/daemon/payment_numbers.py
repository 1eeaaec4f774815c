"""In which order payments and invoices began: their events' numbers. The book keeps no order."""

from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r


class PaymentNumbers:
    """Remembers the number of the event that began each payment and each invoice."""

    def __init__(self) -> None:
        self._payments: dict[bytes, int] = {}
        self._invoices: dict[bytes, int] = {}

    def observe(self, number: int, record: r.AnyRecord) -> None:
        """Take one durable record, with its number. One that is paid anew counts anew."""
        match record:
            case cr.PaymentStarted(payment_hash=payment_hash):
                self._payments[payment_hash] = number
            case cr.InvoiceIssued(payment_hash=payment_hash):
                self._invoices[payment_hash] = number
            case _:
                return

    def of_payment(self, payment_hash: bytes) -> int:
        """Return the number of the event that began a payment.

        Raises:
            KeyError: If there was none.
        """
        return self._payments[payment_hash]

    def of_invoice(self, payment_hash: bytes) -> int:
        """Return the number of the event that issued an invoice.

        Raises:
            KeyError: If there was none.
        """
        return self._invoices[payment_hash]
