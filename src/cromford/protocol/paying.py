"""An LSP pays a client's invoice: its house says so once, and a factory of the client does it."""

from collections.abc import Sequence
from typing import Final

from cromford.protocol import addressing
from cromford.protocol import events as ev
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.depth import NOT_DEEP
from cromford.protocol.channels.payments import check_not_forgotten
from cromford.protocol.delivery import Round
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail

FACTORY_STOPPED: Final = "factory_stopped"
# Why a payment failed, for the operator.
STOPPED: Final = "the payee's factory was stopped by a bug"


def on_pay_requested(round_: Round, event: ev.PayRequested) -> None:
    """Pay a client's invoice out of our side of its channel, once for each payment hash.

    Raises:
        Rejected: If it cannot be paid now, or may have been paid in what a restored store lost.
    """
    house = round_.house
    known = house.state.payments.get(event.payment_hash)
    if known is not None and known.status != "failed":
        return
    check_not_forgotten(house.state.restored, event)
    house.check_risk()
    refusals: list[tuple[str, str]] = []
    has_stopped = False
    # The newest first: an older factory is on its way out.
    for turn in reversed(addressing.factories_of(round_, event.payee)):
        refusal = channels.pay_refusal(turn.state, event.payee)
        if refusal is not None:
            refusals.append(refusal)
            continue
        house.remember(_ordered(turn.stream, event))
        round_.deliver()
        withdraw_untaken(round_)
        refused = house.state.payments[event.payment_hash].refused
        if refused is None:
            return
        has_stopped = has_stopped or not round_.goes_on(turn.stream)
        refusals.append(("not_payable", refused))
    if has_stopped:
        return  # What is rejected is undone; that a bug was met is told, and stays.
    if any(not round_.goes_on(one.stream) for one in house.state.entries_of(event.payee)):
        refusals.append((FACTORY_STOPPED, STOPPED))
    raise _unpayable(refusals)


def withdraw_untaken(round_: Round) -> None:
    """Let payments fail that a factory did not take because a bug has stopped it.

    Nobody knows for how long, and taken once more, the letter might stop it once more. What it took
    is not withdrawn: its payee may be paid.
    """
    house = round_.house
    for stream, asked in tuple(house.state.post.asked_to_pay()):
        if not round_.goes_on(stream):
            withdrawn = lr.PaymentWithdrawn(payment_hash=asked.payment_hash, reason=STOPPED)
            house.remember(withdrawn)


def _ordered(stream: str, event: ev.PayRequested) -> lr.PaymentOrdered:
    asked = mail.PayAsked(
        payment_hash=event.payment_hash,
        payment_secret=event.payment_secret,
        payee=event.payee,
        amount_msat=event.amount_msat,
        description=event.description,
        min_final_cltv_expiry_delta=event.min_final_cltv_expiry_delta,
        text=event.text,
    )
    return lr.PaymentOrdered(to=stream, asked=asked, label=event.label)


def _unpayable(refusals: Sequence[tuple[str, str]]) -> Rejected:
    """Return the refusal that says most: of the factory that came nearest to paying."""
    for code in ("not_payable", FACTORY_STOPPED, "payee_offline", NOT_DEEP):
        for refusal in refusals:
            if refusal[0] == code:
                return Rejected(*refusal, retryable=True)
    return Rejected("payee_unknown", "the payee has no live channel with this LSP")
