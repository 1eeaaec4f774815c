"""What an LSP's operator looks at: its factories as pictures, and plans of others."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from cromford.answers.plan import PlanAnswer
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.daemon.api.failures import (
    BAD_REQUEST,
    EXIT_USAGE,
    TOO_MANY_REQUESTS,
    ApiFailure,
    InvalidParam,
)
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.api.pictures import Pictures
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.picture.factories import factories_picture
from cromford.picture.factory import factory_picture
from cromford.picture.plot import cost_plot
from cromford.planning.idea import (
    ASKED_AS,
    EXIT_DELAY_BLOCKS_MAX,
    MILLIONTHS_PER_PERCENT,
    YEAR_BLOCKS,
    Idea,
    InvalidPlan,
)
from cromford.planning.plan import PlanDocument, plan_factory

LEVELS_MAX: Final = 16  # Above the leaves, of two children each, is more than any factory has.
NUMBER_LENGTH_MAX: Final = 32
_KINDS: Final = {kind.label: kind for kind in VertexKind}
_DEFAULT: Final = Idea()
_Clients = Annotated[int, msgspec.Meta(ge=1, le=N_CLIENTS_MAX)]
_Delay = Annotated[int, msgspec.Meta(ge=1, le=DELAY_BLOCKS_MAX)]
_Life = Annotated[int, msgspec.Meta(ge=1, le=YEAR_BLOCKS)]
_Number = Annotated[str, msgspec.Meta(max_length=NUMBER_LENGTH_MAX)]


class _PictureParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str


class _PlanParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `cromford plan` takes; feerates are decimal numbers in sat/vB, rates in percent."""

    clients: _Clients = _DEFAULT.n_clients
    leaf_arity: _Clients = _DEFAULT.leaf_arity
    inner: str | None = None
    inner_arities: Annotated[list[_Clients], msgspec.Meta(max_length=LEVELS_MAX)] = []
    inner_kinds: Annotated[list[str], msgspec.Meta(max_length=LEVELS_MAX)] = []
    max_exit_delay_blocks: Annotated[int, msgspec.Meta(ge=1, le=EXIT_DELAY_BLOCKS_MAX)] = (
        _DEFAULT.max_exit_delay_blocks
    )
    step_blocks: _Delay = _DEFAULT.step_blocks
    states: Annotated[int, msgspec.Meta(ge=2, le=DELAY_BLOCKS_MAX)] = _DEFAULT.states_per_layer
    active_blocks: _Life = _DEFAULT.active_blocks
    dying_blocks: _Life = _DEFAULT.dying_blocks
    capacity_sat: Annotated[int, msgspec.Meta(ge=1, le=MAX_MONEY_SAT)] = _DEFAULT.capacity_sat
    tree_feerate: _Number | None = None
    feerate: _Number | None = None
    capital_rate: _Number | None = None
    loss_rate: _Number | None = None


PICTURE_PARAMS: Final[Params] = {
    "factory_show_picture": _PictureParams,
    "plan": _PlanParams,
    "plan_picture": _PlanParams,
}


def picture_methods(factory_show: Handler, factories: Handler) -> Mapping[str, Handler]:
    """Return the operations, by name.

    Args:
        factory_show: What answers about one factory.
        factories: What answers about all.
    """
    pictures = Pictures()
    plans = Plans(pictures)
    return {
        "factory_show_picture": pictures.of(factory_show, factory_picture),
        "factories_picture": pictures.of(factories, factories_picture),
        **plans.methods(),
    }


