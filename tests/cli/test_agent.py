"""The agent's commands and the exit packages', as people read them; and when they do not start."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon
from tests.watch.packages import encoded, package
from tests.watch.signed_factory import signed_branches

from cromford.adapters.sqlite import Journal
from cromford.agent import agentd
from cromford.agent.keeping import HeldPackage
from cromford.agent.looking import Sight
from cromford.agent.rounds import Attended
from cromford.agent.views import held_view
from cromford.answers.packages import KeptPackage
from cromford.bitcoin.network import REGTEST, SIGNET
from cromford.cli.configuration import run_options
from cromford.daemon.pairing import open_keychain
from cromford.ports import RelayFeerates
from cromford.regtest.node import RegtestNode
from cromford.watch.package import package_document, package_of
from cromford.watch.package_progress import (
    AwaitDeadline,
    AwaitDelay,
    NothingFound,
    PackageAction,
    PathOnChain,
    PathPlace,
    PublishNow,
)

MADE = package(5, 3)
ID = MADE.package_id.hex()
CHEAP = RelayFeerates(mempool_min_sat_per_kw=25, min_relay_sat_per_kw=25, incremental_sat_per_kw=25)
DEAR = RelayFeerates(
    mempool_min_sat_per_kw=10_000, min_relay_sat_per_kw=25, incremental_sat_per_kw=25
)


def view(
    action: PackageAction,
    *,
    n_confirmed: int = 0,
    refused: str | None = None,
    relay: RelayFeerates = CHEAP,
    begun_height: int | None = None,
) -> KeptPackage:
    sight = Sight(height=700, place=PathPlace(n_confirmed=n_confirmed, height=650))
    if isinstance(action, NothingFound):
        sight = Sight(height=700, place=None)
    held = HeldPackage(package=MADE, begun_height=begun_height)
    return held_view(held, Attended(sight=sight, action=action, refused=refused), relay)


WAITING = view(AwaitDeadline(step=MADE.steps[0], height=1_234))
STATUS = {
    "role": "agent",
    "kind": "coinless",
    "version": "0.1.0",
    "network": "regtest",
    "height": 700,
    "synced": True,
    "chain": {
        "fresh": True,
        "stale_kind": None,
        "stale_since": None,
        "stale_reason": None,
        "node_height": 700,
        "header_height": 700,
    },
    "mempool_min_sat_per_vb": 0.1,
    "datadir": "/home/agent",
    "chain_url": "http://127.0.0.1:18443",
    "n_packages": 1,
    "packages_max": 1_000,
    "n_unreadable": 0,
    "n_publishing": 0,
    "n_refused": 0,
    "next_deadline_height": 1_234,
}
Fake = Callable[[dict[str, Any]], FakeDaemon]


def shown(fake: Fake, words: str, **answers: object) -> str:
    """Return what a person reads; a machine gets the daemon's own document."""
    line = CommandLine(fake(answers).datadir)
    (document,) = answers.values()
    assert line.document(*words.split()) == document
    result = line.run(*words.split())
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_status_says_which_kind_of_agent_it_is(fake: Fake) -> None:
    text = shown(fake, "agent status", status=STATUS)
    assert "without coins: it helps while what a package pays is enough" in text
    assert "1 of at most 1,000" in text
    assert "next deadline      1,234" in text
    stale = STATUS | {"n_unreadable": 2, "height": -1, "mempool_min_sat_per_vb": None}
    stale["chain"] = {**STATUS["chain"], "fresh": False, "stale_reason": "no\x1b answer"}  # type: ignore[dict-item]  # a document
    text = shown(fake, "agent status", status=stale)
    assert "STALE: no? answer" in text
    assert "UNREADABLE" in text


LISTED = [
    (WAITING, "publish kickoff_root at height 1234, the exit deadline"),
    (view(PublishNow(step=MADE.steps[0])), "kickoff_root is published and waits for a block"),
    (
        view(PublishNow(step=MADE.steps[0]), refused="min relay fee not met"),
        "publish kickoff_root again at the next block: the node refused it, min relay fee not met",
    ),
    (
        view(AwaitDelay(step=MADE.steps[1], height=750), n_confirmed=1, begun_height=640),
        "publish state_root, which can be in block 750",
    ),
    (
        view(PathOnChain(height=650, is_channel_spent=False), n_confirmed=6),
        "nothing: the channel's output is on chain since block 650",
    ),
    (
        view(PathOnChain(height=650, is_channel_spent=True), n_confirmed=6),
        "nothing: the channel is on chain, and its output was spent",
    ),
    (view(NothingFound()), "nothing: no output of the path is unspent"),
    (view(PublishNow(step=MADE.steps[0]), relay=DEAR), "TOO LITTLE TODAY"),
]


@pytest.mark.parametrize(("one", "said"), LISTED)
def test_the_list_says_of_each_package_what_is_next(
    fake: Fake, one: dict[str, Any], said: str
) -> None:
    text = shown(fake, "agent list", list={"kind": "coinless", "packages": [one]})
    assert said in text
    assert ID[:12] in text
    assert one["status"].replace("_", " ") in text


def test_an_empty_list_and_a_package_not_yet_looked_at(fake: Fake) -> None:
    assert "no packages" in shown(fake, "agent list", list={"kind": "coinless", "packages": []})
    unseen = held_view(HeldPackage(package=MADE), None, None)
    text = shown(fake, "agent list", list={"kind": "coinless", "packages": [unseen]})
    assert "unseen" in text


