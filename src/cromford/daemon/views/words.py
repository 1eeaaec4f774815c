"""What the protocol's own enumerations and stages are called in answers: closed sets of words.

The sets are written down in `answers`, which knows no room; a test compares them with the labels.
"""

from typing import cast

from cromford.answers.closes import ClosePhase
from cromford.answers.export import FeePolicyWord, VertexWord
from cromford.answers.factory_words import LspPhase, PeriodWord
from cromford.answers.fundings import ShapeWord
from cromford.factory.kinds import VertexKind
from cromford.factory.lifetime import Period
from cromford.factory.terms import FeePolicy
from cromford.protocol.journal.closing import Agreeing, Signing
from cromford.protocol.journal.lsp_attempt import Stage
from cromford.protocol.lobby.shapes import ShapeCost


def period_word(period: Period) -> PeriodWord:
    """Return what a period of a factory's life is called."""
    return cast("PeriodWord", period.label)


def phase_word(stage: Stage) -> LspPhase:
    """Return what a stage of a ceremony is called."""
    return cast("LspPhase", stage.label)


def close_word(stage: Agreeing | Signing) -> ClosePhase:
    """Return what a stage of a close is called."""
    return cast("ClosePhase", stage.label)


def policy_word(policy: FeePolicy) -> FeePolicyWord:
    """Return what a policy of fees is called."""
    return cast("FeePolicyWord", policy.label)


def shape_word(cost: ShapeCost) -> ShapeWord:
    """Return what a choice of shape is called."""
    return cast("ShapeWord", cost.choice)


def vertex_word(kind: VertexKind) -> VertexWord:
    """Return what a kind of vertex is called."""
    return cast("VertexWord", kind.label)
