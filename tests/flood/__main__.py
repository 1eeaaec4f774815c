"""Open an LSP's port to everybody: `python -m tests.flood [--seconds 60]`."""

import argparse
import sys

from tests.flood.flood import Outcome, Size, run


def _told(outcome: Outcome) -> str:
    paid = (
        f"payments of honest clients: {outcome.n_paid}, median {outcome.flooded_ms:.0f} ms, "
        f"before the flood {outcome.quiet_ms:.0f} ms, the slowest {outcome.slowest_seconds:.1f} s"
    )
    lsp = (
        f"the LSP: at most {outcome.n_connected_max} connected, {outcome.lsp_busy:.0%} of a core, "
        f"{outcome.lsp_memory_mb:.0f} MB of memory, {outcome.lsp_store_bytes:,} bytes more"
    )
    lines = [
        paid,
        f"payments that failed: {outcome.n_failed}",
        lsp,
        f"the victim: {outcome.victim_store_bytes:,} bytes more",
        *(f"{what}: {count:,}" for what, count in sorted(outcome.seen.items())),
    ]
    return "".join(f"{line}\n" for line in lines)


def main() -> int:
    """Run one flood, print its figures, and say which bounds did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.flood")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it lasts")
    options = parser.parse_args()
    outcome = run(Size(seconds=options.seconds))
    sys.stdout.write(_told(outcome))
    broken = list(outcome.broken())
    for line in broken:
        sys.stdout.write(f"above its bound: {line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
