"""What people read of a chain that is not fresh, and of transactions the node does not take."""

from typing import Any

import pytest
from tests.cli import answers, world_answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

STALE = {
    **world_answers.CHAIN,
    "fresh": False,
    "stale_kind": "node_silent",
    "stale_since": 1_700_000_000,
    "stale_reason": "the node has not answered since 2023-11-14 22:13:20 UTC: timed out",
}
REFUSED = {
    "name": "funding",
    "txid": answers.FUNDING_TXID,
    "reason": "mempool min fee not met",
    "first_height": 118,
    "height": 120,
    "count": 3,
}
TOLD = "funding 111111111111, mempool min fee not met (3 times since height 118)"


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_the_status_says_since_when_and_why_the_chain_is_stale(fake: Any, role: str) -> None:
    status = answers.LSP_STATUS if role == "lsp" else answers.CLIENT_STATUS
    fresh = CommandLine(fake({"status": status}).datadir).run(role, "status").stdout
    assert ["chain", "is", "fresh"] in [line.split() for line in fresh.splitlines()]
    stale = fake({"status": {**status, "synced": False, "chain": STALE, "refused": [REFUSED]}})
    shown = CommandLine(stale.datadir).run(role, "status").stdout
    assert f"STALE since 2023-11-14 22:13:20 UTC: {STALE['stale_reason']}" in shown
    assert f"refused by the node  {TOLD}" in shown


@pytest.mark.parametrize(
    ("words", "method", "answer", "told"),
    [
        (
            "lsp factories",
            "factories",
            {"factories": [answers.lsp_summary(status="funding", refused=[REFUSED])]},
            "funding, the node refuses funding: mempool min fee not met",
        ),
        (
            "client factories",
            "factories",
            {"factories": [answers.client_summary(status="exiting", refused=[REFUSED])]},
            "exiting, the node refuses funding: mempool min fee not met",
        ),
        (
            f"lsp factory show {answers.FACTORY_ID}",
            "factory_show",
            {**answers.SHOWN, "refused": [REFUSED]},
            f"refused by the node: {TOLD}",
        ),
        (
            "client factory",
            "factory",
            {**answers.BRANCH, "refused": [REFUSED]},
            f"refused by the node: {TOLD}",
        ),
        (
            "lsp wallet balance",
            "wallet_balance",
            {**world_answers.BALANCE, "refused": [REFUSED]},
            f"refused by the node  {TOLD}",
        ),
    ],
)
def test_every_view_names_what_the_node_refuses(
    fake: Any, words: str, method: str, answer: dict[str, Any], told: str
) -> None:
    result = CommandLine(fake({method: answer}).datadir).run(*words.split())
    assert told in result.stdout, result.output


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_a_rescan_passes_on_its_height(lsp: FakeDaemon, client: FakeDaemon, role: str) -> None:
    daemon = lsp if role == "lsp" else client
    line = CommandLine(daemon.datadir)
    assert line.document(role, "rescan", "--from", "1002") == answers.RESCAN
    shown = line.run(role, "rescan", "--from", "1002").stdout
    assert "from height 1,002 to 1,234" in shown
    assert daemon.calls == [("rescan", {"from_height": 1_002})] * 2
    assert line.run(role, "rescan").exit_code == 2
    assert line.run(role, "rescan", "--from", "0").exit_code == 2


@pytest.mark.parametrize(("node_id", "who"), [(answers.NODE_ID, "peer 02abababab"), (None, "a re")])
def test_the_status_tells_of_a_decision_that_failed(
    fake: Any, node_id: str | None, who: str
) -> None:
    failed = {
        "event": "CommitmentSigned",
        "error": "DoubleSigning",
        "place": "steps.py:212",
        "alarm": True,
        "node_id": node_id,
        "first_time": 1_700_000_000,
        "last_time": 1_700_000_000,
        "count": 2,
    }
    told = fake({"status": {**answers.LSP_STATUS, "failed_decisions": [failed]}})
    shown = CommandLine(told.datadir).run("lsp", "status").stdout
    assert "a second signature was PREVENTED; DoubleSigning at steps.py:212" in shown
    assert f"about CommitmentSigned of {who}" in shown
    assert "(2 times, last 2023-11-14 22:13:20 UTC)" in shown
