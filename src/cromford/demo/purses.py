"""Who can pay whom: a choice of payments that a seed repeats, and that stays payable.

A purse is the money that a client can send and receive through its channel. Payments are chosen
one after the other, so each is payable once those before it have arrived; to start them in this
order, each as soon as the purses allow it, never waits for ever, and what everybody has at the end
does not depend on which of them were on their way together.
"""

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from cromford.channel.terms import MAX_DUST_EXPOSURE_MSAT, MSAT_PER_SAT
from cromford.protocol.channels.forwarding import MILLION, forwarding_fee_msat

AMOUNT_MIN_MSAT: Final = 1 * MSAT_PER_SAT
AMOUNT_MAX_MSAT: Final = 1_500 * MSAT_PER_SAT
# At a high feerate all of these are dust. A channel takes only so much of that, and what has
# arrived may still be on one side's commitment: the other half is left to it.
IN_FLIGHT_MAX_MSAT: Final = MAX_DUST_EXPOSURE_MSAT // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the LSP asks for forwarding (BOLT 7)."""

    base_msat: int
    proportional_millionths: int

    def fee_msat(self, amount_msat: int) -> int:
        """Return the fee for an amount."""
        return forwarding_fee_msat(
            amount_msat,
            fee_base_msat=self.base_msat,
            fee_proportional_millionths=self.proportional_millionths,
        )

    def affordable_msat(self, purse_msat: int) -> int:
        """Return an amount that a purse pays for together with its fee; at most 0 for none."""
        return (purse_msat - self.base_msat) * MILLION // (MILLION + self.proportional_millionths)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPayment:
    """One client pays another; both by their seats."""

    payer: int
    payee: int
    amount_msat: int
    fee_msat: int

    @property
    def total_msat(self) -> int:
        """What leaves the payer's purse."""
        return self.amount_msat + self.fee_msat


@dataclass(slots=True, kw_only=True)
class DemoPurse:
    """One client's money, and what is on its way through its channel."""

    spendable_msat: int
    receivable_msat: int
    in_flight_msat: int = 0


class Purses:
    """Every client's purse, by its seat."""

    def __init__(self, purses: dict[int, DemoPurse]) -> None:
        self._purses = purses

    def can_begin(self, payment: PlannedPayment) -> bool:
        """Say whether a payment is possible now, with what else is on its way."""
        payer, payee = self._purses[payment.payer], self._purses[payment.payee]
        return (
            payer.spendable_msat >= payment.total_msat
            and payee.receivable_msat >= payment.amount_msat
            and payer.in_flight_msat + payment.total_msat <= IN_FLIGHT_MAX_MSAT
            and payee.in_flight_msat + payment.amount_msat <= IN_FLIGHT_MAX_MSAT
        )

    def begin(self, payment: PlannedPayment) -> None:
        """Take the money out of the payer's purse, and the room for it from the payee's."""
        payer, payee = self._purses[payment.payer], self._purses[payment.payee]
        payer.spendable_msat -= payment.total_msat
        payer.in_flight_msat += payment.total_msat
        payee.receivable_msat -= payment.amount_msat
        payee.in_flight_msat += payment.amount_msat

    def end(self, payment: PlannedPayment) -> None:
        """Put what arrived into the payee's purse; the payer has that much more room."""
        payer, payee = self._purses[payment.payer], self._purses[payment.payee]
        payer.receivable_msat += payment.total_msat
        payer.in_flight_msat -= payment.total_msat
        payee.spendable_msat += payment.amount_msat
        payee.in_flight_msat -= payment.amount_msat

    def plan(self, n_payments: int, price: Price, *, seed: int) -> list[PlannedPayment]:
        """Return payments to make from these purses, which stay as they are.

        Fewer than were asked for where fees leave too little to go on with.
        """
        return list(Purses(deepcopy(self._purses))._choose(n_payments, price, seed))  # noqa: SLF001 - its own copy

    def _choose(self, n_payments: int, price: Price, seed: int) -> Iterator[PlannedPayment]:
        dice = random.Random(seed)  # noqa: S311 - a choice that can be repeated, and no secret
        for _ in range(n_payments):
            largest_msat = self._largest_msat(price)
            takers = self._takers()
            payers = [seat for seat in largest_msat if takers - {seat}]
            if not payers:
                return
            payer = dice.choice(payers)
            payee = dice.choice(sorted(takers - {payer}))
            room_msat = self._purses[payee].receivable_msat
            amount_msat = dice.randint(
                AMOUNT_MIN_MSAT, min(AMOUNT_MAX_MSAT, largest_msat[payer], room_msat)
            )
            payment = PlannedPayment(
                payer=payer,
                payee=payee,
                amount_msat=amount_msat,
                fee_msat=price.fee_msat(amount_msat),
            )
            self.begin(payment)
            self.end(payment)
            yield payment

    def _largest_msat(self, price: Price) -> dict[int, int]:
        """Return what each client that can pay at all can pay."""
        amounts = {
            seat: price.affordable_msat(purse.spendable_msat)
            for seat, purse in self._purses.items()
        }
        return {seat: amount for seat, amount in amounts.items() if amount >= AMOUNT_MIN_MSAT}

    def _takers(self) -> set[int]:
        return {
            seat for seat, purse in self._purses.items() if purse.receivable_msat >= AMOUNT_MIN_MSAT
        }
