"""The configuration: who comes first, what is refused, and that a dump is a whole file."""

import json
from pathlib import Path

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli import daemons
from cromford.cli.configuration.key import Key, variable_of
from cromford.cli.configuration.keys import KEYS, SECTIONS
from cromford.cli.configuration.renamed import RENAMED
from cromford.cli.configuration.run_options import client_policy, lsp_policy
from cromford.cli.configuration.settings import (
    OF_EVERY_COMMAND,
    check_environment,
    dump,
    read_file,
    resolve,
)
from cromford.cli.invocation import CONFIG_ENV, DATADIR_ENV, JSON_ENV
from cromford.daemon.options import LspOptions
from cromford.protocol.policy import ClientPolicy, LspPolicy

NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
EVERYTHING = f"""
[chain]
network = "signet"
allow_mainnet = true
url = "http://node:1"
user = "me"
password_file = "secrets/node"
signet_challenge = "51"
poll_seconds = 0.5
[log]
level = "debug"
format = "json"
[metrics]
listen = "127.0.0.1:9000"
[seed]
passphrase_file = "/run/seed"
[lsp]
listen = "[::1]:9"
inner_arities = [2, 3]
inner_kinds = ["static", "dw"]
max_clients = 12
feerate_sat_per_vb = 1.25
funding_feerate_sat_per_vb = 3
max_exit_delay_blocks = 5000
build_at_clients = 3
[client]
lsp = "{NODE_ID}@[::1]:9750"
fee_policies = ["endogenous"]
step_blocks_min = 100
max_cltv_blocks_max = 9
"""


@pytest.fixture
def lsp_started(monkeypatch: pytest.MonkeyPatch) -> list[LspOptions]:
    options: list[LspOptions] = []
    monkeypatch.setattr(daemons, "run_lsp", options.append)
    return options


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CROMFORD_SEED_PASSPHRASE", "; did you mean passphrase_file?"),
        ("CROMFORD_LSP_LISTENS", "; did you mean listen?"),
        ("CROMFORD_METRICS_ZZZ", ""),
        ("CROMFORD_LPS_LISTEN", "; did you mean CROMFORD_LSP_LISTEN?"),
        ("CROMFORD_DATADR", "; did you mean CROMFORD_DATADIR?"),
        ("CROMFORD_NETWORK", "; did you mean CROMFORD_CHAIN_NETWORK?"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused_by_name_and_never_shown(
    tmp_path: Path, name: str, meant: str
) -> None:
    """Whoever sets one believes that it does something: encrypts the seed, or opens a port."""
    line = CommandLine(tmp_path / "lsp")
    for words in (("lsp", "run"), ("config", "dump"), ("client", "seed", "show")):
        result = line.run(*words, "--json", env={name: "correct horse"})
        assert result.exit_code == 2
        error = json.loads(result.stderr)
        assert error["code"] == "config_invalid"
        assert error["message"] == f"{name}: there is no such key{meant}"
        assert "horse" not in result.output


def test_what_every_command_is_told_by_the_environment_is_known() -> None:
    assert {CONFIG_ENV, DATADIR_ENV, JSON_ENV} == OF_EVERY_COMMAND


def test_what_our_tests_are_told_and_what_is_empty_is_let_be(tmp_path: Path) -> None:
    line = CommandLine(tmp_path / "lsp")
    others = {"CROMFORD_BITCOIND": "/usr/bin/bitcoind", "CROMFORD_SEED_PASSPHRASE": ""}
    assert line.run("config", "dump", env=others).exit_code == 0


def test_a_flag_comes_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path, lsp_started: list[LspOptions]
) -> None:
    written(tmp_path / "config.toml", "[lsp]\nmin_depth_blocks = 4\nstates = 3\nleaf_arity = 5\n")
    env = {
        "CROMFORD_LSP_MIN_DEPTH_BLOCKS": "6",
        "CROMFORD_LSP_STATES": "5",
        "CROMFORD_LSP_DEADLINE_SECONDS": "",
    }
    result = CommandLine(tmp_path).run("lsp", "run", "--min-depth-blocks", "7", env=env)
    assert result.exit_code == 0, result.stderr
    policy = lsp_started[0].policy
    assert (policy.min_depth, policy.states_per_layer, policy.leaf_arity) == (7, 5, 5)
    assert policy.deadline_seconds == LspPolicy().deadline_seconds


