"""How much of a client's balance poisons cover, now and after a sale."""

from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol.journal.link import Link
from cromford.watch.coverage import coverage_sat, fullest_of


def coverage_of(link: Link, leaf: Leaf) -> int | None:
    """Return a client's coverage, in sat; None where no state of its leaf is superseded."""
    terms = link.setting.terms
    fullest = [fullest_of(terms)] * (len(leaf.states) - 1)
    return coverage_sat(leaf, link.client, terms=terms, fullest=fullest)


def covered_after(link: Link, leaf: Leaf, purchase: Purchase) -> int:
    """Return a client's coverage, in sat, after a sale to it or to a neighbour.

    Raises:
        AdvanceRefused: If that cannot be sold.
    """
    covered_sat = coverage_of(link, leaf.sold(purchase))
    if covered_sat is None:
        raise AssertionError("a sale supersedes a state")
    return covered_sat
