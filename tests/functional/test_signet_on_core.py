"""A daemon on a signet of one's own, told from the public one by its challenge."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient
from tests.functional.node_world import OPEN_SCRIPT, wait_for

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import SIGNET
from cromford.daemon.api.calling import ApiClient
from cromford.daemon.api.failures import DaemonNotRunning

CHALLENGE = "51"  # Anybody may make a block.
HASHES_MAX = 1_000_000_000  # A block of a signet takes about five million.
PATIENCE_SECONDS = 60


@pytest.fixture
def where(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Start a node with one fresh block, and return how a daemon is told of it."""
    binary = os.environ.get("CROMFORD_BITCOIND")
    if binary is None:
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    datadir = tmp_path / "node"
    datadir.mkdir()
    arguments = ["-signet", f"-signetchallenge={CHALLENGE}", f"-datadir={datadir}"]
    arguments += [f"-rpcport={port}", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-listen=0"]
    arguments += ["-dnsseed=0", "-fixedseeds=0", "-connect=0"]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    try:
        url, cookie = f"http://127.0.0.1:{port}", datadir / "signet" / ".cookie"
        wait_for(url, cookie)
        client = BitcoinCoreRpcClient(url, cookie_path=cookie, timeout=PATIENCE_SECONDS)
        # Without a fresh block the node counts as one that is still catching up.
        address = address_of_script(OPEN_SCRIPT, SIGNET)
        client.call("generatetoaddress", [1, address, HASHES_MAX])
        yield ("--network", "signet", "--chain-url", url, "--chain-cookie", str(cookie))
    finally:
        process.terminate()
        process.wait()


def lsp(datadir: Path, *words: str) -> subprocess.Popen[str]:
    words = ("lsp", "run", "--json", "--listen", "127.0.0.1:0", "--datadir", str(datadir), *words)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cromford", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_daemon_runs_on_a_signet_whose_challenge_it_was_told(
    where: tuple[str, ...], tmp_path: Path
) -> None:
    refused = lsp(tmp_path / "public", *where)
    _, log = refused.communicate(timeout=PATIENCE_SECONDS)
    assert refused.returncode == 1
    error = json.loads(log.splitlines()[-1])
    assert error["code"] == "chain_mismatch"
    assert "signet challenge: expected 512103ad5e" in error["message"]
    assert error["message"].endswith("received 51")

    running = lsp(tmp_path / "own", *where, "--signet-challenge", CHALLENGE)
    try:
        client = ApiClient(tmp_path / "own" / "signet" / "api.sock")
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert running.poll() is None
            assert time.monotonic() < give_up
            # It answers before it has seen a block.
            with contextlib.suppress(DaemonNotRunning):
                status = client.call("status")
                if status["synced"]:
                    break
            time.sleep(0.05)
        assert (status["network"], status["height"]) == ("signet", 1)
        assert status["wallet"]["address"].startswith("tb1p")
    finally:
        running.terminate()
        running.communicate(timeout=PATIENCE_SECONDS)