def test_a_file_elsewhere_is_named(tmp_path: Path, lsp_started: list[LspOptions]) -> None:
    path = written(tmp_path / "etc" / "lsp.toml", '[chain]\ncookie = "cookie"\n')
    line = CommandLine(tmp_path / "data")
    assert line.run("lsp", "run", "--config", str(path)).exit_code == 0
    assert line.run("lsp", "run", env={"CROMFORD_CONFIG": str(path)}).exit_code == 0
    # A path in a file is relative to the file, wherever the daemon is started.
    cookies = {options.chain.cookie_file for options in lsp_started}
    assert cookies == {tmp_path / "etc" / "cookie"}
    missing = line.run("lsp", "run", "--config", str(tmp_path / "none.toml"))
    assert missing.exit_code == 4
    assert "there is no such file" in missing.stderr


def test_a_question_finds_its_daemon_on_the_configured_network(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "lsp", answers.LSP_ANSWERS, network="signet") as daemon:
        line = CommandLine(daemon.datadir)
        assert line.run("lsp", "lobby").exit_code == 1
        assert line.run("lsp", "lobby", "--network", "signet").exit_code == 0
        assert line.run("lsp", "lobby", env={"CROMFORD_CHAIN_NETWORK": "signet"}).exit_code == 0
        written(daemon.datadir / "config.toml", '[chain]\nnetwork = "signet"\n')
        assert line.run("lsp", "lobby").exit_code == 0
        assert line.run("lsp", "lobby", "--network", "regtest").exit_code == 1


