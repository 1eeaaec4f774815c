"""A whole demo: a world is started, builds a factory, pays in it, shows it, and is stopped."""

import contextlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cromford import __version__
from cromford.bitcoin.network import REGTEST
from cromford.demo import building
from cromford.demo.buying import buy_liquidity
from cromford.demo.exiting import leave
from cromford.demo.paying import move_money
from cromford.demo.processes import Children, interruptible
from cromford.demo.settings import DemoSettings, check_settings
from cromford.demo.steps import Progress, Steps
from cromford.demo.world import NODE_NAME, Site, World, explain_loss

EXPORT_NAME: Final = "export.json"
LOGS_NAME: Final = "logs"
PRIVATE_MODE: Final = 0o700

Document = dict[str, Any]


def run_demo(settings: DemoSettings, progress: Progress) -> Document:
    """Build a factory, and pay in it, with real processes; return all there is to show, as data.

    Whatever happens, every process is stopped when this returns or raises, and nothing is left
    behind but the directory that was to be kept.

    Raises:
        DemoFailed: If it cannot be finished, with the reason.
        KeyboardInterrupt: If it was interrupted.
    """
    check_settings(settings)
    began = time.monotonic()
    with interruptible(), _directory(settings) as directory:
        logs = directory / LOGS_NAME
        logs.mkdir()
        with Children(logs) as children:
            steps = Steps(progress, children.check_alive)
            shown: Document = explain_loss(
                children,
                lambda: _build_and_show(
                    Site(settings=settings, directory=directory, children=children), steps
                ),
            )
        if settings.keep is not None:
            text = json.dumps(shown["factory"], indent=2)
            (directory / EXPORT_NAME).write_text(text + "\n", encoding="utf-8")
    shown["seconds"] = round(time.monotonic() - began, 3)
    return shown


@contextlib.contextmanager
def _directory(settings: DemoSettings) -> Iterator[Path]:
    if settings.keep is not None:
        kept = settings.keep.absolute()
        kept.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="cromford-demo-") as temporary:
        yield Path(temporary)


def _build_and_show(site: Site, steps: Steps) -> Document:
    world = building.start_world(site, steps)
    building.gather(world, steps)
    building.place(world, steps)
    factory_id = building.sign(world, steps)
    building.fund(world, steps, factory_id)
    building.confirm(world, steps, factory_id)
    building.verify(world, steps, factory_id)
    exported = world.lsp.call("factory_export", factory_id=factory_id)
    payments = move_money(world, steps, exported)
    is_paid = site.settings.n_payments != 0
    sale = buy_liquidity(world, steps, exported) if is_paid else None
    if sale is not None:  # Its leaf has another state now.
        exported = world.lsp.call("factory_export", factory_id=factory_id)
    shown = _shown(world, exported) | {"payments": payments, "sale": sale}
    if site.settings.exit_client is not None:
        shown["exit"] = leave(world, steps, exported, site.settings.exit_client)
    shown["steps"] = [
        {"name": step.name, "seconds": round(step.seconds, 3), "outcome": step.outcome}
        for step in steps.taken
    ]
    return shown


def _shown(world: World, exported: Document) -> Document:
    factory_id = exported["factory_id"]
    details = world.lsp.call("factory_show", factory_id=factory_id)
    clients = []
    for client in sorted(world.clients, key=lambda daemon: daemon.client):
        summary = client.newest_factory() or {}
        clients.append(
            {
                "client": client.client,
                "name": client.name,
                "node_id": client.node_id,
                "status": summary.get("status"),
                "capacity_sat": summary.get("capacity_sat"),
                "channel_outpoint": summary.get("channel_outpoint"),
                "exit_plan": client.call("exit_plan", factory_id=factory_id),
            }
        )
    kept = world.site.settings.keep
    return {
        "version": __version__,
        "network": REGTEST.name,
        "lsp": {"name": world.lsp.name, "node_id": world.lsp.node_id},
        "clients": clients,
        "placed": details["placed"],
        "summary": {key: details[key] for key in _SUMMARY},
        "factory": exported,
        "exit": None,
        "kept": None if kept is None else str(world.site.directory),
        "explore": [] if kept is None else _commands(world, factory_id),
    }


_SUMMARY: Final = (
    "status",
    "n_clients",
    "expiry_height",
    "blocks_to_expiry",
    "exit_deadline_height",
)


def _commands(world: World, factory_id: str) -> list[Document]:
    """Return how to start everything again from a kept directory, and what to look at then."""
    listen = world.clients[0].arguments[3].partition("@")[2]
    first = min(world.clients, key=lambda daemon: daemon.client)
    lsp_place = ("--datadir", str(world.lsp.datadir))
    client_place = ("--datadir", str(first.datadir))
    lines = [
        *_node_command(world),
        ("the LSP", (*world.lsp.arguments, "--listen", listen)),
        (f"client {first.client}", first.arguments),
        ("the factory", ("lsp", "factory", "show", factory_id[:12], *lsp_place)),
        ("its export", ("lsp", "factory", "export", factory_id[:12], *lsp_place)),
        ("a client's branch", ("client", "factory", *client_place)),
        ("its checks", ("client", "verify", *client_place)),
        ("its money", ("client", "balance", *client_place)),
        ("its payments", ("client", "payments", *client_place)),
        ("its way out", ("client", "exit", "plan", *client_place)),
        ("what liquidity costs", ("lsp", "price", *lsp_place)),
        ("what was sold", ("lsp", "ledger", *lsp_place)),
    ]
    program = _program()
    return [{"what": what, "command": shlex.join([*program, *words])} for what, words in lines]


def _node_command(world: World) -> list[tuple[str, tuple[str, ...]]]:
    if world.site.settings.chain is not None:
        return []  # It is the user's, and still running.
    datadir = world.site.directory / NODE_NAME
    port = world.node.chain.url.rpartition(":")[2]
    return [("the node", ("regtest", "--datadir", str(datadir), "--port", port))]


def _program() -> tuple[str, ...]:
    """Return how the user can start this very program again."""
    beside = Path(sys.executable).with_name("cromford")
    return (str(beside),) if beside.exists() else (sys.executable, "-m", "cromford")
