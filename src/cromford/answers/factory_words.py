"""The words for where a factory stands: a closed set each."""

from typing import Literal, TypeAlias

LspFactoryStatus: TypeAlias = Literal[
    "building",
    "funding",
    "live",
    "closing",
    "closed",
    "expired",
    "on_chain",
    "swept",
    "aborted",
    "abandoned",
    "dead",
    "displaced",
]
ClientFactoryStatus: TypeAlias = Literal[
    "building",
    "waiting_for_funding",
    "confirming",
    "live",
    "exiting",
    "on_chain",
    "closing",
    "closed",
    "moved_out",
    "expired",
    "swept",
    "aborted",
    "given_up",
    "dead",
    "displaced",
]
OvertakenStatus: TypeAlias = Literal["dead", "displaced"]
LspPhase: TypeAlias = Literal[
    "signing_below", "signing_root", "acknowledging", "funding", "aborted"
]
ClientStage: TypeAlias = Literal[
    "received", "checked", "below_sent", "holds_exit", "root_sent", "complete"
]
PeriodWord: TypeAlias = Literal["waiting", "active", "dying", "late", "expired"]
DyingStepWord: TypeAlias = Literal["move", "close", "sweep", "none"]
MovingStatus: TypeAlias = Literal["moved", "paying", "waiting", "staying", "over"]
CandidateStatus: TypeAlias = Literal["signed", "published", "confirmed", "overtaken", "dead"]
