"""One client leaves alone: its own daemon, its own store, and the chain."""

from typing import Any, Final

from cromford.bitcoin.timelock import NSEQUENCE_FINAL
from cromford.demo.building import seconds_for
from cromford.demo.coin import SWEEP, coin_of, taken_out
from cromford.demo.failure import DemoFailed
from cromford.demo.steps import DemoStep, Steps
from cromford.demo.world import DaemonProcess, World

LEAVE_SECONDS: Final = 300.0  # Beside what every step has: the delays are mined for real.
Document = dict[str, Any]


def leave(world: World, steps: Steps, exported: Document, client: int) -> Document:
    """Let a client leave, through all real delays, down to a coin in its own wallet.

    The LSP and all other clients are stopped first: leaving needs nobody, and no coin to begin
    with. Returns what is on chain.

    Raises:
        DemoFailed: If what confirms is not what was agreed, to the satoshi.
    """
    daemon = world.seat(client)
    factory_id = exported["factory_id"]
    seconds = seconds_for(world.site.settings) + LEAVE_SECONDS
    with steps.step("leave", seconds=seconds) as step:
        balance_msat = _balance_msat(daemon, factory_id)
        foretold = daemon.call("exit_plan", factory_id=factory_id)["channel"]
        others = [world.lsp, *(other for other in world.clients if other is not daemon)]
        world.site.children.stop([other.child for other in others])
        step.progress.note(f"stopped: the LSP and every other client, {len(others)} processes")
        daemon.call("exit_start", factory_id=factory_id)
        while (entry := _next_of_branch(world, daemon, factory_id, step)) is not None:
            _bring(world, step, entry)
        step.wait_for("the client's own view", lambda: _on_chain(daemon, factory_id))
        published = _published(world, daemon, exported)
        channel = _channel_on_chain(world, daemon, exported, client)
        txids = _out_of_the_channel(world, daemon, factory_id, step)
        to_self_delay = exported["terms"]["to_self_delay_client"]
        published += taken_out(world.node, txids, to_self_delay=to_self_delay)
        coin = None
        if SWEEP in txids:
            coin = coin_of(world.node, daemon, txids, balance_msat=balance_msat)
        _check_foretold(foretold, txids, coin)
        step.outcome = _outcome(client, balance_msat, coin)
    return {
        "client": client,
        "name": daemon.name,
        "transactions": published,
        "channel": channel,
        "balance_msat": balance_msat,
        "coin": coin,
    }


def _balance_msat(daemon: DaemonProcess, factory_id: str) -> int:
    channels = daemon.call("balance")["channels"]
    own = [channel["own_msat"] for channel in channels if channel["factory_id"] == factory_id]
    return sum(own)


def _plan(world: World, daemon: DaemonProcess, factory_id: str, step: DemoStep) -> Document:
    """Return what the client plans, once it has seen the newest block."""
    tip = world.node.height()
    step.wait_for("the client's chain", lambda: (daemon.status() or {})["height"] >= tip or None)
    plan: Document = daemon.call("exit_plan", factory_id=factory_id)
    return plan


def _next_of_branch(
    world: World, daemon: DaemonProcess, factory_id: str, step: DemoStep
) -> Document | None:
    plan = _plan(world, daemon, factory_id, step)
    waiting = (entry for entry in plan["steps"] if entry["status"] != "confirmed")
    return next(waiting, None)


def _bring(world: World, step: DemoStep, entry: Document) -> None:
    """Mine what a transaction waits for, or the transaction itself.

    Raises:
        DemoFailed: If it waits for anything else, or does not get to the node.
    """
    name, tip = entry["name"], world.node.height()
    if entry["status"] == "wait":
        n_blocks = entry["height"] - tip - 1
        step.progress.update(f"{name} waits: {n_blocks} blocks are mined")
        world.node.mine(max(1, n_blocks))
        return
    if entry["status"] != "publish_now":
        raise DemoFailed("exit_stuck", f"{name}: {entry['status'].replace('_', ' ')}")
    step.progress.update(f"{name} is published")
    step.wait_for(name, lambda: world.node.has_unconfirmed(entry["txid"]) or None)
    world.node.mine(1)
    step.progress.note(f"height {tip + 1}: {name} confirmed")