def test_adding_and_withdrawing_say_what_became_of_a_package(fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "alice.json"
    file.write_bytes(encoded(MADE))
    text = shown(fake, f"agent add {file}", add=WAITING | {"added": True})
    assert text.startswith("taken\n")
    assert str(MADE.channel_outpoint) in text
    assert shown(fake, f"agent add {file}", add=WAITING | {"added": False}).startswith("held alr")
    gone = {"withdrawn": True, "package_id": ID, "begun_height": None}
    assert "published" not in shown(fake, f"agent withdraw {ID}", withdraw=gone)
    begun = gone | {"begun_height": 1_234}
    text = shown(fake, f"agent withdraw {ID}", withdraw=begun)
    assert "began at height 1,234: what is published stays published" in text


def test_what_is_no_text_is_refused_before_a_daemon_is_asked(fake: Fake, tmp_path: Path) -> None:
    daemon = fake({"add": {}})
    line = CommandLine(daemon.datadir)
    file = tmp_path / "file"
    for data, said in (
        (b"\xff", "package: expected UTF-8"),
        (b" " * 1_100_000, "package: expected at most 1048576 bytes"),
    ):
        file.write_bytes(data)
        result = line.run("agent", "add", str(file), "--json")
        error = json.loads(result.stderr)
        assert (result.exit_code, error["code"]) == (2, "package_invalid")
        assert error["message"].startswith(said)
    result = line.run("agent", "add", str(tmp_path / "nowhere"), "--json")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (4, "package_not_found")
    assert daemon.calls == []


def test_an_endless_file_is_not_read_to_its_end() -> None:
    result = CommandLine(None).run("client", "exit", "broadcast", "/dev/zero", "--yes", "--json")
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"]) == (2, "package_invalid")


def test_a_pause_that_nothing_is_watched_with_is_refused(tmp_path: Path) -> None:
    words = ("client", "exit", "broadcast", str(tmp_path / "nowhere"), "--poll-seconds", "5")
    result = CommandLine(None).run(*words, "--json")
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"]) == (2, "usage")
    assert error["message"] == "--poll-seconds: only --watch has a use for it"
    result = CommandLine(None).run(*words, "--watch", "--json")
    assert json.loads(result.stderr)["code"] == "package_not_found"


def test_a_client_exports_its_package_as_one_document(fake: Fake) -> None:
    document = package_document(MADE)
    daemon = fake({"exit_export": document})
    line = CommandLine(daemon.datadir)
    result = line.run("client", "exit", "export", "f0f0")
    assert json.loads(result.stdout) == document
    assert daemon.calls == [("exit_export", {"factory_id": "f0f0"})]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RegtestNode]:
    with RegtestNode(tmp_path / "node", persist=False) as running:
        yield running


@pytest.fixture
def run(
    tmp_path: Path, node: RegtestNode, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Type a command beside a regtest node; return its exit code and its error."""
    monkeypatch.setattr(agentd, "set_up_logging", lambda **_: None)
    monkeypatch.setattr(run_options, "BITCOIND_HOME", tmp_path)

    def start(*words: str) -> tuple[int, dict[str, Any]]:
        where = ("--chain-url", node.url, "--chain-cookie", str(node.cookie_file))
        result = CommandLine(tmp_path / "d").run(*words, *where, "--json")
        return result.exit_code, json.loads(result.stderr)

    return start


def test_a_node_of_another_network_is_refused(
    run: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    exit_code, error = run("agent", "run", "--network", "signet")
    assert (exit_code, error["code"]) == (1, "chain_mismatch")
    assert error["message"] == "the node does not fit: chain: expected signet, received regtest"
    file = tmp_path / "signet.json"
    made = package_of(signed_branches(2)[0], SIGNET)
    file.write_bytes(msgspec.json.encode(package_document(made)))
    words = ("client", "exit", "broadcast", str(file), "--yes", "--network", "signet")
    exit_code, error = run(*words)
    assert (exit_code, error["code"]) == (1, "chain_mismatch")


def test_mainnet_is_refused_unless_it_is_allowed(
    run: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    file = tmp_path / "alice.json"
    file.write_bytes(encoded(MADE))
    for words in (("agent", "run"), ("client", "exit", "broadcast", str(file), "--yes")):
        exit_code, error = run(*words, "--network", "mainnet")
        assert (exit_code, error["code"]) == (2, "mainnet_not_allowed")


def test_an_agent_does_not_start_in_another_daemons_home(
    run: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    home = tmp_path / "d" / "regtest"
    home.mkdir(parents=True)
    with Journal(home) as journal:
        open_keychain(journal, home, role="client", network=REGTEST, passphrase=None)
        exit_code, error = run("agent", "run", "--network", "regtest")
        assert (exit_code, error["code"]) == (1, "daemon_running")
    exit_code, error = run("agent", "run", "--network", "regtest")
    assert (exit_code, error["code"]) == (1, "datadir_unusable")
    assert "expected the journal of an agent on regtest" in error["message"]


def test_how_many_packages_are_held_is_a_key_of_the_configuration(
    run: Callable[..., tuple[int, dict[str, Any]]],
) -> None:
    exit_code, error = run("agent", "run", "--packages-max", "0")
    assert (exit_code, error["code"]) == (2, "usage")
    assert "packages-max" in error["message"]
