"""What a cell came to, for people: who ends with what, and how it came about."""

from collections.abc import Iterator, Sequence

from tests.matrix.accounts import Account
from tests.matrix.play import Outcome


def heading(outcome: Outcome) -> str:
    """Return a cell's name and its verdict."""
    case = outcome.case
    verdict = "; ".join(outcome.losses) or "nobody honest lost more than fees, no cheater won"
    return (
        f"{case.scenario} | {case.n_clients} clients | {case.market} feerates | seed {case.seed}\n"
        f"  {verdict}"
    )


def detailed(outcome: Outcome) -> Iterator[str]:
    """Yield the lines of a cell: what confirmed, and every output of everybody."""
    yield heading(outcome)
    tried = f", {outcome.n_refused} attempts refused by consensus" if outcome.n_refused else ""
    yield f"  cheaters: {', '.join(outcome.cheaters)}; {outcome.blocks} blocks{tried}"
    for one in outcome.story:
        yield f"    block {one.height}: {one.name} ({one.txid}), {one.fee_sat} sat by {one.payer}"
    for account in outcome.accounts.values():
        yield from _account(outcome, account)
    for line in outcome.undecided:
        yield f"  nobody's alone: {line}"


def _account(outcome: Outcome, account: Account) -> Iterator[str]:
    role = "cheater" if account.name in outcome.cheaters else "honest"
    yield (
        f"  {account.name}, {role}: owned {account.owned_sat}, has {account.held_sat}, "
        f"fees {account.fees_sat}, anchors {account.anchors_sat}, "
        f"more or less {account.gain_sat:+d} sat"
    )
    untouched = [one for one in account.holdings if one.height <= outcome.start_height]
    for holding in sorted(account.holdings, key=lambda one: (one.height, one.outpoint)):
        if holding not in untouched:
            yield (
                f"    {holding.kind:<14} {holding.outpoint} {holding.script.hex()} "
                f"{holding.amount_sat} sat in block {holding.height}"
            )
    if untouched:
        sat = sum(holding.amount_sat for holding in untouched)
        yield (
            f"    and {len(untouched)} coins, {sat} sat, not touched since block "
            f"{outcome.start_height}"
        )


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a line for each cell: the worst that an honest party, and the best that a cheater."""
    width = max((len(outcome.case.scenario) for outcome in outcomes), default=0)
    yield (
        f"{'scenario':<{width}}  clients  feerates  honest, worst  its fees  cheaters, all  verdict"
    )
    for outcome in outcomes:
        case, accounts = outcome.case, outcome.accounts
        honest = [one for one in accounts.values() if one.name not in outcome.cheaters]
        worst_sat = min(one.gain_sat for one in honest)
        fees_sat = max(one.fees_sat + one.anchors_sat for one in honest)
        cheaters_sat = sum(accounts[name].gain_sat for name in outcome.cheaters)
        verdict = "LOST" if outcome.losses else "held"
        yield (
            f"{case.scenario:<{width}}  {case.n_clients:>7}  {case.market:<8}  {worst_sat:>+13}  "
            f"{fees_sat:>8}  {cheaters_sat:>+13}  {verdict}"
        )
