"""What a full run has to reach, so that a world which stopped reaching something is noticed.

Every message, record, letter and deadline that the program knows, but for those named here; and of
outcomes and cuts those that are named.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from cromford import effects as fx
from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.records import AnyRecord
from cromford.wire.messages import MESSAGE_TYPES

FULL_SEEDS: Final = 500

# Before anybody looks, and true of one run: these are in no journal.
_UNSEEN: Final = (
    "record Created",
    "record ClientJoined",
    "record ClientLeft",
    "record QuoteCounted",
    "record QuoteGiven",
)
# No factory of these worlds is stopped by a bug.
_UNSTOPPED: Final = ("record ForwardWithdrawn", "mail Withdrawn")
# No operator of these worlds asks for it.
_UNASKED: Final = (
    "record BanLifted",
    "record BanSet",
    "record LadderWanted",
    "mail FundingGivenUp",
    "message Leave",
    "record ExitPaused",
    "record ExitResumed",
    "record FundingAbandoned",
    "record FundingBumped",
    "record PriceSet",
    "record SpendingAbandoned",
    "record SpendingOvertaken",
    "record StaleAllowed",
    "record WishWithdrawn",
)
# It takes several things at once that a seed seldom mixes; other tests are about each.
_SELDOM: Final = (
    "deadline AdvanceDeadline",
    "deadline CloseDeadline",
    "deadline NonceDeadline",
    "deadline RejoinDeadline",
    "mail FactoryDied",
    "mail ForwardRefused",
    "message AdvanceAbort",
    "message MarkRevealed",
    "message Refused",
    "record AddsTakenBack",
    "record AdvanceDeclined",
    "record AdvanceResumed",
    "record AdvanceSessionEnded",
    "record BreachFound",
    "record CloseWanted",
    "record ForwardDeclined",
    "record FundingDied",
    "record HtlcRefused",
    "record JointSweepParted",
    "record KeysLost",
    "record MarksCompared",
    "record MoveChosen",
    "record MoveHindered",
    "record NextFundingVoid",
    "record NonceAwaited",
    "record OutgoingEnded",
    "record PeerLostState",
    "record SpendingWasSigned",
    "record WaitGivenUp",
)
MAY_BE_MISSED: Final = frozenset((*_UNSEEN, *_UNSTOPPED, *_UNASKED, *_SELDOM))

# The last word of a process that was cut off there, somewhere in a run.
CUTS: Final = frozenset(
    {
        "BlockConnected",
        "ChannelReestablished",
        "CommitmentFinished",
        "CommitmentIntended",
        "JoinSent",
        "MailTaken",
        "RevocationReceived",
        "SigningIntended",
    }
)
OUTCOMES: Final = frozenset(
    {
        "AttemptAborted: client # disconnected",
        "ChannelFailed: leaving by an exit",
        "ChannelFailed: the factory, or this part of it, was closed together",
        "ChannelFailed: the peer's store was restored from a backup: the channel can",
        "ExitStarted: the operator's wish",
        "HtlcHeld: the payee is away",
        "PurchaseEnded: ",
    }
)


def known() -> Iterator[str]:
    """Yield everything that there is to reach, by name."""
    yield from (f"message {one.__name__}" for one in MESSAGE_TYPES)
    yield from (f"record {name}" for name in _names(AnyRecord))
    yield from (f"mail {name}" for name in _names(AnyMail))
    yield from (f"deadline {name}" for name in _names(fx.Deadline))


def never_reached(counts: Mapping[str, int]) -> list[str]:
    """Return what has to be reached and was not."""
    has_to = {*known()} - MAY_BE_MISSED
    has_to |= {f"cut {name}" for name in CUTS} | {f"outcome {name}" for name in OUTCOMES}
    return sorted(has_to - counts.keys())


def unreached(counts: Mapping[str, int]) -> list[str]:
    """Return what is known and was not reached, whether or not it has to be."""
    return sorted({*known()} - counts.keys())


def _names(union: Any) -> Iterator[str]:
    for one in get_args(union):
        yield one.__name__
