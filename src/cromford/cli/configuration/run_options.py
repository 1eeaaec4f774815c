"""From settings to what a daemon is started with: its chain and its policy."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from cromford.adapters.peer_address import is_of_one_machine, written_endpoint
from cromford.adapters.places import HANDSHAKES_MAX, Limits
from cromford.agent.options import AgentOptions
from cromford.bitcoin.network import MAINNET, NETWORKS, SIGNET, Network
from cromford.cli.configuration.keys import KEYS
from cromford.cli.configuration.kinds import sat_per_kw
from cromford.cli.configuration.role_keys import CLIENT_RANGES
from cromford.cli.configuration.together import (
    Values,
    check_client,
    check_listeners,
    check_lsp,
    check_order,
    needed_clients,
)
from cromford.cli.failures import EXIT_USAGE, CommandFailed, expanded
from cromford.crypto.keys import is_pubkey
from cromford.daemon.loopback import is_loopback
from cromford.daemon.options import ChainOptions, ClientOptions, LspOptions
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.odometer import Odometer
from cromford.factory.terms import FeePolicy, InvalidTerms, check_levels
from cromford.protocol.policy import (
    ClientPolicy,
    DyingStep,
    InvalidDyingPolicy,
    LspPolicy,
    UnsafePolicy,
    WhenDying,
    check_dying_policy,
)
from cromford.protocol.term_ranges import max_cltv_blocks_for
from cromford.watch.burnt import BurnLimit

BITCOIND_HOME: Final = Path("~/.bitcoin")
COOKIE_NAME: Final = ".cookie"
FEERATE_DEFAULT_SAT_PER_VB: Final = Decimal(2)
_BURN_LIMITS: Final = ("max_feerate_times_estimate", "max_burnt_percent")
# A delay that protects somebody is at least a step, or it could pass unseen: its key, and the
# field of the policy.
_PROTECTING_DELAYS: Final = {
    "lstock_csv_blocks": "lstock_csv_blocks",
    "to_self_delay_lsp_blocks": "to_self_delay_lsp",
    "to_self_delay_client_blocks": "to_self_delay_client",
}
_LSP: Final = LspPolicy()
_DEFAULTS: Final = {key.path: key.default for key in KEYS}
# What an agent has not: it serves no numbers, no TCP, has no seed and no store, and signs nothing.
_NOT_OF_AN_AGENT: Final = (
    "chain.fallback_feerate_sat_per_vb",
    "metrics.listen",
    "api.listen",
    "seed.passphrase_file",
    "backup.dir",
    "backup.mark_dir",
)
AGENT_WARNING: Final = "WARNING: {} has no effect: an exit agent has no use for it."
MAINNET_WARNING: Final = """\
WARNING: this daemon runs on MAINNET, with bitcoin that can be lost.
WARNING: this software is alpha and has had no outside review: what goes into a factory may stay
WARNING: there. Use a test network unless you can lose all of it."""

DEADLINE_WARNING: Final = """\
WARNING: lsp.deadline_seconds, {}, is more than the {} s that clients wait unless they raised
WARNING: client.max_deadline_seconds: where one is slow, the others give up a close or a sale."""

ANNOUNCE_WARNING: Final = """\
WARNING: clients are told to connect to {}, which is no machine's address: name the one that they
WARNING: reach with --announce."""

API_WARNING: Final = """\
WARNING: the API is served to other machines, and HTTP hides nothing: whoever reads along has the
WARNING: tokens, and with them the money. Put a proxy with TLS before it."""


def lsp_options(values: Values, datadir: Path) -> LspOptions:
    """Return what an LSP is started with.

    Raises:
        click.UsageError: If two values do not go together.
        CommandFailed: If mainnet was not allowed.
    """
    host, port = values["lsp.listen"]
    policy, shared = checked_lsp_policy(values), _shared(values, datadir)
    if values["lsp.announce"] is None and not is_of_one_machine(host):
        click.echo(ANNOUNCE_WARNING.format(written_endpoint(host, port)), err=True)
    return LspOptions(
        listen_host=host,
        listen_port=port,
        announce=values["lsp.announce"],
        policy=policy,
        limits=connection_limits(values),
        **shared,
    )


def checked_lsp_policy(values: Values) -> LspPolicy:
    """Return an LSP's policy, once all of its section goes together.

    Raises:
        click.UsageError: If two values do not.
    """
    policy = lsp_policy(values)
    check_lsp(values, policy)
    check_listeners(values, "lsp.listen", "metrics.listen", "api.listen")
    connection_limits(values)
    if policy.deadline_seconds > (usual := ClientPolicy().deadline_seconds):
        click.echo(DEADLINE_WARNING.format(policy.deadline_seconds, usual), err=True)
    return policy


def connection_limits(values: Values) -> Limits:
    """Return how many peers an LSP holds.

    Raises:
        click.UsageError: If there are more strangers than places, or fewer than make a factory, of
            one address where all have the same.
    """
    of = {path.removeprefix("lsp."): value for path, value in values.items()}
    connections_max, strangers_max = of["connections_max"], of["strangers_max"]
    # Whoever waits for the first factory is a stranger until it is built.
    least = needed_clients(of)
    if strangers_max is None:
        strangers_max = max(of[least], connections_max // 2)
    else:
        check_order("lsp", of, ("strangers_max", "connections_max"), (least, "strangers_max"))
    listen, per_address = values["lsp.listen"], of["connections_per_address"]
    if is_loopback(listen[0]) and per_address < of[least]:
        raise click.UsageError(
            f"lsp.connections_per_address: expected at least {least}, {of[least]}, where listen, "
            f"{written_endpoint(*listen)}, is reached from one address alone, or no factory is "
            f"ever built; received {per_address}"
        )
    return Limits(
        connections_max=connections_max,
        strangers_max=strangers_max,
        handshakes_max=min(HANDSHAKES_MAX, connections_max),
        per_address_max=per_address,
    )


def client_options(values: Values, datadir: Path) -> ClientOptions:
    """Return what a client is started with.

    Raises:
        click.UsageError: If two values do not go together, or there is no LSP.
        CommandFailed: If mainnet was not allowed, or the policy is not safe.
    """
    if values["client.lsp"] is None:
        raise click.UsageError("client.lsp: expected NODEID@HOST:PORT, as `lsp lobby` prints it")
    policy, shared = client_policy(values), _shared(values, datadir)
    try:
        return ClientOptions(lsp=values["client.lsp"], policy=policy, **shared)
    except UnsafePolicy as error:
        raise CommandFailed(
            "unsafe_policy",
            f"client.{error}",
            remediation="Leave the default; anything goes on regtest, where nothing can be lost.",
            exit_code=EXIT_USAGE,
        ) from error


def agent_options(values: Values, datadir: Path) -> AgentOptions:
    """Return what an exit agent is started with.

    Raises:
        click.UsageError: If two values do not go together.
        CommandFailed: If mainnet was not allowed.
    """
    network = allowed_network(values)
    for path in _NOT_OF_AN_AGENT:
        if values[path] != _DEFAULTS[path]:
            click.echo(AGENT_WARNING.format(path), err=True)
    return AgentOptions(
        datadir=datadir.absolute(),
        network=network,
        chain=chain_of(values, network),
        packages_max=values["agent.packages_max"],
        poll_seconds=float(values["chain.poll_seconds"]),
        log_level=values["log.level"],
        log_format=values["log.format"],
        signet_challenge=signet_challenge(values, network),
    )


def api_listen(values: Values) -> tuple[str, int] | None:
    """Return where the API is served by TCP, with a warning if others reach it; None for nowhere.

    Raises:
        click.UsageError: If other machines may reach it, and it is served nowhere.
        CommandFailed: If other machines could reach it, and nobody said that they may.
    """
    listen = allowed_api_listen(values)
    if listen is not None and not is_loopback(listen[0]):
        click.echo(API_WARNING, err=True)
    return listen


def allowed_api_listen(values: Values) -> tuple[str, int] | None:
    """Return the same, and say nothing.

    Raises:
        click.UsageError: If other machines may reach it, and it is served nowhere.
        CommandFailed: If other machines could reach it, and nobody said that they may.
    """
    listen: tuple[str, int] | None = values["api.listen"]
    if listen is None and values["api.beyond_loopback"]:
        raise click.UsageError(
            "api.beyond_loopback: expected only beside api.listen, which says where; received none"
        )
    if listen is None or is_loopback(listen[0]):
        if values["api.beyond_loopback"] and listen is not None:
            raise click.UsageError(
                "api.beyond_loopback: expected only where api.listen names an address that other "
                f"machines reach; received {written_endpoint(*listen)}"
            )
        return listen
    if not values["api.beyond_loopback"]:
        raise CommandFailed(
            "beyond_loopback",
            f"api.listen: expected an address of this machine alone, received {listen[0]}",
            remediation="Who has a token could use it from other machines, and who listens on the "
            "way would have it: say --api-beyond-loopback if that is what you want.",
            exit_code=EXIT_USAGE,
        )
    return listen


def _shared(values: Values, datadir: Path) -> dict[str, Any]:
    network = allowed_network(values)
    check_listeners(values, "metrics.listen", "api.listen")
    return {
        "datadir": datadir.absolute(),
        "network": network,
        "chain": chain_of(values, network),
        "signet_challenge": signet_challenge(values, network),
        "poll_seconds": float(values["chain.poll_seconds"]),
        "fallback_sat_per_kw": sat_per_kw(values["chain.fallback_feerate_sat_per_vb"]),
        "log_level": values["log.level"],
        "log_format": values["log.format"],
        "metrics_listen": values["metrics.listen"],
        "api_listen": api_listen(values),
        "seed_passphrase_file": values["seed.passphrase_file"],
        "backup_dir": _absolute(values["backup.dir"]),
        "mark_dir": _absolute(values["backup.mark_dir"]),
    }


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def allowed_network(values: Values) -> Network:
    """Return the network.

    Raises:
        CommandFailed: If it is mainnet, and that was not allowed.
    """
    network = NETWORKS[values["chain.network"]]
    if network == MAINNET and not values["chain.allow_mainnet"]:
        raise CommandFailed(
            "mainnet_not_allowed",
            "mainnet is refused unless it is allowed: this version has had no outside review",
            remediation="Use regtest, signet or testnet4, or add --allow-mainnet.",
            exit_code=EXIT_USAGE,
        )
    return network


def signet_challenge(values: Values, network: Network) -> str | None:
    """Return the challenge of a signet of one's own, or None.

    Raises:
        click.UsageError: If there is one on another network.
    """
    challenge: str | None = values["chain.signet_challenge"]
    if challenge is not None and network != SIGNET:
        raise click.UsageError(
            f"chain.signet_challenge: expected none on {network.name}, received {challenge}"
        )
    return challenge


def chain_of(values: Values, network: Network) -> ChainOptions:
    """Return where the chain is.

    Raises:
        click.UsageError: If the credentials are half given, or twice.
    """
    return chain_options(
        network,
        url=values["chain.url"],
        cookie=values["chain.cookie"],
        user=values["chain.user"],
        password_file=values["chain.password_file"],
    )


def chain_options(
    network: Network,
    *,
    url: str | None,
    cookie: Path | None,
    user: str | None,
    password_file: Path | None,
) -> ChainOptions:
    """Return where the chain is, with the defaults of bitcoind on this machine.

    Raises:
        click.UsageError: If the credentials are half given, or twice.
    """
    if cookie is None and user is None and password_file is None:
        # Core keeps each network in a directory of its own, and mainnet above them.
        directory = "." if network == MAINNET else network.core_name
        cookie = BITCOIND_HOME / directory / COOKIE_NAME
    try:
        return ChainOptions(
            url=url or f"http://127.0.0.1:{network.rpc_port}",
            cookie_file=None if cookie is None else expanded(cookie).absolute(),
            user=user,
            password_file=None if password_file is None else expanded(password_file).absolute(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def fee_policy_of(label: str) -> FeePolicy:
    """Return the policy of a name that the option let through."""
    return FeePolicy[label.upper()]


def vertex_kind_of(label: str) -> VertexKind:
    """Return the kind of a name that the option let through."""
    return VertexKind[label.upper()]


def tree_feerate_sat_per_kw(policy: FeePolicy, feerate: Decimal | None) -> int:
    """Return the feerate of the tree: the default of its policy, if none was asked for.

    Raises:
        click.UsageError: If the policy cannot have the feerate.
    """
    if policy is FeePolicy.EPHEMERAL:
        if feerate:
            raise click.UsageError(
                f"feerate_sat_per_vb: expected 0 with the fee policy ephemeral, received {feerate}"
            )
        return 0
    if feerate is not None and feerate == 0:
        raise click.UsageError(
            "feerate_sat_per_vb: expected above 0 with the fee policy endogenous"
        )
    return sat_per_kw(FEERATE_DEFAULT_SAT_PER_VB if feerate is None else feerate)


def lsp_policy(values: Values) -> LspPolicy:
    """Return the policy that the values of the section `lsp` describe.

    Raises:
        click.UsageError: If two of them do not go together.
    """
    of = {path.removeprefix("lsp."): value for path, value in values.items()}
    if of["capacity_max_sat"] is None:
        of["capacity_max_sat"] = _LSP.capacity_max_sat
    else:
        check_order("lsp", of, ("capacity_max_sat", "capital_per_client_sat"))
    check_order(
        "lsp",
        of,
        ("capacity_min_sat", "capacity_max_sat"),
        ("capacity_min_sat", "capital_per_client_sat"),
        ("capital_per_client_sat", "capital_per_build_sat"),
        ("capital_per_build_sat", "capital_max_sat"),
        ("min_clients", "max_clients"),
    )
    if of["build_at_clients"] is not None:
        check_order("lsp", of, ("min_clients", "build_at_clients"))
    _check_delays(of)
    policy = _checked_fee_policy(of)
    return LspPolicy(
        capacity_min_sat=of["capacity_min_sat"],
        capacity_max_sat=of["capacity_max_sat"],
        capital_per_client_sat=of["capital_per_client_sat"],
        capital_per_build_sat=of["capital_per_build_sat"],
        capital_max_sat=of["capital_max_sat"],
        allowed_clients=_allowed(of["allowed_clients"]),
        new_joins_per_block=of["new_joins_per_block"],
        min_clients=of["min_clients"],
        max_clients=of["max_clients"],
        build_at_clients=of["build_at_clients"],
        build_every_blocks=of["build_every_blocks"],
        leaf_arity=of["leaf_arity"],
        inner_levels=_inner_levels(of),
        inner_kind=None if of["inner"] is None else vertex_kind_of(of["inner"]),
        step_blocks=of["step_blocks"],
        states_per_layer=of["states"],
        max_exit_delay_blocks=of["max_exit_delay_blocks"],
        active_blocks=of["active_blocks"],
        dying_blocks=of["dying_blocks"],
        ready_min_blocks=of["ready_min_blocks"],
        patience_blocks=of["patience_blocks"],
        fee_policy=policy,
        tree_feerate_sat_per_kw=tree_feerate_sat_per_kw(policy, of["feerate_sat_per_vb"]),
        funding_feerate_sat_per_kw=sat_per_kw(of["funding_feerate_sat_per_vb"]),
        lstock_csv_blocks=_protecting(of, "lstock_csv_blocks"),
        to_self_delay_lsp=_protecting(of, "to_self_delay_lsp_blocks"),
        to_self_delay_client=_protecting(of, "to_self_delay_client_blocks"),
        min_depth=of["min_depth_blocks"],
        pool_size=of["pool_size"],
        funding_candidates=of["funding_candidates"],
        deadline_seconds=of["deadline_seconds"],
        fee_base_msat=of["fee_base_msat"],
        fee_proportional_millionths=of["fee_proportional_millionths"],
        hold_seconds=of["hold_seconds"],
        announced_hold_seconds=of["announced_hold_seconds"],
        failed_channel_blocks=of["failed_channel_blocks"],
        forward_beyond_coverage=of["forward_beyond_coverage"],
        burn_limit=_burn_limit(of),
        dying_policy=_dying_policy(of),
        dying_step_percent=of["dying_step_percent"],
        dying_wait_percent=of["dying_wait_percent"],
    )


def _checked_fee_policy(of: Values) -> FeePolicy:
    if of["funding_feerate_sat_per_vb"] == 0:
        raise click.UsageError("lsp.funding_feerate_sat_per_vb: expected above 0, received 0")
    policy = fee_policy_of(of["fee_policy"])
    if policy is FeePolicy.EPHEMERAL:
        _check_unlimited("lsp", of, *_BURN_LIMITS, where="fee_policy is ephemeral")
    return policy


def _dying_policy(of: Values) -> tuple[DyingStep, ...]:
    steps = tuple(DyingStep(word) for word in of["dying_policy"])
    try:
        check_dying_policy(steps)
    except InvalidDyingPolicy as error:
        raise click.UsageError(f"lsp.dying_policy: {error}") from error
    _check_share(of, steps, "dying_step_percent", (DyingStep.MOVE, DyingStep.CLOSE))
    _check_share(of, steps, "dying_wait_percent", (DyingStep.MOVE,))
    return steps


def _check_share(
    of: Values, steps: Sequence[DyingStep], name: str, needed: Sequence[DyingStep]
) -> None:
    """Check that what was chosen of the dying period is a share for something that is done."""
    missing = [step.value for step in needed if step not in steps]
    if missing and of[name] != getattr(_LSP, name):
        raise click.UsageError(
            f"lsp.{name}: expected the default, {getattr(_LSP, name)}, where dying_policy does not "
            f"name {' and '.join(missing)}; received {of[name]}"
        )


def _check_unlimited(section: str, of: Values, *names: str, where: str) -> None:
    """Check that nothing limits what trees pay that pay nothing: a child's fee has no limit here.

    Raises:
        click.UsageError: Naming the first key that would do nothing.
    """
    for name in names:
        default = _DEFAULTS[f"{section}.{name}"]
        if of[name] != default:
            raise click.UsageError(
                f"{section}.{name}: expected the default, {default}, where {where} and no tree "
                f"pays by itself; received {of[name]}"
            )


def _burn_limit(of: Values) -> BurnLimit:
    return BurnLimit(
        times_estimate=of["max_feerate_times_estimate"], percent=of["max_burnt_percent"]
    )


def _inner_levels(of: Values) -> InnerLevels | None:
    arities, kinds = of["inner_arities"], of["inner_kinds"]
    if arities is None and kinds is None:
        return None
    if arities is None or kinds is None:
        raise click.UsageError(
            "lsp.inner_arities, lsp.inner_kinds: expected both or neither, received "
            f"{'only the kinds' if arities is None else 'only the arities'}"
        )
    if of["inner"] is not None:
        raise click.UsageError(
            f"lsp.inner: expected none where inner_arities and inner_kinds say it all, "
            f"received {of['inner']}"
        )
    levels = InnerLevels(arities=tuple(arities), kinds=tuple(map(vertex_kind_of, kinds)))
    try:
        check_levels(levels)
    except InvalidTerms as error:
        raise click.UsageError(f"lsp.{error}") from error
    return levels


def _allowed(node_ids: Sequence[str] | None) -> frozenset[bytes] | None:
    if node_ids is None:
        return None
    found = frozenset(bytes.fromhex(node_id) for node_id in node_ids)
    for node_id in found:
        if not is_pubkey(node_id):
            raise click.UsageError(
                f"lsp.allowed_clients: expected node ids, received {node_id.hex()}"
            )
    return found


def _check_delays(of: Values) -> None:
    try:
        odometer = Odometer(states_per_layer=of["states"], step_blocks=of["step_blocks"])
    except ValueError as error:
        raise click.UsageError(f"lsp.states, lsp.step_blocks: {error}") from error
    if odometer.delay_max_blocks > of["max_exit_delay_blocks"]:
        raise click.UsageError(
            f"lsp.max_exit_delay_blocks: expected at least one layer's {odometer.delay_max_blocks} "
            f"blocks, received {of['max_exit_delay_blocks']}"
        )
    if of["ready_min_blocks"] > of["active_blocks"]:
        raise click.UsageError(
            f"lsp.ready_min_blocks: expected at most active_blocks, {of['active_blocks']}, "
            f"received {of['ready_min_blocks']}"
        )
    for name in _PROTECTING_DELAYS:
        if of[name] is not None and of[name] < of["step_blocks"]:
            raise click.UsageError(
                f"lsp.{name}: expected at least a step, {of['step_blocks']}, received {of[name]}"
            )


def _protecting(of: Values, name: str) -> int:
    if of[name] is not None:
        return int(of[name])
    return max(int(getattr(_LSP, _PROTECTING_DELAYS[name])), int(of["step_blocks"]))


def client_policy(values: Values) -> ClientPolicy:
    """Return the policy that the values of the section `client` describe.

    Raises:
        click.UsageError: If two of them do not go together.
    """
    of = {path.removeprefix("client."): value for path, value in values.items()}
    if of["max_cltv_blocks_max"] is None:
        of["max_cltv_blocks_max"] = max_cltv_blocks_for(of["max_exit_delay_blocks"])
    pairs = [(f"{name}_min", f"{name}_max") for name in CLIENT_RANGES]
    check_order("client", of, *pairs, ("min_feerate_sat_per_vb", "max_feerate_sat_per_vb"))
    check_client(of)
    if set(of["fee_policies"]) == {FeePolicy.EPHEMERAL.label}:
        limits = ("min_feerate_sat_per_vb", "max_feerate_sat_per_vb", *_BURN_LIMITS)
        _check_unlimited("client", of, *limits, where="fee_policies is ephemeral alone")
    ranges: dict[str, Any] = {
        field: (of[f"{name}_min"], of[f"{name}_max"]) for name, field in CLIENT_RANGES.items()
    }
    return ClientPolicy(
        exit_delay_blocks_max=of["max_exit_delay_blocks"],
        expiry_blocks_max=of["max_expiry_blocks"],
        tree_feerate_sat_per_kw=(
            sat_per_kw(of["min_feerate_sat_per_vb"]),
            sat_per_kw(of["max_feerate_sat_per_vb"]),
        ),
        fee_policies=tuple(fee_policy_of(label) for label in of["fee_policies"]),
        max_clients=of["max_clients"],
        deadline_seconds=of["max_deadline_seconds"],
        build_height_slack_blocks=of["height_slack_blocks"],
        fee_base_msat_max=of["max_fee_base_msat"],
        fee_proportional_millionths_max=of["max_fee_proportional_millionths"],
        failed_channel_blocks=of["failed_channel_blocks"],
        receive_beyond_coverage=of["receive_beyond_coverage"],
        burn_limit=_burn_limit(of),
        when_dying=WhenDying(of["when_dying"]),
        moving_capacity_sat=of["moving_capacity_sat"],
        **ranges,
    )
