"""Errors: where they go, what they say, what the command ends with."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli import answers, exit_answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli.failures import problem_of
from cromford.daemon.api.calling import ApiClient
from cromford.daemon.api.failures import ApiFailure
from cromford.regtest.node import RegtestNode

# A point on the curve: the generator.
LSP = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798@127.0.0.1:9750"


def refuse(failure: ApiFailure) -> Any:
    def answer(_params: dict[str, Any]) -> object:
        raise failure

    return answer


def test_without_a_daemon_the_error_says_what_to_do(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("lsp", "status")
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f"error: no daemon listens on {tmp_path}/regtest/api.sock"
    assert second.startswith("Start the daemon")


def test_with_json_the_error_is_one_object_on_stderr(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("lsp", "status", "--json")
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert set(error) == {"code", "message", "retryable", "remediation"}
    assert error["code"] == "daemon_not_running"
    assert error["retryable"] is True


@pytest.mark.parametrize(
    ("failure", "exit_code"),
    [
        (ApiFailure("too_few_clients", "1 waits", retryable=True), 1),
        (ApiFailure("invalid_param", "capacity_sat: expected int"), 2),
        (ApiFailure("chain_refused", "wrong password", exit_code=3), 3),
        (ApiFailure("factory_not_found", "no factory", exit_code=4), 4),
        (ApiFailure("needs_confirmation", "say yes", exit_code=5), 5),
    ],
)
def test_the_exit_code_tells_what_kind_of_failure_it_was(
    fake: Any, failure: ApiFailure, exit_code: int
) -> None:
    daemon = fake({"lobby": refuse(failure)})
    result = CommandLine(daemon.datadir).run("lsp", "lobby", "--json")
    assert result.exit_code == exit_code
    assert json.loads(result.stderr) == {
        "code": failure.code,
        "message": failure.message,
        "retryable": failure.retryable,
        "remediation": "",
    }


USAGE_ERRORS = [
    ("lsp nonsense", "No such command"),
    ("lsp build --min 3 --max 2", "--min 3 is above --max 2"),
    ("lsp build --min 0", "0 is not in the range"),
    ("lsp lobby --network mars", "expected one of regtest, signet, testnet4"),
    ("client join", "Missing option '--capacity-sat'"),
    ("client join --capacity-sat 5 --least-sat 6", "--least-sat 6 is above --capacity-sat 5"),
    ("client run --lsp nobody", "no @ in 'nobody'"),
    (f"client run --lsp 0211@{'h'}:1", "expected 66 hex digits"),
    ("lsp run --listen 9750", "expected HOST:PORT"),
    ("lsp run --listen 127.0.0.1:70000", "expected HOST:PORT"),
    ("lsp run --inner-arities 2,1", "expected a whole number in 2..1024, received 1"),
    ("lsp run --inner-arities two", 'expected a whole number in 2..1024, received "two"'),
    ("lsp run --min-clients 0", "expected a whole number in 1..1024, received 0"),
    (
        "lsp run --min-clients 5 --max-clients 4",
        "lsp.min_clients: expected at most max_clients, 4, received 5",
    ),
    (
        "lsp run --capacity-min-sat 5 --capacity-max-sat 4",
        "lsp.capacity_min_sat: expected at most capacity_max_sat, 4, received 5",
    ),
    ("lsp run --feerate-sat-per-vb 0", "feerate_sat_per_vb: expected above 0"),
    ("lsp run --feerate-sat-per-vb 0.01", "expected 0 or a number in 0.1..1000, received 0.01"),
    ("lsp run --feerate-sat-per-vb nan", "expected 0 or a number in 0.1..1000, received NaN"),
    ("lsp run --feerate-sat-per-vb much", 'expected 0 or a number in 0.1..1000, received "much"'),
    (
        "lsp run --fee-policy ephemeral --feerate-sat-per-vb 1",
        "expected 0 with the fee policy ephemeral",
    ),
    ("lsp run --fee-policy none", 'expected one of endogenous, ephemeral, received "none"'),
    ("lsp run --funding-feerate-sat-per-vb 0", "lsp.funding_feerate_sat_per_vb: expected above 0"),
    (
        "lsp run --min-clients 5 --build-at-clients 4",
        "lsp.min_clients: expected at most build_at_clients, 4, received 5",
    ),
    ("lsp run --lstock-csv-blocks 10", "lstock_csv_blocks: expected at least a step, 144"),
    (
        "lsp run --ready-min-blocks 13000",
        "expected at most active_blocks, 12960, received 13000",
    ),
    ("lsp run --signet-challenge 51", "signet_challenge: expected none on regtest, received 51"),
    ("lsp run --signet-challenge xyz", "expected 1 to 10000 bytes in hex"),
    ("client run", "client.lsp: expected NODEID@HOST:PORT"),
    ("client run --max-feerate-sat-per-vb 0", "expected a number in 0.1..1000, received 0"),
    ("client wallet send bcrt1q 0", "expected a whole number in 1..2100000000000000, received 0"),
    ("client wallet send bcrt1q everything", ", or all"),
    ("client wallet send bcrt1q", "Missing argument 'AMOUNT_SAT|all'"),
    ("lsp run --step-blocks 500", "expected at least one layer's 1500 blocks"),
    ("lsp run --step-blocks 60000", "at most 65535 (BIP 68)"),
    ("lsp run --chain-user me", "a user and a password file go together"),
    ("lsp run --chain-cookie c --chain-user me --chain-password-file f", "either a cookie file"),
    ("demo --clients 0", "0 is not in the range"),
    ("demo --clients 4 --exit 5", "expected a client in 1..4, received 5"),
    ("demo --clients 4 --max-exit-delay-blocks 500", "at least the slowest path's 864 (dw, dw)"),
    ("demo --step-blocks 1000 --states 64", "at least the slowest path's 126000 (dw, dw)"),
    # Nothing that was typed is without effect.
    ("demo --payments 0 --seed 3", "--seed: with --payments 0 there is nothing to choose"),
    ("demo --clients 1 --payments 3", "--payments: one client has no other to pay"),
    ("demo --clients 2 --inner static", "--inner: 2 clients in one leaf have nothing above"),
    ("--datadir d demo", "--datadir: this command has no use for it"),
    ("--network signet demo", "--network: this command has no use for it"),
    ("--network signet regtest", "--network: this command has no use for it"),
    ("--config f regtest", "--config: this command has no use for it"),
    ("client pay lnbcrt1 --dry-run --wait-seconds 3", "there is no outcome to wait for"),
    ("lsp pay lnbcrt1 --dry-run --wait-seconds 0", "there is no outcome to wait for"),
]


@pytest.mark.parametrize(("words", "said"), USAGE_ERRORS)
def test_a_mistake_on_the_command_line_ends_with_2(tmp_path: Path, words: str, said: str) -> None:
    env = {"CROMFORD_DATADIR": str(tmp_path / "none")}
    result = CommandLine(None).run(*words.split(), env=env)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", ["", "lsp", "client exit", "lsp factory", "config"])
def test_no_command_at_all_shows_the_help_and_calls_it_no_error(words: str) -> None:
    line = CommandLine(None)
    result = line.run(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Usage: {' '.join(['cromford', *words.split()])} [OPTIONS]")
    assert "error:" not in result.stderr
    assert result.stderr.rstrip() == line.run(*words.split(), "--help").stdout.rstrip()
    error = json.loads(line.run(*words.split(), env={"CROMFORD_JSON": "1"}).stderr)
    assert error["message"] == "a command was expected, received none"


def test_a_mistake_on_the_command_line_is_json_too(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("client", "join", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stderr)
    assert error["code"] == "usage"
    assert error["remediation"] == "See: cromford client join --help"


@pytest.mark.parametrize("words", ["lsp run", f"client run --lsp {LSP}", "client seed restore"])
def test_mainnet_is_refused_with_a_reason_unless_it_is_allowed(tmp_path: Path, words: str) -> None:
    result = CommandLine(tmp_path / "none").run("--network", "mainnet", *words.split())
    assert result.exit_code == 2
    assert "mainnet is refused unless it is allowed" in result.stderr
    assert "no outside review" in result.stderr
    assert "--allow-mainnet" in result.stderr
    assert not (tmp_path / "none").exists()


def test_to_bring_a_client_on_chain_needs_a_confirmation_that_speaks_of_the_others(
    lsp: FakeDaemon,
) -> None:
    result = CommandLine(lsp.datadir).run("lsp", "exit", "f0f0f0f0", "1", "--json")
    assert result.exit_code == 5
    refused = json.loads(result.stderr)
    assert refused["code"] == "needs_confirmation"
    assert "other clients' too" in result.stderr
    assert lsp.calls == []


def test_an_exit_needs_a_confirmation(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run("client", "exit", "start", "--json")
    assert result.exit_code == 5
    problem = json.loads(result.stderr)
    assert problem["code"] == "needs_confirmation"
    assert "The other clients keep their channels and go on paying" in problem["message"]
    assert "brings nothing" not in problem["message"]
    assert [method for method, _ in client.calls] == ["exit_plan"]


@pytest.mark.parametrize("words", [(), ("--yes",)])
def test_an_exit_that_brings_nothing_is_said_to_whoever_asks_for_it(
    fake: Any, words: tuple[str, ...]
) -> None:
    """It is done all the same: a bound of the daemon may drive somebody out who knows why."""
    daemon = fake(
        {
            "exit_plan": exit_answers.EXIT_PLAN | {"channel": {"exit_sat": 0}},
            "exit_start": answers.CLIENT_ANSWERS["exit_start"],
        }
    )
    result = CommandLine(daemon.datadir).run("client", "exit", "start", *words)
    assert result.exit_code == (0 if words else 5)
    assert "WARNING: as things are, leaving brings nothing to your wallet" in result.stderr
    asked = [method for method, _ in daemon.calls]
    assert asked == ["exit_plan", *(["exit_start"] if words else [])]


@pytest.mark.parametrize("words", ["client exit start", f"lsp exit {answers.FACTORY_ID} 1"])
@pytest.mark.parametrize("is_asked", [False, True])
def test_to_publish_a_stale_commitment_is_asked_for_and_warned_of(
    fake: Any, words: str, *, is_asked: bool
) -> None:
    started = answers.CLIENT_ANSWERS["exit_start"]
    daemon = fake({"exit_plan": exit_answers.EXIT_PLAN, "exit_start": started})
    flags = ["--publish-stale-commitment"] if is_asked else []
    result = CommandLine(daemon.datadir).run(*words.split(), "--yes", *flags)
    assert result.exit_code == 0
    assert ("the peer takes ALL of the channel" in result.stderr) == is_asked
    asked = dict(daemon.calls)["exit_start"]
    assert asked.get("publish_stale_commitment", False) == is_asked


def test_a_refusal_of_the_lsp_is_an_error_of_the_join(fake: Any) -> None:
    wish = answers.CLIENT_STATUS["wish"]
    answer = {"join": {"wish": wish, "joined": False}, "status": answers.CLIENT_STATUS}
    result = CommandLine(fake(answer).datadir).run(
        "client", "join", "--capacity-sat", "5", "--json"
    )
    assert result.exit_code == 1
    assert json.loads(result.stderr)["code"] == "join_refused"
    assert "the LSP refused: capacity_sat: too much" in json.loads(result.stderr)["message"]


def test_a_failed_verification_shows_every_check_and_ends_with_1(fake: Any) -> None:
    checks = [
        {"check": "terms", "ok": True, "detail": "as agreed", "waits": False},
        {"check": "funding", "ok": False, "detail": "expected 1, received 2", "waits": False},
    ]
    daemon = fake({"verify": {"ok": False, "waits": False, "checks": checks}})
    line = CommandLine(daemon.datadir)
    for_people = line.run("client", "verify")
    assert for_people.exit_code == 1
    assert "FAILED" in for_people.stdout
    assert "not as agreed: funding" in for_people.stderr
    for_machines = line.run("client", "verify", "--json")
    assert json.loads(for_machines.stdout)["checks"] == checks
    assert json.loads(for_machines.stderr)["code"] == "verification_failed"


def test_a_verification_that_waits_for_a_block_has_not_failed(fake: Any) -> None:
    checks = [{"check": "funding", "ok": False, "detail": "not confirmed", "waits": True}]
    line = CommandLine(fake({"verify": {"ok": False, "waits": True, "checks": checks}}).datadir)
    for_people = line.run("client", "verify")
    assert for_people.exit_code == 1
    assert "FAILED" not in for_people.output
    assert for_people.stdout.splitlines()[1].split() == ["waits", "funding", "not", "confirmed"]
    error = json.loads(line.run("client", "verify", "--json").stderr)
    assert (error["code"], error["retryable"]) == ("verification_waits", True)


def test_a_bug_is_not_dressed_up_as_an_error_of_the_user() -> None:
    assert problem_of(ZeroDivisionError()) is None


@pytest.mark.parametrize("key", ["over", "steps"])
def test_an_answer_of_an_older_daemon_is_said_to_be_one(fake: Any, key: str) -> None:
    told = {name: value for name, value in exit_answers.EXIT_STATUS.items() if name != key}
    line = CommandLine(fake({"exit_status": told}).datadir)
    result = line.run("client", "exit", "status")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == f"error: the daemon is of another version: its answer lacks {key!r}"
    assert second.startswith("What was asked for was done.")
    assert line.document("client", "exit", "status") == told


@pytest.mark.parametrize(
    ("words", "is_retryable"),
    [
        (f"client pay {answers.TEXT}", True),
        ("client wallet send bcrt1q 70000 --external-id payout-7 --yes", True),
        ("client wallet send bcrt1q 70000 --yes", False),
        ("client join --capacity-sat 500000", False),
    ],
)
def test_who_interrupts_what_may_be_carried_out_is_told_so(
    client: FakeDaemon, monkeypatch: pytest.MonkeyPatch, words: str, *, is_retryable: bool
) -> None:
    def interrupt(_client: object, _request: bytes) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(ApiClient, "_exchange", interrupt)
    result = CommandLine(client.datadir).run(*words.split(), "--json")
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"], error["retryable"]) == (
        130,
        "interrupted",
        is_retryable,
    )
    assert error["remediation"].startswith("What was asked for may be carried out all the same")
    assert ("not made a second time" in error["remediation"]) is is_retryable


def test_who_interrupts_a_question_is_told_that_alone(
    client: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_client: object, _request: bytes) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(ApiClient, "_exchange", interrupt)
    result = CommandLine(client.datadir).run("client", "balance")
    assert (result.exit_code, result.stderr.strip()) == (130, "error: interrupted")


def test_an_error_cannot_steer_the_terminal(fake: Any) -> None:
    daemon = fake({"lobby": refuse(ApiFailure("odd", "a\x1b[31mb"))})
    assert "a?[31mb" in CommandLine(daemon.datadir).run("lsp", "lobby").stderr


@pytest.mark.sampled(0)
def test_a_daemon_whose_node_does_not_let_it_in_says_so(tmp_path: Path) -> None:
    cookie = tmp_path / "cookie"
    cookie.write_text("__cookie__:secret", encoding="utf-8")
    place = ("--datadir", str(tmp_path / "d"), "--listen", "127.0.0.1:0")
    with RegtestNode(tmp_path / "node", persist=False) as node:
        words = ("--chain-url", node.url, "--chain-cookie", str(cookie), "--json")
        result = subprocess.run(
            [sys.executable, "-P", "-m", "cromford", "lsp", "run", *place, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert result.returncode == 3, result.stderr
    error = json.loads(result.stderr.splitlines()[-1])
    assert error["code"] == "chain_credentials_refused"
    assert "--chain-cookie" in error["remediation"]
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr


def test_an_answer_that_finds_no_room_says_so_and_may_have_been_more_than_an_answer() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "cromford", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    error, remedy = ended.stderr.splitlines()
    assert error == "error: [Errno 28] No space left on device"
    assert "look before asking again" in remedy


def test_help_is_light() -> None:
    """The consensus library, the curve and rich stay out until something needs them."""
    program = (
        "import sys; sys.argv = ['cromford', '--help']\n"
        "from cromford.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    imported = done.stdout.splitlines()[-1]
    assert "'click'" in imported
    assert not {"'pbk'", "'rich'", "'btclib_secp256k1'", "'asyncio'"} & set(imported.split(", "))
    assert "never for real money" in done.stdout


def test_the_version_is_told(tmp_path: Path) -> None:
    assert CommandLine(tmp_path).run("--version").stdout == "cromford 0.1.0\n"
    assert CommandLine(tmp_path).document("--version") == {"version": "0.1.0"}


def test_no_answer_is_asked_for_with_a_secret(tmp_path: Path) -> None:
    """A password is only ever named by its file."""
    shown = CommandLine(tmp_path).run("lsp", "run", "--help").stdout
    assert "--chain-password-file" in shown
    assert "--chain-password " not in shown
    assert answers.LSP_STATUS.keys().isdisjoint({"seed", "mnemonic"})


LONG = 300 * "a"  # No directory may be called so.


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (("lsp", "status"), {"CROMFORD_DATADIR": LONG}),
        (("lsp", "run"), {"CROMFORD_DATADIR": LONG}),
        (("client", "seed", "show", "--yes"), {"CROMFORD_DATADIR": LONG}),
        (("config", "check"), {"CROMFORD_DATADIR": LONG}),
        (("regtest", "--port", "0", "--datadir", LONG), {}),
        (("demo", "--keep", f"{LONG}/demo"), {}),
    ],
)
def test_what_the_system_refuses_is_told_in_its_words_and_is_no_traceback(
    words: tuple[str, ...], env: dict[str, str]
) -> None:
    result = CommandLine(None).run(*words, "--json", env=env)
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"], error["retryable"]) == (1, "system", False)
    assert error["message"].endswith(": File name too long")
    assert LONG in error["message"]


def test_whose_a_directory_is_is_asked_of_who_may_not_read_it() -> None:
    problem = problem_of(PermissionError(errno.EACCES, "Permission denied", "theirs/config.toml"))
    assert problem is not None
    assert (problem.code, problem.message) == ("system", "theirs/config.toml: Permission denied")
    assert problem.remediation == "Run this as the user whose it is, or name another place."
    problem = problem_of(TimeoutError())
    assert problem is not None
    assert (problem.message, problem.remediation) == ("TimeoutError", "")


NO_TEXT = "K\udce4se"  # As the system hands over bytes that are no UTF-8.


@pytest.mark.parametrize(
    "line",
    [
        ("client", "invoice", "1000", "--description", NO_TEXT),
        ("client", "payments", "--label", NO_TEXT),
        ("client", "pay", NO_TEXT),
        ("client", "token", "add", "--name", NO_TEXT, "--scope", "read"),
        ("config", "check", NO_TEXT),
        (NO_TEXT,),
    ],
)
@pytest.mark.parametrize("is_json", [False, True])
def test_a_word_that_is_no_utf_8_is_refused_whatever_it_is_for(
    client: FakeDaemon, line: tuple[str, ...], *, is_json: bool
) -> None:
    result = CommandLine(client.datadir).run(*line, *(["--json"] if is_json else []))
    assert result.exit_code == 2
    assert "expected words in UTF-8, received 'K\\udce4se'" in (
        json.loads(result.stderr)["message"] if is_json else result.stderr
    )
    assert client.calls == []


def test_a_variable_that_is_no_utf_8_is_refused_by_its_name_and_not_shown() -> None:
    variables = {"CROMFORD_SEED_PASSPHRASE_FILE": NO_TEXT}
    result = CommandLine(None).run("config", "dump", "--json", env=variables)
    assert result.exit_code == 2
    told = json.loads(result.stderr)["message"]
    assert told == "'CROMFORD_SEED_PASSPHRASE_FILE': expected a value in UTF-8"


def test_a_directory_that_is_no_utf_8_is_said_to_be(
    client: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / NO_TEXT
    here.mkdir()
    monkeypatch.chdir(here)
    command = ("client", "backup", "create", "alice.backup", "--json")
    result = CommandLine(client.datadir).run(*command)
    assert result.exit_code == 2
    assert json.loads(result.stderr)["message"] == "the name of a directory: expected UTF-8"


def test_a_terminal_of_another_encoding_is_shown_what_it_has(fake: Any) -> None:
    """`LC_ALL=en_US.ISO-8859-1`: who paid may have written anything."""

    def printed(*words: str) -> bytes:
        command = [sys.executable, "-m", "cromford", "client", "payments", *words]
        place = ["--datadir", str(client.datadir)]
        env = os.environ | {"PYTHONIOENCODING": "ascii"}
        ran = subprocess.run([*command, *place], env=env, check=True, capture_output=True)
        return ran.stdout

    entry = {"number": 9, **answers.PAID, "description": "K\u00e4se"}
    client = fake({"payments": {"payments": [entry], "next": None}})
    assert b"K?se" in printed()
    assert json.loads(printed("--json"))["payments"][0]["description"] == "K\u00e4se"
    assert "K\u00e4se".encode() in printed("--csv")


@pytest.mark.parametrize(
    "line",
    [
        ("client", "status", "--datadir", "~nobody-of-that-name/alice"),
        ("client", "status", "--config", "~nobody-of-that-name/alice.toml"),
        ("config", "check", "--datadir", "~nobody-of-that-name"),
        ("regtest", "--datadir", "~nobody-of-that-name"),
    ],
)
def test_a_home_that_nobody_has_is_said_to_be_none(line: tuple[str, ...]) -> None:
    """In a container whose user is only a number `~` is nobody's, either."""
    result = CommandLine(None).run(*line, "--json")
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"]) == (2, "home_unknown")
    assert "~nobody-of-that-name" in error["message"]
