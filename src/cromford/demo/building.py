"""From nothing to a factory: start, gather, place, sign, fund, confirm."""

from functools import partial
from typing import Any, Final

from cromford.bitcoin.block import COINBASE_MATURITY
from cromford.demo.accounts import accounts_at_rest
from cromford.demo.failure import DemoFailed
from cromford.demo.node import Node, n_blocks_paying
from cromford.demo.settings import DemoSettings
from cromford.demo.steps import DemoStep, Steps
from cromford.demo.world import DaemonProcess, Site, World, open_node, start_clients, start_lsp
from cromford.factory.terms import FeePolicy
from cromford.regtest.genesis import subsidy_sat

COINS_MAX: Final = 200  # Inputs of one funding transaction, far below a standard one's size.
MARGIN_SAT: Final = 100_000_000  # For fees, anchors and a change worth having.

# A minute is long for one machine; many processes on few cores get more.
STEP_SECONDS: Final = 60.0
STEP_SECONDS_PER_CLIENT: Final = 4.0
COINS_PER_CLIENT: Final = 3  # One for the way out, and for HTLCs that are under way.


def seconds_for(settings: DemoSettings) -> float:
    """Return the deadline of a step that involves every client."""
    return STEP_SECONDS + STEP_SECONDS_PER_CLIENT * settings.n_clients


def start_world(site: Site, steps: Steps) -> World:
    """Start every process, with coins for the LSP.

    Raises:
        DemoFailed: If one of them does not come up in time.
    """
    settings = site.settings
    with steps.step("start", seconds=seconds_for(settings)) as step:
        node = open_node(site, step)
        n_blocks = _n_coins(settings, node) + COINBASE_MATURITY
        step.progress.update("the LSP")
        lsp = start_lsp(site, node)
        status = step.wait_for("the LSP", lambda: _listening(lsp))
        lsp.node_id = status["node_id"]
        node.mine(n_blocks, address=status["wallet"]["address"])
        step.progress.update(f"{settings.n_clients} clients")
        address = f"{lsp.node_id}@{status['listen']}"
        clients = start_clients(site, node, address)
        for client in clients:
            status = step.wait_for(client.name, partial(_in_sync, client))
            client.node_id = status["node_id"]
            if settings.fee_policy is FeePolicy.EPHEMERAL:
                node.mine(COINS_PER_CLIENT, address=status["wallet"]["address"])
        if settings.fee_policy is FeePolicy.EPHEMERAL:
            step.progress.note("every transaction needs a child: each client has coins for them")
            node.mine(COINBASE_MATURITY)
        height = node.height()
        for daemon in (lsp, *clients):
            step.progress.update(f"{daemon.name} reads blocks")
            step.wait_for(daemon.name, partial(_at_height, daemon, height))
        whose = "a node" if settings.chain is None else "on your node"
        step.outcome = f"{whose}, an LSP and {_n_clients(len(clients))}, each a process"
    return World(site=site, node=node, lsp=lsp, clients=clients)


def _listening(lsp: DaemonProcess) -> dict[str, Any] | None:
    status = lsp.status()
    return status if status is not None and status["listen"] else None


def _in_sync(daemon: DaemonProcess) -> dict[str, Any] | None:
    # A daemon answers before its node has answered it; until then it takes no risk.
    status = daemon.status()
    return status if status is not None and status["synced"] else None


def _at_height(daemon: DaemonProcess, height: int) -> dict[str, Any] | None:
    # What is asked for while blocks are still being read is refused: the chain is stale.
    status = _in_sync(daemon)
    return status if status is not None and status["height"] >= height else None


def _n_coins(settings: DemoSettings, node: Node) -> int:
    """Return how many blocks have to pay the LSP.

    Raises:
        DemoFailed: If the chain is so old that its blocks pay too little.
    """
    # An L-stock is half of its leaf's capacities.
    needed_sat = 3 * settings.n_clients * settings.capacity_sat // 2 + MARGIN_SAT
    tip = node.height()
    n_blocks = n_blocks_paying(needed_sat, tip_height=tip, n_blocks_max=COINS_MAX)
    if n_blocks is None:
        raise DemoFailed(
            "chain_too_old",
            f"the LSP needs {needed_sat:,} sat, and at height {tip:,} a block of this regtest "
            f"chain creates {subsidy_sat(tip + 1):,} sat",
            remediation="Start the node with a fresh data directory.",
        )
    return n_blocks


def gather(world: World, steps: Steps) -> None:
    """Bring all clients into the lobby, and coins into the LSP's wallet.

    Raises:
        DemoFailed: If a client is refused, or does not get there in time.
    """
    settings = world.site.settings
    with steps.step("gather", seconds=seconds_for(settings)) as step:
        for client in world.clients:
            client.call("join", capacity_sat=settings.capacity_sat)
        for client in world.clients:
            step.progress.update(client.name)
            step.wait_for(f"{client.name} in the lobby", partial(_joined, client))
        tip = world.node.height()
        step.wait_for("the LSP's coins", lambda: _has_coins(world.lsp, tip))
        step.wait_for("the clients' chains", lambda: _all_at(world.clients, tip))
        waiting = world.lsp.call("lobby")["waiting"]
        for member in waiting:
            name = next(c.name for c in world.clients if c.node_id == member["node_id"])
            step.progress.note(
                f"{name} ({member['node_id'][:12]}) waits for {member['capacity_sat']:,} sat"
            )
        step.outcome = f"{_n_clients(len(waiting))} in the lobby at height {tip}"


def _joined(client: DaemonProcess) -> bool | None:
    status = client.status()
    if status is not None and status["refusal"]:
        raise DemoFailed("join_refused", f"{client.name} was refused: {status['refusal']}")
    return True if status is not None and status["joined"] else None


