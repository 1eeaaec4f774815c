"""Who has what of a leaf, and what a sale of L-stock makes of it: pure arithmetic on the terms.

An advance replaces a leaf's state by one in which one client's channel holds more and the L-stock
less. What the kickoff pays stays the same to the satoshi, so its txid does, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of, keypath_tx_vsize
from cromford.factory.odometer import OdometerExhausted
from cromford.factory.terms import GeneralTerms


class AdvanceRefused(ValueError):
    """An advance that the terms, or what was signed before, do not allow."""

    def __init__(self, field: str, expected: str, received: object) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one state of a leaf pays, in sat: to its channels in placement order, to the L-stock."""

    capacities_sat: tuple[int, ...]
    lstock_sat: int

    def fee_sat(self, terms: GeneralTerms) -> int:
        """Return the fee of the state, by its own size: an L-stock of 0 has no output."""
        return terms.fee_sat(n_p2tr_outputs=len(self.capacities_sat) + bool(self.lstock_sat))

    def input_sat(self, terms: GeneralTerms) -> int:
        """Return what the state spends: the same for every version of it."""
        paid_sat = sum(self.capacities_sat) + self.lstock_sat
        return paid_sat + terms.anchor_sat + self.fee_sat(terms)

    def growths_sat(self, before: "Allocation") -> tuple[int, ...]:
        """Return what each channel has more than `before`, in placement order."""
        return tuple(
            after_sat - before_sat
            for before_sat, after_sat in zip(
                before.capacities_sat, self.capacities_sat, strict=True
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What one client buys of a leaf's L-stock.

    Attributes:
        buyer: Its participant index.
        amount_sat: What the L-stock loses; None for all of it.
    """

    buyer: int
    amount_sat: int | None


def next_state_index(terms: GeneralTerms, state_index: int) -> int:
    """Return the index that replaces a state's.

    Raises:
        AdvanceRefused: If it was the last.
    """
    try:
        return terms.odometer.next_index(state_index)
    except OdometerExhausted as error:
        raise AdvanceRefused("state_index", f"at most {state_index}", state_index + 1) from error


def channel_poison_fee_sat(terms: GeneralTerms) -> int:
    """Return the fee of a channel's poison: of one input and one output, without an anchor."""
    return _poison_fee_sat(terms, n_outputs=1)


def stock_poison_fee_sat(terms: GeneralTerms, *, n_clients: int) -> int:
    """Return the fee of an L-stock's poison: as if each client of the leaf had an output."""
    return _poison_fee_sat(terms, n_outputs=n_clients)


def _poison_fee_sat(terms: GeneralTerms, *, n_outputs: int) -> int:
    vsize = keypath_tx_vsize(n_p2tr_outputs=n_outputs, n_anchors=0)
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=terms.tree_feerate_sat_per_kw)


def lstock_sat_min(terms: GeneralTerms, *, n_clients: int) -> int:
    """Return the least that an L-stock may hold if it is not 0: its poison's fee, and an output.

    With less there is no poison of it, so nobody could be protected from this state, and no
    advance could replace it.
    """
    return P2TR_DUST_SAT + stock_poison_fee_sat(terms, n_clients=n_clients)


def sales_in_stock(allocation: Allocation, terms: GeneralTerms) -> int:
    """Return how many sales an L-stock can be split into at most, whatever indices are left."""
    least_sat = lstock_sat_min(terms, n_clients=len(allocation.capacities_sat))
    # Each takes a satoshi, and the last all that is left.
    return max(0, allocation.lstock_sat - least_sat + 1)


def after_sale(
    before: Allocation, purchase: Purchase, *, clients: Sequence[int], terms: GeneralTerms
) -> Allocation:
    """Return what the next state of a leaf pays.

    The buyer's channel grows by the amount. Where the L-stock is used up the state is an output
    smaller, and the fee that this saves goes to the buyer, too.

    Args:
        before: What the state pays that is replaced.
        purchase: Who buys how much.
        clients: The participant indices of the leaf's clients, in placement order.
        terms: The agreement.

    Raises:
        AdvanceRefused: If the buyer is not in the leaf, that much cannot be sold, or a channel is
            too small for a poison.
    """
    if purchase.buyer not in clients:
        raise AdvanceRefused("buyer", f"one of {list(clients)}", purchase.buyer)
    sold_sat = before.lstock_sat if purchase.amount_sat is None else purchase.amount_sat
    _check_sold(before, sold_sat, terms)
    _check_capacities(before, clients, terms)
    place = clients.index(purchase.buyer)
    capacities = list(before.capacities_sat)
    capacities[place] += sold_sat
    grown = Allocation(capacities_sat=tuple(capacities), lstock_sat=before.lstock_sat - sold_sat)
    capacities[place] += before.fee_sat(terms) - grown.fee_sat(terms)
    return Allocation(capacities_sat=tuple(capacities), lstock_sat=grown.lstock_sat)


def sale_between(
    before: Allocation, after: Allocation, *, clients: Sequence[int], terms: GeneralTerms
) -> Purchase:
    """Return the one sale that leads from one state to another, checked in full.

    Args:
        before: What the state pays that is replaced.
        after: What the next one is said to pay.
        clients: The participant indices of the leaf's clients, in placement order.
        terms: The agreement.

    Raises:
        AdvanceRefused: If no sale of one client leads there: a channel shrinks, none or several
            grow, or it is not to the satoshi what the L-stock loses and the state saves.
    """
    if len(after.capacities_sat) != len(clients):
        raise AdvanceRefused(
            "capacities_sat", f"{len(clients)} channels", f"{len(after.capacities_sat)}"
        )
    for client, growth_sat, before_sat in zip(
        clients, after.growths_sat(before), before.capacities_sat, strict=True
    ):
        if growth_sat < 0:
            raise AdvanceRefused(
                f"capacity_sat of client {client}",
                f"at least {before_sat}",
                before_sat + growth_sat,
            )
    buyers = [
        client
        for client, growth_sat in zip(clients, after.growths_sat(before), strict=True)
        if growth_sat
    ]
    if len(buyers) != 1:
        raise AdvanceRefused("capacities_sat", "one client's to grow", f"{buyers or 'none'}")
    purchase = Purchase(buyer=buyers[0], amount_sat=before.lstock_sat - after.lstock_sat)
    expected = after_sale(before, purchase, clients=clients, terms=terms)
    if after != expected:
        place = clients.index(purchase.buyer)
        raise AdvanceRefused(
            f"capacity_sat of client {purchase.buyer}",
            f"{expected.capacities_sat[place]}",
            after.capacities_sat[place],
        )
    return purchase


def _check_sold(before: Allocation, sold_sat: int, terms: GeneralTerms) -> None:
    least_sat = lstock_sat_min(terms, n_clients=len(before.capacities_sat))
    if before.lstock_sat < least_sat:
        raise AdvanceRefused("lstock_sat", f"at least {least_sat} to sell of", before.lstock_sat)
    left_sat = before.lstock_sat - sold_sat
    if sold_sat < 1 or (left_sat < least_sat and left_sat):
        part_sat = before.lstock_sat - least_sat
        part = f"1..{part_sat}, or " if part_sat else ""
        raise AdvanceRefused("amount_sat", f"{part}all {before.lstock_sat}", sold_sat)


def _check_capacities(before: Allocation, clients: Sequence[int], terms: GeneralTerms) -> None:
    """Refuse to supersede a channel output that no relayed transaction could take to its client."""
    least_sat = P2TR_DUST_SAT + channel_poison_fee_sat(terms)
    for client, capacity_sat in zip(clients, before.capacities_sat, strict=True):
        if capacity_sat < least_sat:
            raise AdvanceRefused(
                f"capacity_sat of client {client}", f"at least {least_sat}", capacity_sat
            )
