"""The commands of the operator's guide do what it says, in its order, on an embedded node."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cromford.daemon.metrics import HELP
from cromford.regtest.node import RegtestNode

BLOCK = re.compile(r"^```(sh|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORTS = ("9332", "9750")
A_WHILE_SECONDS = 800
NUMBER = re.compile(r"`cromford_(\w+)\b")


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/operating.md").read_text(encoding="utf-8")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


@pytest.mark.timeout(900)
@pytest.mark.sampled(0)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide asks its probes with curl")
def test_the_guides_commands_run_in_its_order(page: str, tmp_path: Path) -> None:
    for port in PORTS:
        page = page.replace(f":{port}", f":{free_port()}")
    blocks = BLOCK.findall(page)
    assert [kind for kind, _ in blocks].count("toml") == 1
    (config,) = (text for kind, text in blocks if kind == "toml")
    (tmp_path / "lsp.toml").write_text(config, encoding="utf-8")
    script = "\n".join(["set -euo pipefail", *(text for kind, text in blocks if kind == "sh")])
    here = Path(sys.executable).parent
    with RegtestNode(tmp_path / "node", persist=False) as node:
        environment = {
            **{name: value for name, value in os.environ.items() if "CROMFORD" not in name},
            "PATH": f"{here}:{os.environ['PATH']}",
            "CROMFORD_CHAIN_URL": node.url,
            "CROMFORD_CHAIN_COOKIE": str(node.cookie_file),
            "COLUMNS": "120",
        }
        with (
            (tmp_path / "said").open("w") as output,
            subprocess.Popen(
                ["bash", "-c", script],
                cwd=tmp_path,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as running,
        ):
            try:
                running.wait(A_WHILE_SECONDS)
            finally:
                # A daemon that the script began is in its session, should the script have failed.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
    said = (tmp_path / "said").read_text(encoding="utf-8")
    log = tmp_path / "lsp.log"
    assert running.returncode == 0, said + log.read_text(encoding="utf-8")
    assert said.count("the daemon has stopped") == 3
    assert '"check": "answers"' in said
    assert "cromford_chain_fresh 1.0" in said
    assert (tmp_path / "lsp.backup").stat().st_size > 0
    assert any((tmp_path / "replica").iterdir())
    assert any((tmp_path / "mark").iterdir())
    assert log.read_text(encoding="utf-8").count(" daemon_started ") == 3


def test_every_number_that_is_watched_is_served(page: str) -> None:
    watched = set(NUMBER.findall(page))
    assert len(watched) > 5
    assert watched <= set(HELP)