def _has_coins(lsp: DaemonProcess, tip: int) -> bool | None:
    status = _in_sync(lsp)
    return True if status and status["height"] >= tip and status["wallet"]["free_sat"] else None


def _all_at(daemons: list[DaemonProcess], height: int) -> bool | None:
    heights = [(_in_sync(daemon) or {"height": -1})["height"] for daemon in daemons]
    return True if min(heights) >= height else None


def place(world: World, steps: Steps) -> None:
    """Show where everybody will sit, and why.

    Raises:
        DemoFailed: If the LSP cannot build.
    """
    n_clients = world.site.settings.n_clients
    with steps.step("place", seconds=seconds_for(world.site.settings)) as step:
        plan = world.lsp.call("build", min_clients=n_clients, max_clients=n_clients, dry_run=True)
        seat_clients(world, plan["placed"])
        for seat in plan["placed"]:
            name = world.seat(seat["client"]).name
            step.progress.note(f"client {seat['client']} is {name}: {seat['reason']}")
        step.outcome = f"a funding output of {plan['funding_amount_sat']:,} sat is needed"


def seat_clients(world: World, placed: list[dict[str, Any]]) -> None:
    """Remember who sits where."""
    seats = {seat["node_id"]: seat["client"] for seat in placed}
    for client in world.clients:
        client.client = seats.get(client.node_id, 0)


def sign(world: World, steps: Steps) -> str:
    """Build the factory and sign all of it; return its id once the funding is broadcast.

    Raises:
        DemoFailed: If the ceremony ends without a factory.
    """
    n_clients = world.site.settings.n_clients
    with steps.step("sign", seconds=seconds_for(world.site.settings)) as step:
        world.lsp.call("build", min_clients=n_clients, max_clients=n_clients)
        factory = step.wait_for("every signature", lambda: _funded(world.lsp, step))
        factory_id: str = factory["factory_id"]
        seat_clients(world, world.lsp.call("factory_show", factory_id=factory_id)["placed"])
        step.outcome = "every client holds its whole way out; only now the coins move"
    return factory_id


def _funded(lsp: DaemonProcess, step: DemoStep) -> dict[str, Any] | None:
    factory = lsp.newest_factory()
    if factory is None or factory["status"] == "aborted":
        status = lsp.status()
        if status is not None and status["build"] is None and lsp.newest_factory() == factory:
            reason = (factory or {}).get("aborted") or status["build_dropped"] or "no reason given"
            raise DemoFailed("build_failed", f"the build ended: {reason}")
        return None
    if factory["status"] == "building":
        waits = ", ".join(map(str, factory["holdouts"])) or "nobody"
        step.progress.update(f"{factory['phase'].replace('_', ' ')}, waits for client {waits}")
        return None
    return factory


def fund(world: World, steps: Steps, factory_id: str) -> None:
    """See the funding transaction in the node's mempool.

    Raises:
        DemoFailed: If it does not get there.
    """
    with steps.step("fund", seconds=seconds_for(world.site.settings)) as step:
        funding = world.lsp.call("factory_show", factory_id=factory_id)["funding"]
        txid = funding["txid"]
        step.wait_for("the funding transaction", lambda: world.node.has_unconfirmed(txid) or None)
        step.outcome = f"{funding['amount_sat']:,} sat in transaction {txid}"


def confirm(world: World, steps: Steps, factory_id: str) -> None:
    """Mine the funding transaction deep enough; see every channel open on both sides.

    Raises:
        DemoFailed: If a side does not get ready.
    """
    with steps.step("confirm", seconds=seconds_for(world.site.settings)) as step:
        summary = world.lsp.newest_factory()
        min_depth = 1 if summary is None else int(summary["min_depth"])
        world.node.mine(min_depth)
        step.wait_for("the LSP", lambda: _lsp_ready(world, step))
        for client in world.clients:
            step.progress.update(client.name)
            step.wait_for(f"{client.name}'s channel", partial(_client_live, client, factory_id))
        step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        step.outcome = f"{min_depth} confirmations; all channels are open on both sides"


def _lsp_ready(world: World, step: DemoStep) -> bool | None:
    factory = world.lsp.newest_factory()
    if factory is None:
        return None
    n_ready = factory["ready_clients"]
    step.progress.update(f"{factory['confirmations']} confirmations, {n_ready} clients ready")
    return True if factory["status"] == "live" and n_ready == len(world.clients) else None


def _client_live(client: DaemonProcess, factory_id: str) -> bool | None:
    factory = client.newest_factory()
    if factory is None or factory["factory_id"] != factory_id:
        return None
    if factory["given_up"] or factory["aborted"]:
        raise DemoFailed("factory_unusable", f"{client.name}: {factory['status']}")
    return True if factory["status"] == "live" else None


def verify(world: World, steps: Steps, factory_id: str) -> None:
    """Let every client check everything again, from its own store and the chain.

    Raises:
        DemoFailed: Naming the first check that failed.
    """
    with steps.step("verify", seconds=seconds_for(world.site.settings)) as step:
        n_checks = 0
        for client in world.clients:
            step.progress.update(client.name)
            answer = client.call("verify", factory_id=factory_id)
            failed = [check for check in answer["checks"] if not check["ok"]]
            if not answer["ok"]:
                told = f"{failed[0]['check']}: {failed[0]['detail']}" if failed else "not ok"
                raise DemoFailed("verification_failed", f"{client.name}: {told}")
            n_checks += len(answer["checks"])
        step.outcome = f"{n_checks} checks passed, each from a client's own store and chain"


def _n_clients(n: int) -> str:
    return f"{n} client{'' if n == 1 else 's'}"
