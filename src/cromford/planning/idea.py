"""What somebody asks about a factory, and the policy by which an LSP would build that."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from cromford import told
from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol.advancing.pricing import MILLION, MONTH_BLOCKS
from cromford.protocol.policy import LspPolicy, SalePrice

YEAR_BLOCKS: Final = 52_560  # 365 days, of ten minutes a block.
DAY_BLOCKS: Final = YEAR_BLOCKS // 365
EXIT_DELAY_BLOCKS_MAX: Final = 10 * YEAR_BLOCKS
FEERATE_MAX_SAT_PER_KW: Final = 1_000 * SAT_PER_KW_OF_SAT_PER_VB
CAPITAL_MILLIONTHS_MAX: Final = MILLION  # 100 % a year.
MILLIONTHS_PER_PERCENT: Final = 10_000
LOSS_MILLIONTHS_MAX: Final = 999_999  # Of all clients, some are left after a year.
# What an LSP asks for a month of inbound liquidity is what locking the capital costs it.
CAPITAL_MILLIONTHS: Final = round(SalePrice().per_month * YEAR_BLOCKS / MONTH_BLOCKS)
LOSS_MILLIONTHS: Final = 100_000  # 10 % a year: nobody's measurement.
CAPACITY_SAT: Final = 1_000_000
N_CLIENTS: Final = 8
# What whoever plans says for a field, where that is another name.
ASKED_AS: Final = {
    "n_clients": "clients",
    "states_per_layer": "states",
    "inner_kind": "inner",
    "inner_levels": "inner_arities",
    "tree_feerate_sat_per_kw": "tree_feerate",
    "feerate_sat_per_kw": "feerate",
    "capital_millionths": "capital_rate",
    "loss_millionths": "loss_rate",
}

_POLICY: Final = LspPolicy()


class InvalidPlan(ValueError):
    """A factory that cannot be, or that no usual client signs: names the field."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        received = _shown(field, received)
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """A factory that does not exist, and the day on which it would. Delays in blocks.

    Attributes:
        n_clients: How many share it.
        leaf_arity: How many of them share a leaf.
        inner_kind: Of all levels above; None: by the number of clients.
        inner_levels: These levels instead; None: as `inner_kind` says.
        max_exit_delay_blocks: The most that the delays of a path may sum up to.
        step_blocks: Between the delays of two states.
        states_per_layer: Of each vertex that has states.
        active_blocks: Its normal life.
        dying_blocks: In which everybody moves to the next one.
        capacity_sat: Of each channel.
        tree_feerate_sat_per_kw: What the tree's transactions pay themselves.
        feerate_sat_per_kw: What a block asks for, on the day it is funded and ever after.
        capital_millionths: What locking capital costs, of it, a year.
        loss_millionths: How many of its clients are lost within a year, for good.

    Raises:
        InvalidPlan: If a number is out of its range.
    """

    n_clients: int = N_CLIENTS
    leaf_arity: int = _POLICY.leaf_arity
    inner_kind: VertexKind | None = None
    inner_levels: InnerLevels | None = None
    max_exit_delay_blocks: int = _POLICY.max_exit_delay_blocks
    step_blocks: int = _POLICY.step_blocks
    states_per_layer: int = _POLICY.states_per_layer
    active_blocks: int = _POLICY.active_blocks
    dying_blocks: int = _POLICY.dying_blocks
    capacity_sat: int = CAPACITY_SAT
    tree_feerate_sat_per_kw: int = _POLICY.tree_feerate_sat_per_kw
    feerate_sat_per_kw: int = _POLICY.funding_feerate_sat_per_kw
    capital_millionths: int = CAPITAL_MILLIONTHS
    loss_millionths: int = LOSS_MILLIONTHS

    def __post_init__(self) -> None:
        feerates = (MIN_RELAY_SAT_PER_KW, FEERATE_MAX_SAT_PER_KW)
        for field, (low, high) in {
            "n_clients": (1, N_CLIENTS_MAX),
            "leaf_arity": (1, N_CLIENTS_MAX),
            "max_exit_delay_blocks": (1, EXIT_DELAY_BLOCKS_MAX),
            "step_blocks": (1, DELAY_BLOCKS_MAX),
            "states_per_layer": (2, DELAY_BLOCKS_MAX),
            "capacity_sat": (1, MAX_MONEY_SAT),
            "tree_feerate_sat_per_kw": feerates,
            "feerate_sat_per_kw": feerates,
            "capital_millionths": (0, CAPITAL_MILLIONTHS_MAX),
            "loss_millionths": (0, LOSS_MILLIONTHS_MAX),
        }.items():
            received: int = getattr(self, field)
            if not low <= received <= high:
                expected = f"{_shown(field, low)}..{_shown(field, high)}"
                raise InvalidPlan(field, expected=expected, received=received)
        if self.inner_kind is not None and self.inner_levels is not None:
            raise InvalidPlan(
                "inner_kind",
                expected="none where inner_levels say it all",
                received=self.inner_kind.label,
            )

    @property
    def policy(self) -> LspPolicy:
        """The policy of an LSP that builds it, with the defaults for all the rest."""
        return LspPolicy(
            leaf_arity=self.leaf_arity,
            inner_kind=self.inner_kind,
            inner_levels=self.inner_levels,
            max_exit_delay_blocks=self.max_exit_delay_blocks,
            step_blocks=self.step_blocks,
            states_per_layer=self.states_per_layer,
            active_blocks=self.active_blocks,
            dying_blocks=self.dying_blocks,
            tree_feerate_sat_per_kw=self.tree_feerate_sat_per_kw,
            funding_feerate_sat_per_kw=self.feerate_sat_per_kw,
        )


def _shown(field: str, value: object) -> str:
    """Return a value in the unit that whoever plans gives it in."""
    if isinstance(value, int) and field.endswith("_millionths"):
        return f"{Decimal(value) / MILLIONTHS_PER_PERCENT:f} %"
    return told.shown(field, value)
