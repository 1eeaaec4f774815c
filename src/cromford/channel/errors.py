"""What can go wrong in a channel, by whose mistake it is. Each names field, expected, received."""

from cromford import told


class InvalidChannelTerms(ValueError):
    """Terms that no channel can have, whoever proposes them."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(_sentence(field, expected, received))
        self.field = field
        self.expected = expected
        self.received = received


class UpdateRefused(ValueError):
    """What was asked of this side cannot be done now. Nothing was changed and nothing is sent."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(_sentence(field, expected, received))
        self.field = field
        self.expected = expected
        self.received = received


class PeerViolation(Exception):
    """The peer provably broke BOLT 2 or the agreed limits. The channel must not go on with it."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(_sentence(field, expected, received))
        self.field = field
        self.expected = expected
        self.received = received


class FallenBehind(Exception):
    """The peer proved that we revoked commitments which we do not remember.

    Our own commitment must never be broadcast: the peer can punish it (BOLT 2,
    `channel_reestablish`). `revoked` is the number of commitments we are known to have revoked.
    """

    def __init__(self, *, remembered: int, revoked: int) -> None:
        super().__init__(f"we remember {remembered} revocations, the peer proved {revoked}")
        self.remembered = remembered
        self.revoked = revoked


def _sentence(field: str, expected: object, received: object) -> str:
    return (
        f"{field}: expected {told.shown(field, expected)}, received {told.shown(field, received)}"
    )
