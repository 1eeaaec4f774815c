"""What a close owes where a store was put back from a backup, or its peer proved that it lags.

Whose store is whole says what a channel owes its client. A restored client says nothing: a peer
that lies would pay just what it hears. It signs what pays it no less than its journal knows. A
restored LSP takes its client's number, where that leaves it what its own journal knows. Two
restored stores are compared first, and then both say the same.
"""

from typing import Final, Literal, TypeAlias

from cromford import told
from cromford.channel.terms import Party
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.journal.link import Link
from cromford.wire.messages import NO_BALANCE

Side: TypeAlias = Literal["lsp", "client"]
NOT_COMPARED: Final = (
    "both stores were restored from backups, and nothing is known that both of them say"
)
NO_NUMBER: Final = "it names no balance, and our store was restored from a backup"
# Without the number: whoever hears it would name that next.
TOO_LITTLE_FOR_US: Final = "its balance leaves us less than our restored store says is ours"


def can_close_though_ended(link: Link) -> bool:
    """Say whether a channel may be closed though it takes no updates: a store was restored."""
    return link.may_lack_state or link.peer_is_behind


def restored_sides(link: Link) -> tuple[Side, ...]:
    """Return whose stores of a channel may lack state, as an LSP knows: `lsp`, `client`."""
    sides: tuple[tuple[Side, bool], ...] = (
        ("lsp", link.may_lack_state),
        ("client", link.peer_is_behind),
    )
    return tuple(side for side, is_it in sides if is_it)


def known_due_msat(link: Link) -> int | None:
    """Return what we know a channel owes its client, in msat; None if that is the peer's to say."""
    if link.is_balance_unknown:
        return None
    if link.mark is None:
        return link.state.accepter_msat
    least_msat = least_close_msat(link)
    return least_msat if link.me is Party.ACCEPTER else _total_msat(link) - least_msat


def most_due_msat(link: Link) -> int:
    """Return the most that an LSP may come to pay a client for a channel, in msat."""
    due_msat = known_due_msat(link)
    return _total_msat(link) - least_close_msat(link) if due_msat is None else due_msat


def named_msat(link: Link) -> int:
    """Return the balance that a client names in a close, in msat."""
    due_msat = known_due_msat(link)
    return NO_BALANCE if due_msat is None else due_msat


def word_msat(link: Link, named_msat: int) -> int | None:
    """Return what a client's word means for an LSP, in msat; None if neither names a balance."""
    return known_due_msat(link) if named_msat == NO_BALANCE else named_msat


def problem_with_word(link: Link, balance_msat: int) -> str | None:
    """Return why an LSP does not pay a client this for a channel; None if it does.

    Args:
        link: The channel, as the LSP's store has it.
        balance_msat: What the client would be paid.
    """
    due_msat = known_due_msat(link)
    if due_msat is None:
        return None if balance_msat <= most_due_msat(link) else TOO_LITTLE_FOR_US
    if due_msat != balance_msat:
        return f"balance_msat: expected {told.msat(due_msat)}, received {told.msat(balance_msat)}"
    return None


def _total_msat(link: Link) -> int:
    return link.state.opener_msat + link.state.accepter_msat
