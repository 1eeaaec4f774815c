"""Keys that are as they should be alone, and not together: a start and a check find the same."""

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from cromford.cli import daemons

LSP = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798@127.0.0.1:9750"

OF_AN_LSP = [
    (
        "min_clients = 3\nstrangers_max = 2",
        "lsp.min_clients: expected at most strangers_max, 2, received 3",
    ),
    (
        "min_clients = 17",
        (
            "lsp.connections_per_address: expected at least min_clients, 17, where listen, "
            "127.0.0.1:9750, is reached from one address alone, or no factory is ever built; "
            "received 16"
        ),
    ),
    (
        "build_at_clients = 8\nstrangers_max = 7",
        "lsp.build_at_clients: expected at most strangers_max, 7, received 8",
    ),
    (
        "hold_seconds = 60\nannounced_hold_seconds = 59",
        (
            "lsp.announced_hold_seconds: expected 0 or at least hold_seconds, 60, which every "
            "payment waits for; received 59"
        ),
    ),
    (
        "min_clients = 3\ncapital_per_build_sat = 59999\ncapital_per_client_sat = 20000",
        (
            "lsp.capital_per_build_sat: expected at least 60000, min_clients, 3, channels of "
            "20000, or no factory is ever built; received 59999"
        ),
    ),
    (
        "capacity_max_sat = 20000\nfeerate_sat_per_vb = 20",
        (
            "lsp.capacity_max_sat: expected at least 88140, or a channel could not bear its fees "
            "at feerate_sat_per_vb; received 20000"
        ),
    ),
    (
        "capital_per_client_sat = 88139\nfeerate_sat_per_vb = 20",
        "lsp.capital_per_client_sat: expected at least 88140, or a channel could not bear its",
    ),
    (
        "capacity_min_sat = 88139\nfeerate_sat_per_vb = 20",
        "lsp.capacity_min_sat: expected at least 88140, or a channel could not bear its fees at",
    ),
    (
        "capacity_max_sat = 10000001",
        "lsp.capacity_max_sat: expected at most capital_per_client_sat, 10000000, received",
    ),
    (
        "max_clients = 5\nbuild_at_clients = 6",
        "lsp.build_at_clients: expected at most max_clients, 5, received 6",
    ),
    (
        "max_clients = 13\ninner_arities = [2, 3]\ninner_kinds = ['dw', 'dw']",
        (
            "lsp.max_clients: no factory of 13 clients could ever be built: inner_arities: "
            "expected levels enough for leaves of at most 2 clients, received [2, 3], which "
            "leaves 3 clients"
        ),
    ),
    (
        "max_clients = 4\ninner_arities = [2, 3]\ninner_kinds = ['dw', 'dw']",
        "lsp.inner_arities: expected 1 level, all that max_clients, 4, needs; received [2, 3]",
    ),
    (
        "min_clients = 300\nmax_clients = 300\nleaf_arity = 300",
        "lsp.min_clients: no factory of 300 clients could ever be built: state_",
    ),
    (
        "max_clients = 85\nleaf_arity = 85\nstates = 63\nstep_blocks = 1",
        (
            "lsp.max_clients: no factory of 85 clients could ever be built: states_per_layer: "
            "expected at most 57 in leaves of 85 clients, by the message that tells them, "
            "received 63"
        ),
    ),
    (
        "ready_min_blocks = 2016\nactive_blocks = 2159",
        (
            "lsp.patience_blocks: expected at most 143, active_blocks less ready_min_blocks: of a "
            "funding that confirms later nobody has any use; received 144"
        ),
    ),
    (
        "ready_min_blocks = 2016\nactive_blocks = 2016",
        "lsp.patience_blocks: expected at most 0, active_blocks less ready_min_blocks",
    ),
    (
        "dying_step_percent = 20",
        "lsp.dying_wait_percent: expected at most dying_step_percent, 20, received 25",
    ),
    (
        "dying_policy = ['close', 'move']\ndying_step_percent = 80",
        (
            "lsp.dying_wait_percent: expected at most 20, what dying_step_percent, 80, leaves of "
            "the dying period; received 25"
        ),
    ),
    (
        "dying_blocks = 287",
        (
            "lsp.dying_blocks: expected 144 left for a close after dying_step_percent, 50, of it, "
            "or the clients are never asked for one; received 287"
        ),
    ),
    (
        "dying_policy = ['close', 'sweep']\ndying_blocks = 143",
        (
            "lsp.dying_blocks: expected 144 left for a close, or the clients are never asked for "
            "one; received 143"
        ),
    ),
    (
        "pool_size = 256\nfunding_candidates = 4",
        (
            "lsp.pool_size: expected pools that fit one message with those of funding_candidates, "
            "4, or nobody can join; received 256"
        ),
    ),
    (
        "listen = '127.0.0.1:9000'\n[metrics]\nlisten = '127.0.0.1:9000'",
        (
            "metrics.listen: expected another address or port than that of lsp.listen, "
            "127.0.0.1:9000, received 127.0.0.1:9000"
        ),
    ),
    (
        "listen = '0.0.0.0:9000'\nannounce = 'a.example:1'\n[api]\nlisten = '127.0.0.1:9000'",
        "api.listen: expected another address or port than that of lsp.listen, 0.0.0.0:9000",
    ),
    (
        "listen = '[::]:9000'\nannounce = 'a.example:1'\n[api]\nlisten = '127.0.0.1:9000'",
        "api.listen: expected another address or port than that of lsp.listen, [::]:9000",
    ),
]
OF_A_CLIENT = [
    (
        "ready_min_blocks_min = 2000\nactive_blocks_max = 1999",
        "client.ready_min_blocks_min: expected at most active_blocks_max, 1999, received 2000",
    ),
    (
        "step_blocks_min = 300\nto_self_delay_blocks_max = 299",
        "client.step_blocks_min: expected at most to_self_delay_blocks_max, 299, received 300",
    ),
    (
        "step_blocks_min = 300\nlstock_csv_blocks_max = 299",
        "client.step_blocks_min: expected at most lstock_csv_blocks_max, 299, received 300",
    ),
    (
        "step_blocks_min = 1000\nstates_min = 3\nmax_exit_delay_blocks = 1999",
        (
            "client.max_exit_delay_blocks: expected at least 2000, one layer of states_min, 3, and "
            "step_blocks_min, 1000, or no terms are ever signed; received 1999"
        ),
    ),
    (
        "active_blocks_min = 2000\ndying_blocks_min = 200\nmax_expiry_blocks = 2199",
        (
            "client.max_expiry_blocks: expected at least 2200, active_blocks_min, 2000, and "
            "dying_blocks_min, 200, or no terms are ever signed; received 2199"
        ),
    ),
    (
        "[metrics]\nlisten = '[::1]:9000'\n[api]\nlisten = '[::1]:9000'",
        "api.listen: expected another address or port than that of metrics.listen, [::1]:9000",
    ),
]


