"""`cromford plan`: what a factory costs, before it exists. It asks no daemon and no node."""

from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Final

import click

from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.cli.amounts import sat_of
from cromford.cli.configuration.kinds import (
    FEERATE_MAX_SAT_PER_VB,
    FEERATE_MIN_SAT_PER_VB,
    Choice,
    Integer,
    Number,
    Option,
    Several,
    sat_per_kw,
)
from cromford.cli.configuration.run_options import vertex_kind_of
from cromford.cli.failures import EXIT_USAGE, CommandFailed
from cromford.cli.invocation import Invocation, json_option
from cromford.cli.picture_file import check_overwrite, overwrite_option, svg_option, write_picture
from cromford.cli.shown import plan
from cromford.cli.shown.output import show
from cromford.factory.kinds import PICTURE_CLIENTS_MAX, InnerLevels, VertexKind
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.picture.plot import cost_plot
from cromford.planning.idea import (
    ASKED_AS,
    CAPITAL_MILLIONTHS_MAX,
    EXIT_DELAY_BLOCKS_MAX,
    LOSS_MILLIONTHS_MAX,
    MILLIONTHS_PER_PERCENT,
    YEAR_BLOCKS,
    Idea,
    InvalidPlan,
)
from cromford.planning.plan import plan_factory

_DEFAULT: Final = Idea()
_CLIENTS: Final = Integer(1, N_CLIENTS_MAX)
_DELAY: Final = Integer(1, DELAY_BLOCKS_MAX, "BLOCKS")
_LIFE: Final = Integer(1, YEAR_BLOCKS, "BLOCKS")
_FEERATE: Final = Number(FEERATE_MIN_SAT_PER_VB, Decimal(FEERATE_MAX_SAT_PER_VB), "sat/vB")
_CAPITAL: Final = Number(
    Decimal(0), Decimal(CAPITAL_MILLIONTHS_MAX) / MILLIONTHS_PER_PERCENT, "PERCENT"
)
_LOSS: Final = Number(Decimal(0), Decimal(LOSS_MILLIONTHS_MAX) / MILLIONTHS_PER_PERCENT, "PERCENT")
_KIND: Final = Choice(tuple(kind.label for kind in VertexKind))


class Sat(click.ParamType[int]):
    """An amount in sat, as it is printed."""

    name = "SAT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the amount."""
        amount_sat = sat_of(str(value))
        if amount_sat is None or not 1 <= amount_sat <= MAX_MONEY_SAT:
            expected = f"a whole number in 1..{MAX_MONEY_SAT}"
            self.fail(f"expected {expected}, received {value!r}", param, ctx)
        return amount_sat


