"""`cromford lsp`: run an LSP, see who waits, build factories, export them."""

from decimal import Decimal
from typing import Any, Final

import click

from cromford.cli import lists, tree_view
from cromford.cli.output import show, write_json
from cromford.cli.run_options import (
    FEE_POLICY,
    PORT_MAX,
    Feerate,
    daemon_options,
    fee_policy_of,
    network_of,
    sat_per_kw,
    take_daemon_options,
    tree_feerate_sat_per_kw,
)
from cromford.cli.session import Session, session_options
from cromford.daemon.options import LspOptions
from cromford.factory.odometer import Odometer
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol.policy import LspPolicy

ROLE: Final = "lsp"
LISTEN_DEFAULT: Final = "127.0.0.1:9750"
DEADLINE_SECONDS_MAX: Final = 600
_DEFAULT: Final = LspPolicy()


@click.group(name=ROLE)
def command() -> None:
    """Run an LSP: gather clients, build factories."""


class Arities(click.ParamType[tuple[int, ...]]):
    """Numbers of children, root first: `2,2`."""

    name = "N,N,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        try:
            arities = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected numbers with commas, received {value!r}", param, ctx)
        if any(not 2 <= arity <= N_CLIENTS_MAX for arity in arities):
            self.fail(f"expected numbers in 2..{N_CLIENTS_MAX}, received {value!r}", param, ctx)
        return arities


class Endpoint(click.ParamType[tuple[str, int]]):
    """Where to listen: `HOST:PORT`, with an IPv6 host in brackets; port 0 is any free one."""

    name = "HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the host and the port."""
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or int(port) > PORT_MAX:
            self.fail(f"expected HOST:PORT, received {value!r}", param, ctx)
        return host, int(port)


@command.command()
@click.option("--listen", type=Endpoint(), default=LISTEN_DEFAULT, show_default=True)
@click.option(
    "--capacity-min",
    type=click.IntRange(min=1),
    default=_DEFAULT.capacity_min_sat,
    show_default=True,
    help="The smallest channel, in sat.",
)
@click.option(
    "--capacity-max",
    type=click.IntRange(min=1),
    default=_DEFAULT.capacity_max_sat,
    show_default=True,
    help="The largest channel, in sat.",
)
@click.option(
    "--min-clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    default=_DEFAULT.min_clients,
    show_default=True,
    help="Fewer make no factory.",
)
@click.option(
    "--max-clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    default=_DEFAULT.max_clients,
    show_default=True,
    help="More are not taken into one factory.",
)
@click.option(
    "--leaf-arity",
    type=click.IntRange(1, N_CLIENTS_MAX),
    default=_DEFAULT.leaf_arity,
    show_default=True,
    help="Clients that share a leaf.",
)
@click.option(
    "--inner-arities",
    type=Arities(),
    help="Children at each inner level, root first.  [default: by the number of clients]",
)
@click.option(
    "--step-blocks",
    type=click.IntRange(min=1),
    default=_DEFAULT.step_blocks,
    show_default=True,
    help="Blocks between the delays of two states.",
)
@click.option(
    "--states",
    type=click.IntRange(min=2),
    default=_DEFAULT.states_per_layer,
    show_default=True,
    help="States per layer.",
)
@click.option(
    "--max-exit-delay",
    type=click.IntRange(min=1),
    default=_DEFAULT.max_exit_delay_blocks,
    show_default=True,
    help="Blocks of delay on the longest way out.",
)
@click.option(
    "--fee-policy",
    type=FEE_POLICY,
    default=_DEFAULT.fee_policy.label,
    show_default=True,
    help="How tree transactions pay: their own fee, or a child's.",
)
@click.option("--feerate", type=Feerate(), help="Of the tree, in sat/vB.  [default: 2]")
@click.option(
    "--funding-feerate",
    type=Feerate(),
    default="2",
    show_default=True,
    help="Of the funding transaction, in sat/vB.",
)
@click.option(
    "--min-depth",
    type=click.IntRange(1, 144),
    default=_DEFAULT.min_depth,
    show_default=True,
    help="Confirmations before channels are ready.",
)
@click.option(
    "--deadline",
    type=click.IntRange(1, DEADLINE_SECONDS_MAX),
    default=_DEFAULT.deadline_seconds,
    show_default=True,
    help="Seconds a client may take to answer.",
)
@daemon_options
@session_options
@click.pass_obj
def run(
    session: Session,
    /,
    listen: tuple[str, int],
    **given: Any,  # noqa: ANN401 - the options of `policy_of` and `daemon_options`
) -> None:
    """Run the LSP's daemon in the foreground. Its log goes to stderr.

    The first start makes a seed in the data directory, readable by you only.
    """
    shared = take_daemon_options(given)
    network = network_of(session)
    options = LspOptions(
        datadir=session.datadir_of(ROLE).absolute(),
        network=network,
        chain=shared.chain(network),
        listen_host=listen[0],
        listen_port=listen[1],
        policy=policy_of(**given),
        poll_seconds=shared.poll_seconds,
        log_level=shared.log_level,
        log_format=shared.log_format,
        metrics_port=shared.metrics_port,
        seed_passphrase_file=shared.seed_passphrase_file,
    )
    from cromford.cli import daemons  # noqa: PLC0415 - all of a daemon; no other command needs it

    daemons.run_lsp(options)


