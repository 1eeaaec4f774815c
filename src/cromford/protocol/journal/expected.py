"""Payments that clients expect and announced, so that they are held longer than any other."""

from dataclasses import dataclass, field

from immutables import Map

from cromford.protocol.journal.lobby_records import PaymentExpected


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A payment that a client expects: how long it is held, and until when it is known."""

    hold_seconds: int
    until_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPayments:
    """What is announced now, by client and payment hash. A hash is its client's own."""

    of_clients: Map[bytes, Map[bytes, Announced]] = field(default_factory=Map)

    def of(self, node_id: bytes) -> Map[bytes, Announced]:
        """Return what a client expects, by payment hash."""
        return self.of_clients.get(node_id, Map())

    def hold_seconds(self, node_id: bytes, payment_hash: bytes) -> int:
        """Return how long a payment is held because its payee announced it; 0 if it did not."""
        found = self.of(node_id).get(payment_hash)
        return 0 if found is None else found.hold_seconds

    def with_payment(self, record: PaymentExpected) -> "ExpectedPayments":
        """Return it with one more."""
        announced = Announced(hold_seconds=record.hold_seconds, until_height=record.until_height)
        expected = self.of(record.node_id).set(record.payment_hash, announced)
        return ExpectedPayments(of_clients=self.of_clients.set(record.node_id, expected))

    def without_payment(self, node_id: bytes, payment_hash: bytes) -> "ExpectedPayments":
        """Return it without a payment that was paid; as it is, if that was not known any more."""
        expected = self.of(node_id)
        if payment_hash not in expected:
            return self
        left, of_clients = expected.delete(payment_hash), self.of_clients
        changed = of_clients.set(node_id, left) if left else of_clients.delete(node_id)
        return ExpectedPayments(of_clients=changed)

    def at_height(self, height: int) -> "ExpectedPayments":
        """Return what is not over at a height."""
        of_clients = self.of_clients
        for node_id, of_client in [*of_clients.items()]:
            expected = Map(
                {key: one for key, one in of_client.items() if one.until_height > height}
            )
            if not expected:
                of_clients = of_clients.delete(node_id)
            elif len(expected) < len(of_client):
                of_clients = of_clients.set(node_id, expected)
        return self if of_clients is self.of_clients else ExpectedPayments(of_clients=of_clients)