@click.command(name="plan")
@click.option(
    "--clients",
    type=Option(_CLIENTS),
    default=_DEFAULT.n_clients,
    show_default=True,
    help="How many share the factory.",
)
@click.option(
    "--leaf-arity",
    type=Option(_CLIENTS),
    default=_DEFAULT.leaf_arity,
    show_default=True,
    help="Clients that share a leaf.",
)
@click.option(
    "--inner",
    type=Option(_KIND),
    help="What every level above the leaves is: states with a delay, or one transaction without.  "
    f"[default: dw up to {PICTURE_CLIENTS_MAX} clients, static beyond]",
)
@click.option(
    "--inner-arities",
    type=Option(Several(Integer(2, N_CLIENTS_MAX), "N,N,...")),
    help="Children at each of these levels, root first; with --inner-kinds.  [default: by the "
    "number of clients]",
)
@click.option(
    "--inner-kinds",
    type=Option(Several(_KIND, "KIND,KIND,...")),
    help="What each of these levels is, dw or static; with --inner-arities.",
)
@click.option(
    "--max-exit-delay-blocks",
    type=Option(Integer(1, EXIT_DELAY_BLOCKS_MAX, "BLOCKS")),
    default=_DEFAULT.max_exit_delay_blocks,
    show_default=True,
    help="Of delay on the longest way out; decides how deep a tree of dw levels may be.",
)
@click.option(
    "--step-blocks",
    type=Option(_DELAY),
    default=_DEFAULT.step_blocks,
    show_default=True,
    help="Blocks between the delays of two states.",
)
@click.option(
    "--states",
    type=Option(Integer(2, DELAY_BLOCKS_MAX)),
    default=_DEFAULT.states_per_layer,
    show_default=True,
    help="States per layer.",
)
@click.option(
    "--active-blocks",
    type=Option(_LIFE),
    default=_DEFAULT.active_blocks,
    show_default=True,
    help="Blocks of normal life. The plan also says which would cost the least.",
)
@click.option(
    "--dying-blocks",
    type=Option(_LIFE),
    default=_DEFAULT.dying_blocks,
    show_default=True,
    help="Blocks after them in which clients move to the next factory.",
)
@click.option(
    "--capacity-sat",
    type=Sat(),
    default=f"{_DEFAULT.capacity_sat:,}",
    show_default=True,
    help="Of each channel, in sat. Half as much again is the LSP's stock of liquidity.",
)
@click.option(
    "--tree-feerate",
    type=Option(_FEERATE),
    default=f"{sat_per_vb(_DEFAULT.tree_feerate_sat_per_kw):g}",
    show_default=True,
    help="What the tree's transactions pay themselves, in sat/vB.",
)
@click.option(
    "--feerate",
    type=Option(_FEERATE),
    default=f"{sat_per_vb(_DEFAULT.feerate_sat_per_kw):g}",
    show_default=True,
    help="What a block asks for, in sat/vB.",
)
@click.option(
    "--capital-rate",
    type=Option(_CAPITAL),
    default=f"{_DEFAULT.capital_millionths / MILLIONTHS_PER_PERCENT:g}",
    show_default=True,
    help="What locking money costs, in percent of it a year.",
)
@click.option(
    "--loss-rate",
    type=Option(_LOSS),
    default=f"{_DEFAULT.loss_millionths / MILLIONTHS_PER_PERCENT:g}",
    show_default=True,
    help="How many of the clients are lost for good, in percent a year.",
)
@svg_option
@overwrite_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    /,
    *,
    clients: int,
    leaf_arity: int,
    inner: str | None,
    inner_arities: tuple[int, ...] | None,
    inner_kinds: tuple[str, ...] | None,
    max_exit_delay_blocks: int,
    step_blocks: int,
    states: int,
    active_blocks: int,
    dying_blocks: int,
    capacity_sat: int,
    tree_feerate: Decimal,
    feerate: Decimal,
    capital_rate: Decimal,
    loss_rate: Decimal,
    svg_file: Path | None,
    overwrite: bool,
) -> None:
    """Say what a factory costs, before it exists.

    How long leaving takes, what the LSP locks, what leaving publishes for one client and for all of
    them, and what a client costs in a month: fees, and the capital that waits. Beside it a plain
    channel, other shapes of the tree, and the lifetime at which a client costs the least.

    It asks nobody: every number follows from the options, by the rules that build a real factory.
    The formulas and what they assume are in docs/economics.md.
    """
    invocation.refuse("--datadir", "--config", "--network")
    check_overwrite(svg_file, overwrites=overwrite)
    try:
        document = plan_factory(
            Idea(
                n_clients=clients,
                leaf_arity=leaf_arity,
                inner_kind=None if inner is None else vertex_kind_of(inner),
                inner_levels=_inner_levels(inner_arities, inner_kinds),
                max_exit_delay_blocks=max_exit_delay_blocks,
                step_blocks=step_blocks,
                states_per_layer=states,
                active_blocks=active_blocks,
                dying_blocks=dying_blocks,
                capacity_sat=capacity_sat,
                tree_feerate_sat_per_kw=sat_per_kw(tree_feerate),
                feerate_sat_per_kw=sat_per_kw(feerate),
                capital_millionths=round(capital_rate * MILLIONTHS_PER_PERCENT),
                loss_millionths=round(loss_rate * MILLIONTHS_PER_PERCENT),
            )
        )
    except InvalidPlan as error:
        raise _refused(error) from error
    if svg_file is not None:
        write_picture(invocation, svg_file, cost_plot(document), overwrites=overwrite)
    show(invocation, document, plan.plan)


def _inner_levels(
    arities: tuple[int, ...] | None, kinds: tuple[str, ...] | None
) -> InnerLevels | None:
    if arities is None and kinds is None:
        return None
    if arities is None or kinds is None:
        raise click.UsageError(
            "--inner-arities, --inner-kinds: expected both or neither, received "
            f"{'only the kinds' if arities is None else 'only the arities'}"
        )
    return InnerLevels(arities=arities, kinds=tuple(map(vertex_kind_of, kinds)))


def _refused(error: InvalidPlan) -> CommandFailed:
    """Return how a plan that cannot be is refused: with the option, where one says the field."""
    asked = {field.name for field in fields(Idea)}
    name = ASKED_AS.get(error.field, error.field)
    option = f"--{name.replace('_', '-')}"
    return CommandFailed(
        "plan_invalid",
        f"{name}: expected {error.expected}, received {error.received}",
        remediation=f"Change {option}." if error.field in asked else "See: cromford plan --help",
        exit_code=EXIT_USAGE,
    )
