"""What each peer may ask of an LSP: work, in milliseconds, and payments that fail.

Work is counted by what a kind of message costs, not by a clock: whoever speaks while the LSP is
busy is not charged for that.
"""

from collections.abc import Callable
from typing import Final

from cromford.allowance import Allowance, Allowances, Rate
from cromford.channel.terms import HTLCS_MAX
from cromford.recent import Recent
from cromford.wire import messages as m

# Milliseconds of work, the journal's share included, rounded up.
WORK_USUAL_MS: Final = 0.5
WORK_MS: Final[dict[type[m.Message], float]] = {
    m.Join: 4.0,  # 130 points are checked, and nine kilobytes kept.
    m.SignBelow: 4.0,
    m.SignRoot: 2.0,
    m.Acknowledge: 2.0,
    m.ChannelReady: 2.0,
    m.ChannelReestablish: 3.0,
    m.CommitmentSigned: 3.0,
    m.RevokeAndAck: 2.0,
    m.QuoteRequest: 2.0,
    m.Buy: 4.0,  # Its quote is computed again, and it may be refused without end.
    m.AdvanceAgree: 4.0,
    m.AdvanceSign: 4.0,
    m.KeyHandover: 4.0,
    m.StoreMarked: 4.0,  # A commitment is built, and a proof made.
    m.MarkRevealed: 6.0,
}
WORK_PER_BYTE_MS: Final = 1 / 10_000
TYPE_SIZE: Final = 2

# Whoever has a channel may use a core for a few seconds, or half of one for ever: about fifty
# payments a second. Fair turns do the rest.
OWNER_WORK: Final = Rate(burst=4_000, per_second=500)
# A stranger joins, leaves, joins again: more is not its business.
STRANGER_WORK: Final = Rate(burst=100, per_second=10)
# All strangers together leave most of a core to those with channels. The burst is what the largest
# usual factory's clients need to join at once.
STRANGERS_WORK: Final = Rate(burst=1_000, per_second=100)
# A payment that fails is written down by everybody it touched, and nobody pays for that. Fifty at
# once are a shop with a bad day; then one every ten seconds, 34 MB of journal a day. Only what may
# fail waits: whoever has used it up still answers what others pay to it, and gives and takes
# revocations, or its channel would hang, and others' payments with it.
FAILURES: Final = Rate(burst=50, per_second=1 / 10)
# Behind the payment waits what its payer owes others: what they pay to it, and its word in a
# ceremony. So it waits for less than any deadline, and for longer than one failure costs. All that
# it offers before its next revocation waits together: only what was revoked for can fail.
FAILURE_WAIT_SECONDS_MAX: Final = 15.0
# Of failures. Whoever is further behind waits for each payment by itself, or it would let a full
# channel fail every 15 seconds for ever, and get ever further behind.
FAILURES_BEHIND_MAX: Final = 2 * HTLCS_MAX
# One that arrives has paid its fee for the room it takes, and for that of a failure before it.
ARRIVED_COST: Final = -1
OWNERS_REMEMBERED: Final = 65_536  # Each had a channel: the LSP's own coins limit them before.
STRANGERS_REMEMBERED: Final = 4_096

_ADD_TYPE: Final = m.MESSAGE_TYPES[m.UpdateAddHtlc]
_REVOCATION_TYPE: Final = m.MESSAGE_TYPES[m.RevokeAndAck]
_MS_BY_TYPE: Final = {m.MESSAGE_TYPES[kind]: cost for kind, cost in WORK_MS.items()}


def work_ms(data: bytes) -> float:
    """Return what a message costs its receiver, by its type and its size."""
    return _MS_BY_TYPE.get(_type_of(data), WORK_USUAL_MS) + len(data) * WORK_PER_BYTE_MS


def _type_of(data: bytes) -> int:
    return int.from_bytes(data[:TYPE_SIZE], "big")


class Budgets:
    """What is left to each peer; it outlives the peer's connection.

    Args:
        is_owner: Says whether a peer has a channel, or is about to get one.
    """

    def __init__(self, is_owner: Callable[[bytes], bool]) -> None:
        self.is_owner = is_owner
        self._owners = Allowances(OWNER_WORK, users_max=OWNERS_REMEMBERED)
        self._strangers = Allowances(STRANGER_WORK, users_max=STRANGERS_REMEMBERED)
        self._all_strangers: Allowance | None = None
        self._failures = Allowances(FAILURES, users_max=OWNERS_REMEMBERED)
        # How long what a peer offers has waited since it revoked.
        self._waited = Recent[bytes, float](OWNERS_REMEMBERED)

    def wait_seconds(
        self, node_id: bytes, data: bytes, *, now: float, since: float | None = None
    ) -> float:
        """Return how long a message of a peer has to wait for what the peer has used up.

        Args:
            node_id: The peer's.
            data: The message.
            now: What time it is.
            since: Since when it waits; None for now.
        """
        is_owner = self.is_owner(node_id)
        due = [one.wait_seconds(now) for one in self._work_of(node_id, now, is_owner=is_owner)]
        if is_owner and _type_of(data) == _ADD_TYPE:
            behind_seconds = self._failures.of(node_id, now=now).wait_seconds(now)
            waited = 0.0 if since is None else now - since
            if behind_seconds * FAILURES.per_second <= FAILURES_BEHIND_MAX:
                waited += self._waited.get(node_id) or 0.0
            due.append(min(behind_seconds, max(FAILURE_WAIT_SECONDS_MAX - waited, 0.0)))
        return max(due)

    def charge(
        self, node_id: bytes, data: bytes, *, now: float, since: float | None = None
    ) -> None:
        """Count a message that a peer sent.

        Args:
            node_id: The peer's.
            data: The message.
            now: What time it is.
            since: Since when it waited; None if it did not.
        """
        cost_ms, kind = work_ms(data), _type_of(data)
        is_owner = self.is_owner(node_id)
        for one in self._work_of(node_id, now, is_owner=is_owner):
            one.charge(cost_ms, now=now)
        if is_owner and kind == _ADD_TYPE and since is not None and now > since:
            self._waited.note(node_id, (self._waited.get(node_id) or 0.0) + now - since)
        elif kind == _REVOCATION_TYPE and node_id in self._waited:
            self._waited.note(node_id, 0.0)

    def answered(self, node_id: bytes, message: m.Message, *, now: float) -> None:
        """Count what becomes of a payment that a peer offered."""
        if isinstance(message, m.UpdateFailHtlc):
            self._failures.of(node_id, now=now).charge(1, now=now)
        elif isinstance(message, m.UpdateFulfillHtlc):
            self._failures.of(node_id, now=now).charge(ARRIVED_COST, now=now)

    def _work_of(self, node_id: bytes, now: float, *, is_owner: bool) -> tuple[Allowance, ...]:
        if is_owner:
            return (self._owners.of(node_id, now=now),)
        if self._all_strangers is None:
            self._all_strangers = Allowance(STRANGERS_WORK, now=now)
        return (self._strangers.of(node_id, now=now), self._all_strangers)
