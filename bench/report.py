"""The results: one JSON document for programs, one table for people."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from bench.blocks import BlockRow
from bench.history import StoreRow
from bench.idle import IdleRow
from bench.op import Costs, Op
from bench.processes import n_cores
from bench.rows import Row, Sample
from rich.console import Console
from rich.table import Table

FORMAT: Final = 1
CPUINFO: Final = Path("/proc/cpuinfo")
LOADAVG: Final = Path("/proc/loadavg")
PACKAGES: Final = ("cromford", "btclib-secp256k1", "apsw", "cryptography", "msgspec")


def document(
    rows: Sequence[Row],
    costs: Costs,
    *,
    began: datetime,
    ended: datetime,
    load_before: str,
    stores: Sequence[StoreRow] = (),
    idle: Sequence[IdleRow] = (),
    blocks: Sequence[BlockRow] = (),
) -> dict[str, Any]:
    """Return everything about a run as plain data. Times in milliseconds, costs in microseconds."""
    return {
        "format": FORMAT,
        "unit": "ms",
        "began": began.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": n_cores(),
            "system": platform.platform(),
            "load_average_before": load_before,
            "load_average_after": load_average(),
        },
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "operations_us": {op.value: round(costs[op], 3) for op in Op},
        "rows": [_row(row) for row in rows],
        "stores": [_store(row) for row in stores],
        "idle": [_store(row) for row in idle],
        "blocks": [_store(row) for row in blocks],
    }


def _row(row: Row) -> dict[str, Any]:
    size = row.size
    return {
        "row": row.name,
        "clients": size.n_clients,
        "shape": size.shape_name,
        "layers": size.shape.n_layers,
        "transactions": size.n_transactions,
        "signer_sessions": size.n_signer_sessions,
        "clock": row.clock,
        "median": round(row.median_ms, 4),
        "floor": round(row.floor_ms, 4),
        "ratio": round(row.ratio, 4),
        "per_second": round(1000 / row.median_ms, 2) if row.median_ms else None,
        "runs": [_sample(sample) for sample in row.samples],
        "floor_operations": {op.value: n for op, n in sorted(row.work.items()) if n},
        "floor_shared_by": row.n_sharing,
        "journal_appends": row.n_appends,
    }


def _store(row: StoreRow | IdleRow | BlockRow) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(row).items()
    }


def _sample(sample: Sample) -> dict[str, float]:
    return {"ms": round(sample.ms, 4), "floor": round(sample.floor_ms, 4)}


def write(results: dict[str, Any], directory: Path) -> Path:
    """Write the document to a file named for when it began, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{results['began'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return path


def show(console: Console, results: dict[str, Any]) -> None:
    """Show the operations and a table with all rows."""
    operations = Table(title="libsecp256k1, one operation", title_justify="left")
    operations.add_column("operation")
    operations.add_column("µs", justify="right")
    for name, cost_us in results["operations_us"].items():
        operations.add_row(name, f"{cost_us:.2f}")
    console.print(operations)
    table = Table(title="Medians, and how many times the floor", title_justify="left")
    for heading in ("clients", "shape", "row"):
        table.add_column(heading)
    for heading in ("median ms", "floor ms", "ratio", "appends"):
        table.add_column(heading, justify="right")
    for (clients, shape), group in groupby(
        results["rows"], key=lambda row: (row["clients"], row["shape"])
    ):
        for place, row in enumerate(group):
            size = (str(clients), f"{shape}, {row['transactions']} txs") if place == 0 else ("", "")
            numbers = (f"{row['median']:.1f}", f"{row['floor']:.1f}", f"{row['ratio']:.2f}")
            n_appends = row["journal_appends"]
            appends = "" if n_appends is None else f"{n_appends:.1f}"
            table.add_row(*size, row["row"], *numbers, appends)
        table.add_section()
    if results["rows"]:
        console.print(table)
    if results["stores"]:
        console.print(_stores_table(results["stores"]))
    if results["idle"]:
        console.print(_idle_table(results["idle"]))
    if results["blocks"]:
        console.print(_blocks_table(results["blocks"]))


def _blocks_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="A block of an LSP, CPU", title_justify="left")
    for heading in ("quiet channels", "period", "clients"):
        table.add_column(heading)
    for heading in ("exits", "asked", "first ms", "block ms", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['n_channels']:,}",
            row["period"],
            row["clients"],
            f"{row['n_exits']}",
            f"{row['n_asked']}",
            f"{row['first_ms']:.0f}",
            f"{row['block_ms']:.1f}",
            f"{row['ratio']:.2f}",
        )
    return table


def _idle_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="An LSP with factories in which nothing happens", title_justify="left")
    for heading in ("factories", "start ms", "block ms", "wake ms", "MB", "MB before"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['n_factories']:,}",
            f"{row['start_ms']:.0f}",
            f"{row['block_ms']:.1f}",
            f"{row['wake_ms']:.1f}",
            f"{row['memory_mb']:.0f}",
            f"{row['least_mb']:.0f}",
        )
    return table


def _stores_table(stores: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Stores after {stores[0]['n_payments']} payments", title_justify="left")
    table.add_column("whose")
    for heading in ("start ms", "records", "folded", "MB", "MB in use", "snapshot MB", "breach ms"):
        table.add_column(heading, justify="right")
    for row in stores:
        table.add_row(
            row["name"],
            f"{row['start_ms']:.0f}",
            str(row["n_records"]),
            str(row["n_folded"]),
            f"{row['size_mb']:.1f}",
            f"{row['size_open_mb']:.1f}",
            f"{row['snapshot_mb']:.1f}",
            f"{row['recall_ms']:.1f}",
        )
    return table


def load_average() -> str:
    """Return how many wanted to run in the last 1, 5 and 15 minutes, where the system says so."""
    return " ".join(LOADAVG.read_text().split()[:3]) if LOADAVG.exists() else ""


def _cpu() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