def refusals(tmp_path: Path, role: str, text: str) -> tuple[str, str]:
    """Return what a check says of a file, and what a start with it."""
    path = tmp_path / "config.toml"
    path.write_text(f"[{role}]\n{text}\n", encoding="utf-8")
    line = CommandLine(tmp_path)
    words = ("client", "run", "--lsp", LSP) if role == "client" else ("lsp", "run")
    checked, started = line.run("config", "check"), line.run(*words)
    assert (checked.exit_code, started.exit_code) == (2, 2), checked.output + started.output
    return checked.stderr.replace("\n", " "), started.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("role", "text", "told"),
    [
        *(("lsp", text, told) for text, told in OF_AN_LSP),
        *(("client", text, told) for text, told in OF_A_CLIENT),
    ],
)
def test_what_does_not_go_together_is_found_by_a_check_and_by_a_start(
    tmp_path: Path, role: str, text: str, told: str
) -> None:
    for said in refusals(tmp_path, role, text):
        assert told in said


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("lsp", "announced_hold_seconds = 0"),
        ("lsp", "min_clients = 3\nstrangers_max = 3"),
        ("lsp", "min_clients = 17\nconnections_per_address = 17"),
        ("lsp", "min_clients = 17\nlisten = '0.0.0.0:9750'\nannounce = '192.0.2.1:9750'"),
        ("lsp", "hold_seconds = 60\nannounced_hold_seconds = 60"),
        ("lsp", "min_clients = 3\ncapital_per_build_sat = 60000\ncapital_per_client_sat = 20000"),
        ("lsp", "capacity_max_sat = 10000000"),
        ("lsp", "capacity_min_sat = 88140\nfeerate_sat_per_vb = 20"),
        ("lsp", "feerate_sat_per_vb = 20"),
        ("lsp", "capital_per_client_sat = 30000"),
        ("lsp", "max_clients = 12\ninner_arities = [2, 3]\ninner_kinds = ['dw', 'dw']"),
        ("lsp", "ready_min_blocks = 2016\nactive_blocks = 2160"),
        ("lsp", "dying_blocks = 288"),
        ("lsp", "dying_policy = ['move', 'sweep']\ndying_blocks = 144"),
        ("lsp", "dying_policy = ['close', 'move']\ndying_step_percent = 75\ndying_blocks = 144"),
        ("lsp", "pool_size = 256\nfunding_candidates = 2"),
        ("lsp", "listen = '127.0.0.1:0'\n[metrics]\nlisten = '127.0.0.1:0'"),
        ("lsp", "listen = '127.0.0.2:9000'\n[metrics]\nlisten = '127.0.0.1:9000'"),
        ("client", "step_blocks_min = 1000\nstates_min = 2\nmax_exit_delay_blocks = 1000"),
        ("client", "active_blocks_min = 2000\ndying_blocks_min = 200\nmax_expiry_blocks = 2200"),
    ],
)
def test_what_just_goes_together_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, text: str
) -> None:
    begun: list[object] = []
    monkeypatch.setattr(daemons, f"run_{role}", begun.append)
    (tmp_path / "config.toml").write_text(f"[{role}]\n{text}\n", encoding="utf-8")
    words = ("client", "run", "--lsp", LSP) if role == "client" else ("lsp", "run")
    result = CommandLine(tmp_path).run(*words)
    assert result.exit_code == 0, result.stderr
    assert len(begun) == 1
    checked = CommandLine(tmp_path).run("config", "check")
    assert checked.exit_code == 0, checked.stderr


