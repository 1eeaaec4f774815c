"""One client leaves alone: its own daemon, its own store, and the chain."""

from typing import Any, Final

from cromford.demo.building import seconds_for
from cromford.demo.failure import DemoFailed
from cromford.demo.steps import Step, Steps
from cromford.demo.world import Daemon, World

LEAVE_SECONDS: Final = 300.0  # Beside what every step has: the delays are mined for real.
NSEQUENCE_NO_DELAY: Final = 0xFFFFFFFF


def leave(world: World, steps: Steps, exported: dict[str, Any], client: int) -> dict[str, Any]:
    """Publish a client's branch through its real delays; return what is on chain.

    The LSP and all other clients are stopped first: leaving needs nobody.

    Raises:
        DemoFailed: If the channel's output does not confirm as agreed.
    """
    daemon = world.seat(client)
    factory_id = exported["factory_id"]
    seconds = seconds_for(world.site.settings) + LEAVE_SECONDS
    with steps.step("leave", seconds=seconds) as step:
        others = [world.lsp, *(other for other in world.clients if other is not daemon)]
        world.site.children.stop([other.child for other in others])
        step.progress.note(f"stopped: the LSP and every other client, {len(others)} processes")
        daemon.call("exit_start", factory_id=factory_id)
        while _advance(world, daemon, factory_id, step):
            pass
        step.wait_for("the client's own view", lambda: _on_chain(daemon, factory_id))
        published = _published(world, daemon, exported)
        channel = _channel_on_chain(world, daemon, exported, client)
        step.outcome = (
            f"client {client} has its channel output of {channel['amount_sat']:,} sat on chain"
        )
    return {"client": client, "name": daemon.name, "transactions": published, "channel": channel}


def _advance(world: World, daemon: Daemon, factory_id: str, step: Step) -> bool:
    """Mine what the next transaction needs; say whether there was a next one."""
    tip = world.node.height()
    step.wait_for("the client's chain", lambda: (daemon.status() or {})["height"] >= tip or None)
    plan = daemon.call("exit_plan", factory_id=factory_id)
    following = [entry for entry in plan["steps"] if entry["status"] != "confirmed"]
    if not following:
        return False
    entry = following[0]
    if entry["status"] == "wait":
        n_blocks = entry["height"] - tip - 1
        step.progress.update(f"{entry['name']} waits: {n_blocks} blocks are mined")
        world.node.mine(max(1, n_blocks))
        return True
    if entry["status"] != "publish_now":
        raise DemoFailed("exit_stuck", f"{entry['name']}: {plan['next']}")
    step.progress.update(f"{entry['name']} is published")
    txid = entry["txid"]
    step.wait_for(entry["name"], lambda: world.node.has_unconfirmed(txid) or None)
    world.node.mine(1)
    delay = f"after its {entry['delay_blocks']} blocks" if entry["delay_blocks"] else "at once"
    step.progress.note(f"height {world.node.height()}: {entry['name']} confirmed, {delay}")
    return True


def _on_chain(daemon: Daemon, factory_id: str) -> bool | None:
    factory = daemon.newest_factory()
    if factory is None or factory["factory_id"] != factory_id:
        return None
    return True if factory["status"] == "on_chain" else None


def _published(world: World, daemon: Daemon, exported: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the client's own transactions with their heights, as the node tells them.

    Raises:
        DemoFailed: If one is missing, came before its delay, or is not the export's.
    """
    named = {tx["name"]: tx for tx in exported["transactions"]}
    height = world.node.confirmed_height(exported["funding"]["txid"])
    published: list[dict[str, Any]] = []
    for entry in daemon.call("exit_plan", factory_id=exported["factory_id"])["steps"]:
        confirmed = world.node.confirmed_height(entry["txid"])
        tx = named[entry["name"]]
        delay_blocks = 0 if tx["nsequence"] == NSEQUENCE_NO_DELAY else tx["nsequence"]
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
    world: World, daemon: Daemon, exported: dict[str, Any], client: int
) -> dict[str, Any]:
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