def policy_of(
    *,
    capacity_min: int,
    capacity_max: int,
    min_clients: int,
    max_clients: int,
    leaf_arity: int,
    inner_arities: tuple[int, ...] | None,
    step_blocks: int,
    states: int,
    max_exit_delay: int,
    fee_policy: str,
    feerate: Decimal | None,
    funding_feerate: Decimal,
    min_depth: int,
    deadline: int,
) -> LspPolicy:
    """Return the policy that the options of `lsp run` describe.

    Raises:
        click.UsageError: If two of them do not go together.
    """
    for name, low, high in (
        ("capacity", capacity_min, capacity_max),
        ("clients", min_clients, max_clients),
    ):
        if low > high:
            raise click.UsageError(f"{name}: the least, {low}, is above the most, {high}")
    try:
        odometer = Odometer(states_per_layer=states, step_blocks=step_blocks)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if odometer.delay_max_blocks > max_exit_delay:
        raise click.UsageError(
            f"--max-exit-delay: expected at least one layer's {odometer.delay_max_blocks} blocks, "
            f"received {max_exit_delay}"
        )
    if funding_feerate == 0:
        raise click.UsageError("--funding-feerate: expected above 0")
    policy = fee_policy_of(fee_policy)
    return LspPolicy(
        capacity_min_sat=capacity_min,
        capacity_max_sat=capacity_max,
        min_clients=min_clients,
        max_clients=max_clients,
        leaf_arity=leaf_arity,
        inner_arities=inner_arities,
        step_blocks=step_blocks,
        states_per_layer=states,
        max_exit_delay_blocks=max_exit_delay,
        fee_policy=policy,
        tree_feerate_sat_per_kw=tree_feerate_sat_per_kw(policy, feerate),
        funding_feerate_sat_per_kw=sat_per_kw(funding_feerate),
        # A delay that protects somebody is at least a step, or it could pass unseen.
        lstock_csv_blocks=max(_DEFAULT.lstock_csv_blocks, step_blocks),
        to_self_delay_lsp=max(_DEFAULT.to_self_delay_lsp, step_blocks),
        to_self_delay_client=max(_DEFAULT.to_self_delay_client, step_blocks),
        min_depth=min_depth,
        deadline_seconds=deadline,
    )


@command.command()
@session_options
@click.pass_obj
def status(session: Session) -> None:
    """Show the daemon: its address, chain, wallet, connections."""
    show(session, session.call(ROLE, "status"), lists.lsp_status)


@command.command()
@session_options
@click.pass_obj
def address(session: Session) -> None:
    """Show a fresh address of the wallet that funds factories."""
    show(session, session.call(ROLE, "address"), lists.address)


@command.command()
@session_options
@click.pass_obj
def lobby(session: Session) -> None:
    """Show who waits for a factory, and what clients connect to."""
    show(session, session.call(ROLE, "lobby"), lists.lobby)


@command.command()
@click.option(
    "--min",
    "min_clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    help="Fewer clients make no factory.  [default: the daemon's]",
)
@click.option(
    "--max",
    "max_clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    help="At most so many are taken.  [default: the daemon's]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be built; build nothing.")
@session_options
@click.pass_obj
def build(
    session: Session,
    min_clients: int | None,
    max_clients: int | None,
    dry_run: bool,  # noqa: FBT001 - click passes every option by keyword
) -> None:
    """Build a factory with those who wait, and say who sits where, and why."""
    if min_clients is not None and max_clients is not None and min_clients > max_clients:
        raise click.UsageError(f"--min {min_clients} is above --max {max_clients}")
    answer = session.call(
        ROLE, "build", min_clients=min_clients, max_clients=max_clients, dry_run=dry_run
    )
    show(session, answer, lists.build)


@command.command()
@session_options
@click.pass_obj
def factories(session: Session) -> None:
    """List the factories, newest attempts included."""
    show(session, session.call(ROLE, "factories"), lists.lsp_factories)


@command.group()
def factory() -> None:
    """Look at one factory. ID is a factory id, or its beginning if that is unique."""


@factory.command(name="show")
@click.argument("factory_id", metavar="ID")
@session_options
@click.pass_obj
def show_factory(session: Session, factory_id: str) -> None:
    """Show the tree, the ledger and the terms of a factory."""
    answer = session.call(ROLE, "factory_show", factory_id=factory_id)
    show(session, answer, tree_view.factory)


@factory.command()
@click.argument("factory_id", metavar="ID")
@session_options
@click.pass_obj
def export(session: Session, factory_id: str) -> None:
    """Write a factory as one JSON document, for anybody to verify with other software."""
    write_json(session.call(ROLE, "factory_export", factory_id=factory_id))


@command.command()
@session_options
@click.pass_obj
def stop(session: Session) -> None:
    """Stop the daemon."""
    show(session, session.call(ROLE, "stop"), lists.stopping)