def _out_of_the_channel(
    world: World, daemon: DaemonProcess, factory_id: str, step: DemoStep
) -> dict[str, str]:
    """Publish what takes the client's money out of its channel; return the txids by name."""
    txids: dict[str, str] = {}
    while due := _plan(world, daemon, factory_id, step)["due"]:
        entry = due[0]
        _bring(world, step, entry)
        if entry["txid"] is not None:
            txids[entry["name"]] = entry["txid"]
    return txids


def _check_foretold(foretold: Document, txids: dict[str, str], coin: Document | None) -> None:
    """Compare what was published with what the client had planned before anything was."""
    names = [entry["name"] for entry in foretold["steps"]]
    received_sat = 0 if coin is None else coin["amount_sat"]
    for what, expected, received in (
        ("transactions", names, list(txids)),
        ("amount in the wallet", foretold["exit_sat"], received_sat),
    ):
        if expected != received:
            raise DemoFailed("exit_wrong", f"{what}: expected {expected}, received {received}")


def _outcome(client: int, balance_msat: int, coin: Document | None) -> str:
    if coin is None:
        return (
            f"client {client}'s exit ends at its confirmed commitment: there its "
            f"{balance_msat:,} msat are not worth an output and what it takes to spend it"
        )
    return (
        f"client {client} has {coin['amount_sat']:,} sat in its own wallet: its balance of "
        f"{coin['balance_sat']:,} sat, less {coin['fee_sat']:,} sat for the sweep"
    )


def _on_chain(daemon: DaemonProcess, factory_id: str) -> bool | None:
    factory = daemon.newest_factory()
    if factory is None or factory["factory_id"] != factory_id:
        return None
    return True if factory["status"] == "on_chain" else None


def _published(world: World, daemon: DaemonProcess, exported: Document) -> list[Document]:
    """Return the client's own transactions with their heights, as the node tells them.

    Raises:
        DemoFailed: If one is missing, came before its delay, or is not the export's.
    """
    named = {tx["name"]: tx for tx in exported["transactions"]}
    height = world.node.confirmed_height(exported["funding"]["txid"])
    published: list[Document] = []
    for entry in daemon.call("exit_plan", factory_id=exported["factory_id"])["steps"]:
        confirmed = world.node.confirmed_height(entry["txid"])
        tx = named[entry["name"]]
        delay_blocks = 0 if tx["nsequence"] == NSEQUENCE_FINAL else tx["nsequence"]
        if height is None or confirmed is None or tx["txid"] != entry["txid"]:
            raise DemoFailed("exit_wrong", f"{entry['name']} is not on chain as exported")
        if confirmed - height < delay_blocks:
            raise DemoFailed(
                "exit_wrong",
                f"{entry['name']} came {confirmed - height} blocks after its parent, "
                f"its delay is {delay_blocks}",
            )
        height = confirmed
        published.append(
            {
                "name": entry["name"],
                "txid": entry["txid"],
                "height": confirmed,
                "delay_blocks": delay_blocks,
            }
        )
    return published


def _channel_on_chain(
    world: World, daemon: DaemonProcess, exported: Document, client: int
) -> Document:
    """Return the client's channel output as the node has it, having compared it.

    Raises:
        DemoFailed: If its place, its amount or its script is not the agreed one.
    """
    txid, vout, agreed = next(
        (tx["txid"], vout, output)
        for tx in exported["transactions"]
        for vout, output in enumerate(tx["outputs"])
        if output["kind"] == "channel" and output["client"] == client
    )
    outpoint = f"{txid}:{vout}"
    output = world.node.output(txid, vout)
    summary = daemon.newest_factory() or {}
    if output is None or summary.get("channel_outpoint") != outpoint:
        raise DemoFailed("exit_wrong", f"the channel output {outpoint} is not on chain")
    for field in ("amount_sat", "script_pubkey"):
        if output[field] != agreed[field]:
            raise DemoFailed(
                "exit_wrong",
                f"channel {field}: expected {agreed[field]}, received {output[field]}",
            )
    return {"outpoint": outpoint, "descriptor": agreed["descriptor"], **output}