COUNT = "expected a whole number in 1..1024"
FEERATE = "expected 0 or a number in 0.1..1000"
REFUSED = [
    ("[lsp]\nmin_clients = 'three'", f'lsp.min_clients: {COUNT}, received "three"'),
    ("[lsp]\nmin_clients = true", f"lsp.min_clients: {COUNT}, received true"),
    ("[lsp]\nmin_clients = 3.0", f"lsp.min_clients: {COUNT}, received 3.0"),
    ("[lsp]\nmin_clients = 0", f"lsp.min_clients: {COUNT}, received 0"),
    ("[lsp]\nmin_client = 3", "lsp.min_client: there is no such key; did you mean min_clients?"),
    ("[lsp]\nxyzzy = 3", "lsp.xyzzy: there is no such key"),
    ("[lsb]\nmin_clients = 3", "lsb: expected one of the sections [chain], [log]"),
    ("min_clients = 3", "min_clients: expected one of the sections"),
    ("lsp = 3", "lsp: expected one of the sections"),
    ("[lsp]\nlisten = 9750", "lsp.listen: expected HOST:PORT, as a text, received 9750"),
    ("[lsp]\nlisten = '127.0.0.1'", "lsp.listen: port: expected HOST:PORT, received"),
    ("[lsp]\nannounce = 9750", "lsp.announce: expected HOST:PORT, as a text, received 9750"),
    ("[lsp]\nannounce = 'example.org'", "lsp.announce: port: expected HOST:PORT"),
    ("[lsp]\nannounce = 'h:0'", "lsp.announce: port: expected a number in 1..65535, received '0'"),
    ("[lsp]\nannounce = '0.0.0.0:9750'", "lsp.announce: expected an address of one machine"),
    ("[lsp]\nannounce = '[::]:9750'", "lsp.announce: expected an address of one machine"),
    ("[lsp]\nannounce = '224.0.0.1:9750'", "lsp.announce: expected an address of one machine"),
    ("[metrics]\nport = 9332", "metrics.port: it is called metrics.listen now"),
    ("[lsp]\ninner_arities = 2", "lsp.inner_arities: expected a list"),
    ("[lsp]\ninner_arities = []", "lsp.inner_arities: expected a list with at least one value"),
    ("[lsp]\ninner_arities = [1]", "lsp.inner_arities: expected a whole number in 2..1024"),
    ("[lsp]\ninner_kinds = ['spilman']", "lsp.inner_kinds: expected one of dw, static"),
    ("[lsp]\ninner = 'both'", "lsp.inner: expected one of dw, static"),
    ("[lsp]\ninner_arities = [2]", "inner_kinds: expected both or neither, received only the arit"),
    ("[lsp]\ninner_kinds = ['dw']", "inner_kinds: expected both or neither, received only the kin"),
    (
        "[lsp]\ninner_arities = [2]\ninner_kinds = ['dw', 'static']",
        "lsp.inner_kinds: expected as many as inner_arities, 1, received 2: ['dw', 'static']",
    ),
    (
        "[lsp]\ninner_arities = [2]\ninner_kinds = ['dw']\ninner = 'dw'",
        "lsp.inner: expected none where inner_arities and inner_kinds say it all, received dw",
    ),
    ("[lsp]\nfeerate_sat_per_vb = '2'", f'lsp.feerate_sat_per_vb: {FEERATE}, received "2"'),
    ("[lsp]\nfeerate_sat_per_vb = nan", f"lsp.feerate_sat_per_vb: {FEERATE}, received NaN"),
    ("[lsp]\nfee_policy = 0", "lsp.fee_policy: expected one of endogenous, ephemeral, received 0"),
    ("[chain]\nnetwork = 'main'", "chain.network: expected one of regtest, signet, testnet4"),
    ("[chain]\nallow_mainnet = 1", "chain.allow_mainnet: expected true or false, received 1"),
    ("[chain]\nurl = 5", "chain.url: expected a text, received 5"),
    ('[chain]\nuser = "a\\u0007"', "chain.user: expected a text of one line"),
    ("[chain]\nuser = 'me:it'", "chain.user: expected a name without a colon, received one"),
    ('[chain]\nurl = "http://a\\u0007"', "chain.url: expected http://HOST[:PORT][/PATH]"),
    ("[chain]\nurl = 'node:18443'", "chain.url: expected http"),
    ("[chain]\nurl = 'http://me:it@node'", "chain.url: expected no user and no password"),
    ("[chain]\ncookie = 5", "chain.cookie: expected a path, as a text, received 5"),
    ('[chain]\ncookie = "a\\u0000b"', "chain.cookie: expected a path, received"),
    ("[chain]\ncookie = '~nobody-of-that-name/x'", "chain.cookie: expected a path, received"),
    ("[lsp]\nlisten = 'host:\u00b2'", "lsp.listen: expected HOST:PORT, received"),
    ("[lsp]\nlisten = 'a..b:9750'", "lsp.listen: host: expected a name or an address"),
    ("[lsp]\nlisten = '::1:9750'", "lsp.listen: host: an IPv6 address stands in brackets"),
    ("[lsp]\nannounce = 'a..b:9750'", "lsp.announce: host: expected a name or an address"),
    ("[lsp]\nlisten = 'host:000080'", "lsp.listen: expected HOST:PORT, received"),
    ("[chain]\nsignet_challenge = 51", "signet_challenge: expected bytes in hex, as a text"),
    ("[client]\nlsp = 5", "client.lsp: expected NODEID@HOST:PORT, as a text, received 5"),
    ("[client]\nlsp = 'nobody'", "client.lsp: a peer address is"),
    ("[chain]\nfallback_feerate_sat_per_vb = 5e-9999999999999999999", "a number, received 5e-999"),
    (f"[client]\nlsp = '{NODE_ID}@{64 * 'a'}:9750'", "client.lsp: host: expected a name or"),
    ("[lsp", "Expected ']'"),
    ("[lsp]\nmin_clients = 2\nmin_clients = 3", "Cannot overwrite a value"),
    # These fit alone, and not together.
    ("[chain]\nuser = 'me'", "a user and a password file go together"),
    ("[chain]\nsignet_challenge = '51'", "chain.signet_challenge: expected none on regtest"),
    ("[lsp]\nmin_clients = 3\nmax_clients = 2", "lsp.min_clients: expected at most max_clients, 2"),
    ("[client]\nmin_depth_blocks_min = 13", "expected at most min_depth_blocks_max, 12"),
    ("[client]\nmin_feerate_sat_per_vb = 200", "expected at most max_feerate_sat_per_vb, 20"),
    ("[chain]\nnetwork = 'mainnet'", "mainnet is refused unless it is allowed"),
    ("[api]\nbeyond_loopback = true", "api.beyond_loopback: expected only beside api.listen"),
    ("[api]\nlisten = '0.0.0.0:9'", "api.listen: expected an address of this machine alone"),
    ("[lsp]\nstrangers_max = 2049", "lsp.strangers_max: expected at most connections_max, 2048"),
    ("[lsp]\nconnections_max = 1", "lsp.min_clients: expected at most connections_max, 1"),
    ("[backup]\ndir = 'b'\nmark_dir = 'b/m'", "are one place, or one is within the other"),
    ("[backup]\ndir = 'b'", "--backup-dir: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_cannot_be_is_refused_by_key_with_the_expected_and_the_received(
    tmp_path: Path, text: str, said: str
) -> None:
    path = written(tmp_path / "config.toml", text)
    result = CommandLine(tmp_path).run("config", "check")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {path}: ")
    assert said in result.stderr


def test_a_variable_that_cannot_be_is_refused_by_its_name(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("lsp", "run", env={"CROMFORD_LSP_MIN_DEPTH_BLOCKS": "deep"})
    assert result.exit_code == 2
    assert 'CROMFORD_LSP_MIN_DEPTH_BLOCKS: expected a whole number in 1..144, received "deep"' in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CROMFORD_SEED", "abandon ability", "a seed is never taken from the environment"),
        ("CROMFORD_BITCOIND", "http://127.0.0.1:8332", "did you mean CROMFORD_CHAIN_URL?"),
        ("CROMFORD_BITCOIND", "127.0.0.1:8332", "did you mean CROMFORD_CHAIN_URL?"),
    ],
)
def test_a_variable_of_the_tests_is_refused_where_somebody_means_a_daemon_by_it(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    result = CommandLine(tmp_path).run("lsp", "status", env={name: value})
    assert result.exit_code == 2
    assert f"{name}: there is no such key; {said}" in result.stderr
    assert "abandon" not in result.output


@pytest.mark.parametrize(
    ("name", "value"),
    [("CROMFORD_SEED", "406"), ("CROMFORD_SEED", ""), ("CROMFORD_BITCOIND", "/opt/bin/bitcoind")],
)
def test_who_develops_the_program_uses_it_with_the_variables_of_the_tests_set(
    name: str, value: str
) -> None:
    check_environment({name: value})


def test_a_zero_of_many_digits_is_a_zero(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[chain]\nfallback_feerate_sat_per_vb = 0e-99999999\n", encoding="utf-8")
    settings = resolve(flags={}, environment={}, in_file=read_file(path))
    assert "fallback_feerate_sat_per_vb = 0\n" in dump(settings)


def test_a_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    """U+FEFF, before UTF-8: Windows' Notepad and PowerShell do so."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[lsp]\r\nmin_clients = 3\r\n")
    assert read_file(path) == {"lsp.min_clients": 3}


@pytest.mark.parametrize("data", [b"\xff", b"#" * (1024 * 1024 + 1), b"a=" + b"[" * 9_999])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(data)
    result = CommandLine(tmp_path).run("config", "check", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["code"] == "config_invalid"


def test_a_check_needs_a_file(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("config", "check")
    assert result.exit_code == 4
    assert "there is no config.toml" in result.stderr
    path = written(tmp_path / "other.toml", EVERYTHING)
    checked = CommandLine(tmp_path).document("config", "check", str(path))
    assert checked == {"file": str(path), "ok": True}
    twice = CommandLine(tmp_path).run("--config", str(path), "config", "check", str(path))
    assert twice.exit_code == 2
    assert "--config: expected none beside FILE" in twice.stderr


@pytest.mark.parametrize("text", ["", EVERYTHING])
def test_a_dump_is_a_complete_file_with_the_same_effect(tmp_path: Path, text: str) -> None:
    written(tmp_path / "config.toml", text)
    dumped = CommandLine(tmp_path).run("config", "dump")
    assert dumped.exit_code == 0, dumped.stderr
    again = written(tmp_path / "again.toml", dumped.stdout)
    assert CommandLine(tmp_path).run("config", "check", str(again)).exit_code == 0
    in_file, in_dump = read_file(tmp_path / "config.toml"), read_file(again)
    first = resolve(flags={}, environment={}, in_file=in_file)
    second = resolve(flags={}, environment={}, in_file=in_dump)
    assert dict(first) == dict(second)
    assert dump(first) == dump(second) == dumped.stdout
    for key in KEYS:
        assert f"\n{key.name} = " in dumped.stdout or f"\n#{key.name} =\n" in dumped.stdout
        assert key.variable in dumped.stdout


def test_a_path_of_the_environment_is_the_same_in_a_dump_that_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is relative to where the command is; in a file, to that file."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    env = {"CROMFORD_BACKUP_DIR": "second"}
    dumped = CommandLine(here).run("config", "dump", env=env)
    assert read_file(written(there / "dump.toml", dumped.stdout))["backup.dir"] == here / "second"
    document = json.loads(CommandLine(here).run("config", "dump", "--json", env=env).stdout)
    assert document["backup"]["dir"]["value"] == str(here / "second")


def test_a_dump_tells_programs_where_each_value_comes_from(tmp_path: Path) -> None:
    written(tmp_path / "config.toml", "[lsp]\nstates = 3\n")
    result = CommandLine(tmp_path).run(
        "config", "dump", "--json", "--network", "signet", env={"CROMFORD_LOG_LEVEL": "debug"}
    )
    document = json.loads(result.stdout)
    assert document.keys() == SECTIONS.keys()
    found = {
        name: (document[section][name]["value"], document[section][name]["source"])
        for section, name in (
            ("chain", "network"),
            ("log", "level"),
            ("lsp", "states"),
            ("lsp", "inner_arities"),
            ("client", "fee_policies"),
        )
    }
    assert found == {
        "network": ("signet", "flag"),
        "level": ("debug", "environment"),
        "states": (3, "file"),
        "inner_arities": (None, "default"),
        "fee_policies": (["endogenous"], "default"),
    }


def test_of_two_files_one_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    line = CommandLine(None)
    assert line.run("config", "check").exit_code == 4
    client = written(tmp_path / ".cromford" / "client" / "config.toml", "")
    assert line.document("config", "check")["file"] == str(client)
    written(tmp_path / ".cromford" / "lsp" / "config.toml", "")
    both = line.run("config", "check")
    assert both.exit_code == 2
    assert "there are two" in both.stderr


UNITS = {
    "SAT": "_sat",
    "MSAT": "_msat",
    "BLOCKS": "_blocks",
    "SECONDS": "_seconds",
    "sat/vB": "_sat_per_vb",
    "PPM": "_millionths",
}


def test_every_key_carries_its_unit() -> None:
    measured = {key.path: UNITS[key.kind.metavar] for key in KEYS if key.kind.metavar in UNITS}
    silent = [
        path
        for path, unit in measured.items()
        if not path.removesuffix("_min").removesuffix("_max").endswith(unit)
    ]
    assert measured
    assert silent == []


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_by_its_old_name_is_refused_naming_the_new(
    tmp_path: Path, old: str, new: str
) -> None:
    section, _, name = old.partition(".")
    assert new in {key.path for key in KEYS}
    assert old not in {key.path for key in KEYS}
    written(tmp_path / "config.toml", f"[{section}]\n{name} = 5\n")
    in_file = CommandLine(tmp_path).run("config", "check")
    assert in_file.exit_code == 2
    assert f"{old}: it is called {new} now" in in_file.stderr
    variable = variable_of(old)
    in_environment = CommandLine(tmp_path / "none").run("lsp", "run", env={variable: "5"})
    assert in_environment.exit_code == 2
    assert f"{variable}: it is called {variable_of(new)} now" in in_environment.stderr


@pytest.mark.parametrize("key", [key for key in KEYS if key.path in RENAMED.values() and key.flag])
def test_a_flag_by_its_old_name_is_refused_naming_the_new(tmp_path: Path, key: Key) -> None:
    old = next(old for old, new in RENAMED.items() if new == key.path)
    flag = f"--{old.partition('.')[2].replace('_', '-')}"
    is_of_both = key.section not in {"lsp", "client"}
    flag = f"--{old.replace('.', '-').replace('_', '-')}" if is_of_both else flag
    role = "lsp" if is_of_both else key.section
    result = CommandLine(tmp_path).run(role, "run", flag, "5")
    assert result.exit_code == 2
    assert f"No such option '{flag}'" in result.stderr
    assert f"'{key.flag}'" in result.stderr


def test_a_check_is_for_the_network_that_was_typed(tmp_path: Path) -> None:
    path = written(tmp_path / "config.toml", "[chain]\nsignet_challenge = '51'\n")
    checked = CommandLine(tmp_path).run("config", "check", str(path), "--network", "signet")
    assert checked.exit_code == 0, checked.stderr
    assert CommandLine(tmp_path).run("config", "check", str(path)).exit_code == 2


def test_without_any_source_the_policies_are_the_defaults() -> None:
    settings = resolve(flags={}, environment={}, in_file={})
    assert lsp_policy(settings) == LspPolicy()
    assert client_policy(settings) == ClientPolicy()
    assert len(settings) == len(KEYS)


def test_every_range_of_a_client_is_set_by_its_two_keys() -> None:
    """Each key reaches its own end of its own range, and no other."""
    fields = [key.path for key in KEYS if key.section == "client" and key.name.endswith("_max")]
    for path in fields:
        low = resolve(flags={}, environment={}, in_file={})[path.removesuffix("max") + "min"]
        policy = client_policy(resolve(flags={}, environment={}, in_file={path: low}))
        different = [
            field
            for field in ClientPolicy.__slots__
            if getattr(policy, field) != getattr(ClientPolicy(), field)
        ]
        assert len(different) == 1, path
        assert getattr(policy, different[0]) == (low, low)


def test_a_link_to_no_file_is_a_configuration_that_is_missing(tmp_path: Path) -> None:
    """Its disk may not be mounted: the daemon it describes is no daemon of the defaults."""
    (tmp_path / "config.toml").symlink_to(tmp_path / "mounted" / "config.toml")
    result = CommandLine(tmp_path).run("lsp", "status", "--json")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (4, "config_not_found")
