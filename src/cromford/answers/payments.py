"""Answers about payments, invoices and forwards."""

from typing import NotRequired, TypedDict

from cromford.answers.units import Count, Height, HexId, Msat, NodeId, UnixTime


class PaymentAnswer(TypedDict):
    """What a node pays, or wants to be paid.

    `direction` is `out`, `in`, or `move` where it only moves its own money; `status` is `paid`,
    `failed`, `pending`, or `unknown` where nothing will tell any more; of an invoice `paid`,
    `expired` or `open`, and `planned` where paying is only tried out. `settled_at` is when it was
    paid, failed, ended or expired; a time is None where nobody wrote it down. Which of the other
    fields are there depends on the direction; in a list `number` says in which order they began.
    """

    number: NotRequired[Count]
    direction: str
    status: str
    created_at: NotRequired[UnixTime | None]
    settled_at: NotRequired[UnixTime | None]
    payment_hash: HexId
    payee: NotRequired[NodeId]
    amount_msat: Msat
    fee_msat: NotRequired[Msat]
    total_msat: NotRequired[Msat]
    received_msat: NotRequired[Msat]
    description: str
    label: str
    external_id: NotRequired[str]
    channel_id: HexId | None
    factory_id: HexId | None
    to_factory_id: NotRequired[HexId | None]
    preimage: NotRequired[HexId | None]
    failure: NotRequired[str | None]
    retryable: NotRequired[bool | None]
    obstacle: NotRequired[str | None]
    may_lose_msat: NotRequired[Msat | None]
    expiry_height: NotRequired[Height | None]
    expires_at: NotRequired[UnixTime]
    hold_seconds: NotRequired[Count]
    agreed_hold_seconds: NotRequired[Count | None]
    receivable_msat: NotRequired[Msat]
    htlc_expiry_height: NotRequired[Height]
    payee_expiry_height: NotRequired[Height]
    invoice: NotRequired[str]


class ForwardAnswer(TypedDict):
    """What goes through an LSP: `status` is `held`, `pending`, `paid`, `failed` or `unsettled`.

    `unsettled` was paid on, and not taken from its payer before that channel ended on chain.
    """

    status: str
    created_at: UnixTime | None
    settled_at: UnixTime | None
    payment_hash: HexId
    amount_msat: Msat
    fee_msat: Msat
    from_node_id: NodeId
    from_channel_id: HexId
    to_node_id: NodeId
    to_channel_id: HexId | None
    waits_for: str | None
    failure: str | None
    retryable: bool | None


class PaymentsAnswer(TypedDict):
    """A page, newest first; `next` is what the next page is asked with, None at the end."""

    payments: list[PaymentAnswer]
    next: str | None


class LspPaymentsAnswer(PaymentsAnswer):
    """The same of an LSP, with the newest of what went through it, and what that earned."""

    forwards: list[ForwardAnswer]
    n_forwards: Count
    earned_msat: Msat


class ForwardsAnswer(TypedDict):
    """A page of what came to its end; `in_flight` is what has not, and only on a first page."""

    forwards: list[ForwardAnswer]
    in_flight: list[ForwardAnswer]
    next: str | None


class FoundPayments(TypedDict):
    """What there is of one payment hash: of a move of our own money, both of its sides."""

    payments: list[PaymentAnswer]


class FoundForwards(TypedDict):
    """What went through an LSP of one payment hash."""

    forwards: list[ForwardAnswer]