class Plans:
    """Plans, of which one is worked out at a time: who comes meanwhile is told to come again.

    Args:
        pictures: Where they are worked out and drawn, beside the loop.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._is_busy = False

    def methods(self) -> dict[str, Handler]:
        """Return the operations, by name."""
        return {"plan": self._plan, "plan_picture": self._plan_picture}

    async def _plan(self, params: dict[str, Any]) -> PlanAnswer:
        return await self._worked_out(params)

    async def _plan_picture(self, params: dict[str, Any]) -> str:
        document = await self._worked_out(params)
        return await self._pictures.beside(lambda: cost_plot(document))

    async def _worked_out(self, params: dict[str, Any]) -> PlanDocument:
        wanted = read_params(params, _PlanParams)
        if self._is_busy:
            raise ApiFailure(
                "plan_under_way",
                "another plan is being worked out",
                retryable=True,
                remediation="Ask again in a moment, or use `cromford plan`, which asks no daemon.",
                status=TOO_MANY_REQUESTS,
            )
        self._is_busy = True
        try:
            return await self._pictures.beside(lambda: plan_factory(_idea_of(wanted)))
        except InvalidPlan as error:
            raise _refused(error) from error
        finally:
            self._is_busy = False


def _idea_of(wanted: _PlanParams) -> Idea:
    """Return what is asked for.

    Raises:
        InvalidParam: If a parameter is not what it should be by itself.
        InvalidPlan: If there is no such factory.
    """
    return Idea(
        n_clients=wanted.clients,
        leaf_arity=wanted.leaf_arity,
        inner_kind=None if wanted.inner is None else _kind_of("inner", wanted.inner),
        inner_levels=_inner_levels(wanted),
        max_exit_delay_blocks=wanted.max_exit_delay_blocks,
        step_blocks=wanted.step_blocks,
        states_per_layer=wanted.states,
        active_blocks=wanted.active_blocks,
        dying_blocks=wanted.dying_blocks,
        capacity_sat=wanted.capacity_sat,
        tree_feerate_sat_per_kw=_in_units(
            "tree_feerate",
            wanted.tree_feerate,
            SAT_PER_KW_OF_SAT_PER_VB,
            default=_DEFAULT.tree_feerate_sat_per_kw,
        ),
        feerate_sat_per_kw=_in_units(
            "feerate",
            wanted.feerate,
            SAT_PER_KW_OF_SAT_PER_VB,
            default=_DEFAULT.feerate_sat_per_kw,
        ),
        capital_millionths=_in_units(
            "capital_rate",
            wanted.capital_rate,
            MILLIONTHS_PER_PERCENT,
            default=_DEFAULT.capital_millionths,
        ),
        loss_millionths=_in_units(
            "loss_rate",
            wanted.loss_rate,
            MILLIONTHS_PER_PERCENT,
            default=_DEFAULT.loss_millionths,
        ),
    )


def _in_units(param: str, said: str | None, units: int, *, default: int) -> int:
    """Return a decimal number in smaller units, rounded as the command line rounds it."""
    if said is None:
        return default
    try:
        number = Decimal(said)
    except ArithmeticError:
        raise InvalidParam(param, f"expected a decimal number, received {said!r}") from None
    # Far beyond all limits that follow, and what is to be rounded has few digits.
    if not number.is_finite() or abs(number.adjusted()) > NUMBER_LENGTH_MAX:
        raise InvalidParam(param, f"expected a decimal number, received {said!r}")
    return round(number * units)


def _inner_levels(wanted: _PlanParams) -> InnerLevels | None:
    if not wanted.inner_arities and not wanted.inner_kinds:
        return None
    if len(wanted.inner_arities) != len(wanted.inner_kinds):
        raise InvalidParam(
            "inner_kinds",
            f"expected as many as of inner_arities, {len(wanted.inner_arities)}, received "
            f"{len(wanted.inner_kinds)}",
        )
    return InnerLevels(
        arities=tuple(wanted.inner_arities),
        kinds=tuple(_kind_of("inner_kinds", kind) for kind in wanted.inner_kinds),
    )


def _kind_of(param: str, label: str) -> VertexKind:
    kind = _KINDS.get(label)
    if kind is None:
        raise InvalidParam(param, f"expected {' or '.join(_KINDS)}, received {label!r}")
    return kind


def _refused(error: InvalidPlan) -> ApiFailure:
    param = ASKED_AS.get(error.field, error.field)
    return ApiFailure(
        "plan_invalid",
        f"{param}: expected {error.expected}, received {error.received}",
        remediation="`cromford plan --help` says what each is.",
        exit_code=EXIT_USAGE,
        status=BAD_REQUEST,
        param=param if param in _PlanParams.__struct_fields__ else None,
    )
