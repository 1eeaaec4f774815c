"""The closed sets of words in answers are those of the protocol's enumerations and stages."""

from dataclasses import fields
from typing import get_args

from cromford.answers.closes import ClosePhase
from cromford.answers.export import (
    ExportedBranchTerms,
    ExportedTerms,
    FeePolicyWord,
    NodeWord,
    OutputWord,
    VertexWord,
)
from cromford.answers.factory_words import DyingStepWord, LspPhase, MovingStatus, PeriodWord
from cromford.answers.fundings import ShapeWord
from cromford.factory.kinds import VertexKind
from cromford.factory.lifetime import Period
from cromford.factory.outputs import OutputKind
from cromford.factory.terms import BranchTerms, FactoryTerms, FeePolicy
from cromford.factory.vertices import NodeKind
from cromford.protocol.dying.outlook import MoveStatus
from cromford.protocol.journal.closing import Agreeing, Signing
from cromford.protocol.journal.lsp_attempt import Stage
from cromford.protocol.lobby.shapes import BY_NUMBER, OWN
from cromford.protocol.policy import DyingStep


def test_each_set_of_words_is_what_it_is_of() -> None:
    assert set(get_args(PeriodWord)) == {one.label for one in Period}
    assert set(get_args(FeePolicyWord)) == {one.label for one in FeePolicy}
    assert set(get_args(VertexWord)) == {one.label for one in VertexKind}
    assert set(get_args(NodeWord)) == {one.value for one in NodeKind}
    assert set(get_args(OutputWord)) == {one.value for one in OutputKind}
    assert set(get_args(LspPhase)) == {stage.label for stage in get_args(Stage)}
    assert set(get_args(ClosePhase)) == {Agreeing.label, Signing.label}
    assert set(get_args(MovingStatus)) == set(get_args(MoveStatus))
    assert set(get_args(DyingStepWord)) == {*(one.value for one in DyingStep), "none"}
    assert set(get_args(ShapeWord)) == {BY_NUMBER, OWN, *(one.label for one in VertexKind)}


def test_terms_are_exported_under_their_own_names() -> None:
    assert list(ExportedTerms.__annotations__) == [term.name for term in fields(FactoryTerms)]
    kept = [term.name for term in fields(BranchTerms)]
    assert list(ExportedBranchTerms.__annotations__) == kept
