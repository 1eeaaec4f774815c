"""Ask running daemons what their OpenAPI documents allow, and what they do not.

Schemathesis draws requests from the documents of an LSP and of a client, in a town with one
factory, sends them by TCP with a token for everything, and checks each answer against the document.
What would end the daemon, or write where it likes, is left out.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from tests.daemon.test_payments import with_money
from tests.daemon.town import Town, town

LEFT_OUT: Final = ("stop", "backup_create", "exit_start")
# Whatever a schema allows may be refused all the same: money is short, a factory is not there.
CHECKS_LEFT_OUT: Final = "positive_data_acceptance"


async def check(t: Town, name: str, *, examples: int, seed: int) -> int:
    """Return how the run against one daemon ended: 0 if every answer was as its document says."""
    daemon, _ = t.running[name]
    operator = ApiClient(t.base / name / "regtest" / SOCKET_NAME)
    token = await asyncio.to_thread(operator.call, "token_add", name="all", scopes=["operate"])
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"http://127.0.0.1:{daemon.api.tcp_port}/openapi.json",
        *("--header", f"Authorization: Bearer {token['token']}"),
        *("--max-examples", str(examples), "--seed", str(seed), "--workers", "1"),
        *("--exclude-checks", CHECKS_LEFT_OUT, "--request-timeout", "90", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
        *(part for one in LEFT_OUT for part in ("--exclude-operation-id", one)),
    ]
    print(f"{name}: seed {seed}", flush=True)  # noqa: T201 - a report
    return await asyncio.to_thread(lambda: subprocess.run(command, check=False).returncode)


async def main(*, examples: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as base:
        async with town(Path(base)) as t:
            await t.stop("lsp")
            t.more = {name: {"api_listen": ("127.0.0.1", 0)} for name in ("lsp", "alice")}
            await t.start_lsp()
            await with_money(t)
            ended = [await check(t, one, examples=examples, seed=seed) for one in ("lsp", "alice")]
            # Neither is any worse for it.
            await t.call("lsp", "status")
            await t.call("alice", "status")
            return max(ended)


def run() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.contract")
    parser.add_argument("--examples", type=int, default=20, help="Of each operation.")
    parser.add_argument("--seed", type=int, default=None, help="Draws the same requests again.")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    sys.exit(asyncio.run(main(examples=asked.examples, seed=seed)))


if __name__ == "__main__":
    run()
