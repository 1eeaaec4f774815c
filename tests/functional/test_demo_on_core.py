"""The demo on a real Bitcoin Core: no index, no wallet, and every client's way out."""

import hmac
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient
from tests.functional.node_world import wait_for

DEMO_SECONDS = 100
USER, PASSWORD = "demo", "correct horse battery staple"


@dataclass(frozen=True)
class Core:
    """A bitcoind that takes a cookie, and a user with a password."""

    url: str
    cookie: Path
    password_file: Path

    def height(self) -> int:
        return int(BitcoinCoreRpcClient(self.url, cookie_path=self.cookie).call("getblockcount"))

    def credentials(self, kind: str) -> list[str]:
        if kind == "cookie":
            return ["--chain-cookie", str(self.cookie)]
        return ["--chain-user", USER, "--chain-password-file", str(self.password_file)]


def started(datadir: Path, chain: str, *options: str) -> Iterator[Core]:
    binary = os.environ.get("CROMFORD_BITCOIND")
    if binary is None:
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password_file = datadir / "password"
    password_file.write_text(PASSWORD + "\n", encoding="utf-8")
    digest = hmac.new(b"salt", PASSWORD.encode(), "sha256").hexdigest()
    arguments = [f"-{chain}", f"-datadir={datadir}", f"-rpcport={port}", "-rpcbind=127.0.0.1"]
    arguments += ["-rpcallowip=127.0.0.1", f"-rpcauth={USER}:salt${digest}", "-listen=0"]
    arguments += ["-dnsseed=0", "-fixedseeds=0", "-connect=0", "-prune=550"]
    arguments += options
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    try:
        core = Core(f"http://127.0.0.1:{port}", datadir / chain / ".cookie", password_file)
        wait_for(core.url, core.cookie)
        yield core
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    yield from started(tmp_path_factory.mktemp("core"), "regtest")


@pytest.fixture
def signet(tmp_path: Path) -> Iterator[Core]:
    yield from started(tmp_path, "signet")


def run_demo(core: Core, kind: str, *words: str) -> subprocess.CompletedProcess[str]:
    where = ["--chain-url", core.url, *core.credentials(kind)]
    return subprocess.run(
        [sys.executable, "-P", "-m", "cromford", "demo", "--json", *where, *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEMO_SECONDS,
    )


ABOVE: Final = {"dw": ["kickoff_root", "state_root"], "static": ["static_root"]}


@pytest.mark.parametrize(
    ("leaver", "kind", "inner"), [(1, "cookie", "dw"), (2, "password", "static")]
)
def test_each_client_of_a_factory_on_a_real_chain_leaves_alone_into_its_wallet(
    regtest: Core, tmp_path: Path, leaver: int, kind: str, inner: str
) -> None:
    kept = tmp_path / "kept"
    words = ("--clients", "2", "--arity", "1", "--step-blocks", "3", "--states", "2")
    done = run_demo(
        regtest, kind, *words, "--inner", inner, "--exit", str(leaver), "--keep", str(kept)
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown: dict[str, Any] = json.loads(done.stdout)
    left = shown["exit"]
    kickoff, state = f"kickoff_{leaver - 1}", f"state_{leaver - 1} v1"  # It bought, and then left.
    path = [*ABOVE[inner], kickoff, state]
    assert [tx["name"] for tx in left["transactions"]] == [*path, "commitment", "sweep"]
    height = {tx["name"]: tx["height"] for tx in left["transactions"]}
    assert height[state] - height[kickoff] == 1, "the last state waits for nothing"
    if inner == "dw":
        assert height["state_root"] - height["kickoff_root"] == 3
    assert height["sweep"] - height["commitment"] == 144
    assert height["sweep"] <= regtest.height()
    sale = shown["sale"]
    assert sale["client"] == leaver
    assert left["channel"]["amount_sat"] == sale["capacity_sat"] > 1_000_000
    # What payments and the purchase left to the client is in its wallet, less what the sweep paid.
    payments = shown["payments"]
    assert payments["n"] == 4
    assert payments["earned_msat"] == payments["fees_msat"] > 0
    assert sale["before"]["own_msat"] == payments["accounts"][leaver - 1]["own_msat"]
    assert left["balance_msat"] == sale["after"]["own_msat"]
    coin = left["coin"]
    assert coin["amount_sat"] == left["balance_msat"] // 1000 - coin["fee_sat"] > 0
    assert coin["confirmations"] == 1
    # The node is the user's: nothing of it is kept, and nobody is told to start it.
    assert not (kept / "node").exists()
    assert "node" not in {entry["what"] for entry in shown["explore"]}
    assert not any("regtest" in entry["command"].split()[1:2] for entry in shown["explore"])


def test_a_node_of_another_network_is_refused_before_anything_is_started(signet: Core) -> None:
    done = run_demo(signet, "cookie")
    assert done.returncode == 2
    error = json.loads(done.stderr)
    assert error["message"] == "--chain-url: expected a node on regtest, received one on signet"
