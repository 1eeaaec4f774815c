"""The API's methods that build factories, and replace their fundings by higher candidates."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.fundings import BuildAnswer, ReplacedFunding, ShapeChoice
from cromford.bitcoin.fees import sat_per_vb
from cromford.daemon.api.called_builds import called_before
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.api.payment_limits import EXTERNAL_ID_SIZE_MAX
from cromford.daemon.api.payments import check_words
from cromford.daemon.api.wallet import given_feerate
from cromford.daemon.event_log import EventLog
from cromford.daemon.remedies import refusal
from cromford.daemon.views import lsp as views
from cromford.daemon.views.ladder import built_rungs, show_ladder
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.lobby import replacing
from cromford.protocol.lobby.build import plan_build
from cromford.protocol.lobby.ladder import JOIN_AGAIN
from cromford.protocol.lobby.shapes import shape_costs
from cromford.protocol.opening.funding import is_too_late, published_ladder, why_too_late


class FundingLsp(Protocol):
    """What an LSP's daemon offers these methods."""

    events: EventLog

    @property
    def state(self) -> LspState:
        """The LSP's state now."""

    @property
    def facts(self) -> Facts:
        """What is true now."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""

    def foresee(self, event: ev.Event) -> object:
        """Check an operator's request, and change nothing."""

    def factory_named(self, wanted: str) -> Factory:
        """Return a factory by its id, or the beginning of it."""


class _BuildParams(msgspec.Struct, forbid_unknown_fields=True):
    min_clients: int | None = None
    max_clients: int | None = None
    dry_run: bool = False
    funding_feerates_sat_per_vb: list[str] = []  # decimal numbers; empty: the daemon's one
    external_id: str = ""  # by one, one factory is built


class _ReplaceFactoryParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    candidate: int | None = None  # its place, the first being 0; None, to look: the lowest that may
    dry_run: bool = False


PARAMS: Final[Params] = {"build": _BuildParams, "factory_replace": _ReplaceFactoryParams}


class LspFundings:
    """The methods `build` and `factory_replace`."""

    def __init__(self, owner: FundingLsp) -> None:
        self._owner = owner

    def methods(self) -> Mapping[str, Handler]:
        """Return the methods by name."""
        return {"build": self._build, "factory_replace": self._factory_replace}

    async def _build(self, params: dict[str, Any]) -> BuildAnswer:
        """Build with those who wait; who has too few keys for the ladder is asked for more."""
        wanted, owner = read_params(params, _BuildParams), self._owner
        policy = owner.state.config.policy
        feerates = _feerates(wanted.funding_feerates_sat_per_vb)
        check_words("external_id", wanted.external_id, size_max=EXTERNAL_ID_SIZE_MAX)
        called = called_before(
            owner.state.house,
            wanted.external_id,
            min_clients=wanted.min_clients,
            max_clients=wanted.max_clients,
            feerates_sat_per_kw=feerates,
        )
        if called is not None:
            return self._built_before(owner.factory_named(called.attempt_id.hex()))
        min_clients = policy.min_clients if wanted.min_clients is None else wanted.min_clients
        max_clients = policy.max_clients if wanted.max_clients is None else wanted.max_clients
        try:
            plan = plan_build(
                owner.state.house,
                min_clients=min_clients,
                max_clients=max_clients,
                fees=owner.facts.fees,
                feerates_sat_per_kw=feerates,
                needs_keys=not wanted.dry_run,
            )
        except Rejected as rejected:
            if rejected.code == JOIN_AGAIN:
                owner.request(ev.LadderRequested(n_candidates=len(feerates)))
            raise refusal(rejected) from rejected
        # What becomes of the build is told by the events that follow.
        cursor = owner.events.cursor_of(owner.events.n_seen)
        if not wanted.dry_run:
            owner.request(
                ev.BuildRequested(
                    min_clients=min_clients,
                    max_clients=max_clients,
                    feerates_sat_per_kw=feerates,
                    external_id=wanted.external_id,
                )
            )
        return {
            "started": not wanted.dry_run,
            "cursor": cursor,
            **views.show_plan(plan),
            **show_ladder(plan.terms, plan.ladder.rungs, pool_size=policy.pool_size),
            "shapes": self._shapes(len(plan.placed)),
        }

    def _built_before(self, factory: Factory) -> BuildAnswer:
        terms, events = factory.attempt.terms, self._owner.events
        pool_size = self._owner.state.config.policy.pool_size
        return {
            "started": True,
            "cursor": events.cursor_of(events.n_seen),
            **views.show_built(factory),
            **show_ladder(terms, built_rungs(factory), pool_size=pool_size),
            "shapes": self._shapes(terms.n_clients),
        }

    def _shapes(self, n_clients: int) -> list[ShapeChoice]:
        costs = shape_costs(self._owner.state.config.policy, n_clients)
        return [views.show_shape_cost(cost) for cost in costs]

    async def _factory_replace(self, params: dict[str, Any]) -> ReplacedFunding:
        """Publish a higher candidate of a funding without a block; once, by its place."""
        wanted, owner = read_params(params, _ReplaceFactoryParams), self._owner
        if wanted.candidate is None and not wanted.dry_run:
            raise InvalidParam("candidate", "expected its place, as a dry run tells it")
        factory = owner.factory_named(wanted.factory_id)
        attempt_id, fundings = factory.attempt.attempt_id, published_ladder(factory)
        if fundings and is_too_late(factory):
            raise ApiFailure(
                "factory_too_late",
                why_too_late(factory),
                remediation="Give it up with `lsp factory abandon`: its coins are free then.",
            )
        asked = ev.FundingReplaceRequested(attempt_id=attempt_id, rung=wanted.candidate)
        owner.foresee(asked)
        plan = replacing.planned(
            owner.state.house, attempt_id, fundings, rung=wanted.candidate, fees=owner.facts.fees
        )
        if not wanted.dry_run:
            owner.request(asked)
        return {
            "replaced": plan.is_made or not wanted.dry_run,
            "factory_id": attempt_id.hex(),
            "candidate": plan.rung,
            "funding_txid": str(plan.tx.txid),
            "fee_sat": plan.fee_sat,
            "feerate_sat_per_vb": sat_per_vb(plan.feerate_sat_per_kw),
            "least_fee_sat": plan.least_sat,
            "replaces": plan.replaces,
            "child_fee_sat": plan.child_fee_sat,
        }


def _feerates(given: list[str]) -> tuple[int, ...]:
    """Return the feerates of a ladder in sat per 1000 weight units.

    Raises:
        InvalidParam: If one is no feerate.
    """
    return tuple(given_feerate(one, "funding_feerates_sat_per_vb") for one in given)