@pytest.mark.parametrize(("network", "is_refused"), [("regtest", False), ("signet", True)])
def test_a_policy_that_no_usual_client_signs_is_refused_but_on_regtest(
    tmp_path: Path, network: str, *, is_refused: bool
) -> None:
    (tmp_path / "config.toml").write_text("[lsp]\nstep_blocks = 36\n", encoding="utf-8")
    checked = CommandLine(tmp_path).run("--network", network, "config", "check")
    assert (checked.exit_code == 2) is is_refused, checked.stderr
    told = "no factory of 2 clients could ever be built: step_blocks: expected 72..1008"
    assert (told in checked.stderr) is is_refused


@pytest.mark.parametrize(("seconds", "is_warned"), [(60, False), (61, True)])
def test_an_lsp_that_waits_longer_than_usual_clients_do_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, *, is_warned: bool
) -> None:
    """Both sides may have raised it, so it is not refused."""
    begun: list[object] = []
    monkeypatch.setattr(daemons, "run_lsp", begun.append)
    (tmp_path / "config.toml").write_text(
        f"[lsp]\ndeadline_seconds = {seconds}\n", encoding="utf-8"
    )
    for words in (("config", "check"), ("lsp", "run")):
        result = CommandLine(tmp_path).run(*words)
        assert result.exit_code == 0, result.stderr
        told = "WARNING: lsp.deadline_seconds, 61, is more than the 60 s that clients wait"
        assert (told in result.stderr.replace("\n", " ")) is is_warned
    assert len(begun) == 1
