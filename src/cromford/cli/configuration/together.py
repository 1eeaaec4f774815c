"""What two keys of one role say of each other: refused at the start, and not once it matters.

Each of them is as it should be by itself. Together one of them would do nothing, or what it is for
would never happen.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

import click

from cromford import told
from cromford.adapters.peer_address import written_endpoint
from cromford.bitcoin.network import NETWORKS
from cromford.factory.terms import InvalidTerms
from cromford.listening import ANY_IPV6
from cromford.protocol.dying_steps import CLOSE_MARGIN_BLOCKS
from cromford.protocol.faults import Refusal
from cromford.protocol.lobby.build import capacity_floor_sat, check_can_build
from cromford.protocol.lobby.choosing import capacity_ceiling_sat
from cromford.protocol.lobby.join_size import join_fits
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.policy import DyingStep, LspPolicy

Values = Mapping[str, Any]
_ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared with, not listened on


def check_order(section: str, of: Values, *pairs: tuple[str, str]) -> None:
    """Check that the first of two keys is at most the second.

    Raises:
        click.UsageError: Naming both, and their values.
    """
    for low, high in pairs:
        if of[low] > of[high]:
            raise click.UsageError(
                f"{section}.{low}: expected at most {high}, {of[high]}, received {of[low]}"
            )


def check_lsp(values: Values, policy: LspPolicy) -> None:
    """Check what an LSP would be able to do with a policy.

    Args:
        values: The keys' values by their paths.
        policy: What they describe.

    Raises:
        click.UsageError: Naming the keys that do not go together, and their values.
    """
    of = {path.removeprefix("lsp."): value for path, value in values.items()}
    _check_capital(policy)
    _check_clients(of)
    _check_builds(values, policy)
    _check_times(of)
    _check_hold(of)
    _check_joins(of)


def _check_capital(policy: LspPolicy) -> None:
    floor_sat, ceiling_sat = capacity_floor_sat(policy), capacity_ceiling_sat(policy)
    if floor_sat > ceiling_sat:
        is_capital = ceiling_sat < policy.capacity_max_sat
        name = "capital_per_client_sat" if is_capital else "capacity_max_sat"
        raise click.UsageError(
            f"lsp.{name}: expected at least {floor_sat}, or a channel could not bear its "
            f"fees at feerate_sat_per_vb; received {ceiling_sat}"
        )
    # The default follows the fees; what somebody chose is not raised behind their back.
    if policy.capacity_min_sat not in {LspPolicy().capacity_min_sat, floor_sat}:
        raise click.UsageError(
            f"lsp.capacity_min_sat: expected at least {floor_sat}, or a channel could not bear its "
            f"fees at feerate_sat_per_vb; received {policy.capacity_min_sat}"
        )
    if policy.min_clients * floor_sat > policy.capital_per_build_sat:
        raise click.UsageError(
            f"lsp.capital_per_build_sat: expected at least {policy.min_clients * floor_sat}, "
            f"min_clients, {policy.min_clients}, channels of {floor_sat}, or no factory is ever "
            f"built; received {policy.capital_per_build_sat}"
        )


def needed_clients(of: Values) -> str:
    """Return the key that says how many clients have to wait before a factory is built.

    Args:
        of: The values of the section `lsp`, by their keys.
    """
    return "min_clients" if of["build_at_clients"] is None else "build_at_clients"


def _check_clients(of: Values) -> None:
    least = needed_clients(of)
    check_order("lsp", of, (least, "connections_max"), (least, "max_clients"))
    allowed = of["allowed_clients"]
    if allowed is not None and len(set(allowed)) < of[least]:
        raise click.UsageError(
            f"lsp.allowed_clients: expected at least {least}, {of[least]}, of them, or no factory "
            f"is ever built; received {len(set(allowed))}"
        )


def _check_builds(values: Values, policy: LspPolicy) -> None:
    """Check the smallest factory, and the largest: a lobby that is full must not be what fails."""
    network = NETWORKS[values["chain.network"]]
    for name in ("min_clients", "max_clients"):
        n_clients = getattr(policy, name)
        try:
            check_can_build(policy, network, n_clients=n_clients)
        except (InvalidTerms, Refusal) as error:
            clients = told.counted(n_clients, "client")
            raise click.UsageError(
                f"lsp.{name}: no factory of {clients} could ever be built: {error}"
            ) from error
    _check_levels(policy)


def _check_levels(policy: LspPolicy) -> None:
    """Check that the largest factory needs every level that was named; smaller ones need fewer."""
    _, inner = shape_by_policy(policy, policy.max_clients)
    if policy.inner_kind is not None and not inner.arities:
        raise click.UsageError(
            f"lsp.inner: expected none where max_clients, {policy.max_clients}, are in one leaf; "
            f"received {policy.inner_kind.label}"
        )
    named = () if policy.inner_levels is None else policy.inner_levels.arities
    if len(named) > len(inner.arities):
        raise click.UsageError(
            f"lsp.inner_arities: expected {told.counted(len(inner.arities), 'level')}, all that "
            f"max_clients, {policy.max_clients}, needs; received {list(named)}"
        )


def _check_times(of: Values) -> None:
    left_blocks = of["active_blocks"] - of["ready_min_blocks"]
    if of["patience_blocks"] > left_blocks:
        raise click.UsageError(
            f"lsp.patience_blocks: expected at most {left_blocks}, active_blocks less "
            f"ready_min_blocks: of a funding that confirms later nobody has any use; received "
            f"{of['patience_blocks']}"
        )
    steps = [step for step in of["dying_policy"] if step != DyingStep.SWEEP]
    if len(steps) > 1 and steps[0] == DyingStep.MOVE:
        check_order("lsp", of, ("dying_wait_percent", "dying_step_percent"))
    elif len(steps) > 1:
        _check_sum(of)
    if DyingStep.CLOSE in steps:
        is_first = steps[0] == DyingStep.CLOSE
        share = 0 if is_first else -(-of["dying_blocks"] * of["dying_step_percent"] // 100)
        if share + CLOSE_MARGIN_BLOCKS > of["dying_blocks"]:
            after = (
                "" if is_first else f" after dying_step_percent, {of['dying_step_percent']}, of it"
            )
            raise click.UsageError(
                f"lsp.dying_blocks: expected {CLOSE_MARGIN_BLOCKS} left for a close{after}, or the "
                f"clients are never asked for one; received {of['dying_blocks']}"
            )


def _check_sum(of: Values) -> None:
    first, wait = of["dying_step_percent"], of["dying_wait_percent"]
    if first + wait > 100:
        raise click.UsageError(
            f"lsp.dying_wait_percent: expected at most {100 - first}, what dying_step_percent, "
            f"{first}, leaves of the dying period; received {wait}"
        )


def _check_hold(of: Values) -> None:
    """A payee that announces nothing is waited for as well; 0 says that none is waited longer."""
    if 0 < of["announced_hold_seconds"] < of["hold_seconds"]:
        raise click.UsageError(
            "lsp.announced_hold_seconds: expected 0 or at least hold_seconds, "
            f"{of['hold_seconds']}, which every payment waits for; received "
            f"{of['announced_hold_seconds']}"
        )


def _check_joins(of: Values) -> None:
    if not join_fits(n_candidates=of["funding_candidates"], pool_size=of["pool_size"]):
        raise click.UsageError(
            "lsp.pool_size: expected pools that fit one message with those of funding_candidates, "
            f"{of['funding_candidates']}, or nobody can join; received {of['pool_size']}"
        )


def check_client(of: Values) -> None:
    """Check that there are terms at all that a client signs.

    Args:
        of: The values of the section `client`, by their keys.

    Raises:
        click.UsageError: Naming the keys that do not go together, and their values.
    """
    check_order(
        "client",
        of,
        ("ready_min_blocks_min", "active_blocks_max"),
        ("step_blocks_min", "to_self_delay_blocks_max"),
        ("step_blocks_min", "lstock_csv_blocks_max"),
    )
    delay_blocks = of["step_blocks_min"] * (of["states_min"] - 1)
    if delay_blocks > of["max_exit_delay_blocks"]:
        raise click.UsageError(
            f"client.max_exit_delay_blocks: expected at least {delay_blocks}, one layer of "
            f"states_min, {of['states_min']}, and step_blocks_min, {of['step_blocks_min']}, or no "
            f"terms are ever signed; received {of['max_exit_delay_blocks']}"
        )
    life_blocks = of["active_blocks_min"] + of["dying_blocks_min"]
    if life_blocks > of["max_expiry_blocks"]:
        raise click.UsageError(
            f"client.max_expiry_blocks: expected at least {life_blocks}, active_blocks_min, "
            f"{of['active_blocks_min']}, and dying_blocks_min, {of['dying_blocks_min']}, or no "
            f"terms are ever signed; received {of['max_expiry_blocks']}"
        )


def check_listeners(values: Values, *names: str) -> None:
    """Check that no two of the places where a daemon listens are one.

    Args:
        values: The keys' values by their paths.
        names: The paths of the keys; one without a value listens nowhere.

    Raises:
        click.UsageError: Naming both, and where.
    """
    placed = [(name, values[name]) for name in names if values[name] is not None]
    for (name, one), (other_name, other) in combinations(placed, 2):
        if one[1] and one[1] == other[1] and _are_one(one[0], other[0]):
            raise click.UsageError(
                f"{other_name}: expected another address or port than that of {name}, "
                f"{written_endpoint(*one)}, received {written_endpoint(*other)}"
            )


def _are_one(host: str, other: str) -> bool:
    if host == other or ANY_IPV6 in {host, other}:
        return True
    return _ANY_IPV4 in {host, other} and ":" not in host + other
