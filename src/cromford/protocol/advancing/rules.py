"""Why nothing can be sold in a client's leaf now."""

from cromford.protocol.facts import Facts
from cromford.protocol.journal.factory import Factory


def problem_with_sale(state: Factory, facts: Facts, client: int) -> str | None:
    """Return why nothing can be sold in a client's leaf now, in words; None if it can."""
    if not facts.may_risk:
        return facts.why_no_risk
    clients = state.attempt.leaf(client).clients
    failed = [link.client for link in state.book.ordered_links if link.failure is not None]
    return "a channel of the leaf failed" if set(failed) & set(clients) else None
