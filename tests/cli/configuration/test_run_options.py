"""What the daemons are told by their command lines."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.cli.conftest import CommandLine

from cromford.adapters.places import Limits
from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET
from cromford.cli import daemons
from cromford.cli.configuration.role_keys import LSP_KEYS
from cromford.cli.failures import EXIT_USAGE
from cromford.daemon.options import ClientOptions, LspOptions
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import FeePolicy
from cromford.protocol.policy import ClientPolicy, DyingStep, LspPolicy, WhenDying
from cromford.watch.burnt import BurnLimit

# A point on the curve: the generator.
NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
LSP = f"{NODE_ID}@127.0.0.1:9750"


class Started:
    """Takes what a daemon would have been started with."""

    def __init__(self, line: CommandLine) -> None:
        self._line = line
        self.options: list[Any] = []

    def lsp(self, *words: str, env: dict[str, str] | None = None) -> LspOptions:
        options = self._start("lsp", "run", *words, env=env)
        assert isinstance(options, LspOptions)
        return options

    def client(self, *words: str, env: dict[str, str] | None = None) -> ClientOptions:
        options = self._start("client", "run", "--lsp", LSP, *words, env=env)
        assert isinstance(options, ClientOptions)
        return options

    def run(self, *words: str, env: dict[str, str] | None = None) -> Result:
        return self._line.run(*words, env=env)

    def _start(self, *words: str, env: dict[str, str] | None) -> Any:
        result = self.run(*words, env=env)
        assert result.exit_code == 0, result.stderr
        return self.options[-1]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    taker = Started(CommandLine(tmp_path))
    monkeypatch.setattr(daemons, "run_lsp", taker.options.append)
    monkeypatch.setattr(daemons, "run_client", taker.options.append)
    return taker


def test_without_options_the_policies_are_the_defaults(started: Started, tmp_path: Path) -> None:
    lsp, client = started.lsp(), started.client()
    assert lsp.policy == LspPolicy()
    assert client.policy == ClientPolicy()
    assert (lsp.listen_host, lsp.listen_port) == ("127.0.0.1", 9750)
    assert lsp.datadir == client.datadir == tmp_path
    assert str(client.lsp) == LSP
    assert lsp.seed_passphrase_file is None
    assert lsp.metrics_listen is None
    assert lsp.announce is None


def test_the_default_chain_is_bitcoind_on_this_machine(started: Started) -> None:
    chain = started.lsp().chain
    assert chain.url == "http://127.0.0.1:18443"
    assert chain.cookie_file == Path("~/.bitcoin/regtest/.cookie").expanduser()
    signet = started.lsp("--network", "signet")
    assert signet.network == SIGNET
    assert signet.chain.url == "http://127.0.0.1:38332"
    assert signet.chain.cookie_file == Path("~/.bitcoin/signet/.cookie").expanduser()


def test_containers_can_say_everything_by_environment(started: Started) -> None:
    env = {
        "CROMFORD_CHAIN_NETWORK": "regtest",
        "CROMFORD_CHAIN_URL": "http://node:1",
        "CROMFORD_CHAIN_USER": "me",
        "CROMFORD_CHAIN_PASSWORD_FILE": "/run/secrets/node",
        "CROMFORD_SEED_PASSPHRASE_FILE": "/run/secrets/seed",
        "CROMFORD_LSP_LISTEN": "[::1]:0",
        "CROMFORD_LSP_MIN_DEPTH_BLOCKS": "6",
        "CROMFORD_LSP_INNER_ARITIES": "2, 3",
        "CROMFORD_LSP_INNER_KINDS": "static, dw",
        "CROMFORD_LSP_MAX_CLIENTS": "12",
        "CROMFORD_METRICS_LISTEN": "[::]:9332",
        "CROMFORD_LSP_ANNOUNCE": "lsp.example.org:9750",
    }
    options = started.lsp(env=env)
    assert options.network == REGTEST
    assert options.chain.url == "http://node:1"
    assert (options.chain.user, options.chain.cookie_file) == ("me", None)
    assert options.chain.password_file == Path("/run/secrets/node")
    assert options.seed_passphrase_file == Path("/run/secrets/seed")
    assert (options.listen_host, options.listen_port) == ("::1", 0)
    assert options.policy.min_depth == 6
    kinds = (VertexKind.STATIC, VertexKind.DW)
    assert options.policy.inner_levels == InnerLevels(arities=(2, 3), kinds=kinds)
    assert options.metrics_listen == ("::", 9332)
    assert options.announce == ("lsp.example.org", 9750)


def test_feerates_are_read_in_sat_per_vbyte(started: Started) -> None:
    policy = started.lsp(
        "--feerate-sat-per-vb", "1.5", "--funding-feerate-sat-per-vb", "0.1"
    ).policy
    assert policy.tree_feerate_sat_per_kw == 375
    assert policy.funding_feerate_sat_per_kw == 25
    assert started.client("--max-feerate-sat-per-vb", "10").policy.tree_feerate_sat_per_kw == (
        250,
        2_500,
    )


def test_the_ephemeral_policy_pays_nothing_by_itself(started: Started) -> None:
    policy = started.lsp("--fee-policy", "ephemeral").policy
    assert policy.fee_policy is FeePolicy.EPHEMERAL
    assert policy.tree_feerate_sat_per_kw == 0


def test_every_delay_that_protects_somebody_is_at_least_a_step(started: Started) -> None:
    policy = started.lsp("--step-blocks", "500", "--states", "2").policy
    assert policy.lstock_csv_blocks == policy.to_self_delay_lsp == 500
    assert policy.to_self_delay_client == 500
    assert policy.step_blocks == 500


def test_who_accepts_a_longer_way_out_accepts_longer_payments(started: Started) -> None:
    usual = ClientPolicy().max_cltv_blocks[1]
    policy = started.client("--max-exit-delay-blocks", "2296").policy
    assert policy.exit_delay_blocks_max == 2_296
    assert policy.max_cltv_blocks == (1, usual + 2_000)
    assert started.client("--max-exit-delay-blocks", "100").policy.max_cltv_blocks == (1, usual)


UNSAFE = {
    "STEP_BLOCKS_MIN": "71",
    "TO_SELF_DELAY_BLOCKS_MIN": "143",
    "LSTOCK_CSV_BLOCKS_MIN": "71",
    "MIN_DEPTH_BLOCKS_MIN": "2",
    "READY_MIN_BLOCKS_MIN": "1007",
    "ACTIVE_BLOCKS_MIN": "1007",
    "DYING_BLOCKS_MIN": "143",
    "MIN_FEERATE_SAT_PER_VB": "0.9",
    "DUST_LIMIT_SAT_MAX": "355",
    "FEE_POLICIES": "ephemeral",
}


@pytest.mark.parametrize("key", UNSAFE)
def test_a_client_that_could_be_robbed_by_its_own_policy_does_not_start_but_on_regtest(
    started: Started, key: str
) -> None:
    env = {f"CROMFORD_CLIENT_{key}": UNSAFE[key]}
    words = ("client", "run", "--lsp", LSP)
    for network in ("signet", "testnet4", "mainnet"):
        refused = started.run("--network", network, *words, "--allow-mainnet", env=env)
        assert refused.exit_code == 2
        assert "expected " in refused.stderr
        assert ", received " in refused.stderr
    assert started.options == []
    started.client(env=env)


def test_a_client_may_be_stricter_and_more_patient_than_the_default_anywhere(
    started: Started,
) -> None:
    strict = (
        "--step-blocks-min",
        "144",
        "--max-feerate-sat-per-vb",
        "100",
        "--max-exit-delay-blocks",
        "4000",
    )
    options = started.client("--network", "signet", *strict)
    assert options.policy.step_blocks == (144, 1008)
    assert options.policy.tree_feerate_sat_per_kw == (250, 25_000)


def test_an_lsp_is_named_by_a_point_on_the_curve() -> None:
    line = CommandLine(Path("unused"))
    result = line.run("client", "run", "--lsp", f"02{'00' * 31}05@h:1")
    assert result.exit_code == 2
    assert "is not a point on the curve" in result.stderr


def test_on_mainnet_a_daemon_starts_with_a_loud_warning(started: Started) -> None:
    result = started.run("--network", "mainnet", "lsp", "run", "--allow-mainnet")
    assert result.exit_code == 0
    assert "WARNING: this daemon runs on MAINNET" in result.stderr
    options = started.options[-1]
    assert options.network == MAINNET
    assert options.chain.url == "http://127.0.0.1:8332"
    assert options.chain.cookie_file == Path("~/.bitcoin/.cookie").expanduser()
    assert started.run("lsp", "run").stderr == ""


def test_a_signet_of_ones_own_is_told_by_its_challenge(started: Started) -> None:
    options = started.lsp("--network", "signet", "--signet-challenge", "51")
    assert (options.network, options.signet_challenge) == (SIGNET, "51")
    assert started.lsp("--network", "signet").signet_challenge is None


def test_a_schedule_is_part_of_the_policy(started: Started) -> None:
    policy = started.lsp("--build-at-clients", "5", "--build-every-blocks", "144").policy
    assert (policy.build_at_clients, policy.build_every_blocks) == (5, 144)


def test_the_price_of_payments_and_its_limits_are_part_of_the_policies(started: Started) -> None:
    price = ("--fee-base-msat", "5", "--fee-proportional-millionths", "6", "--hold-seconds", "7")
    asks = started.lsp(*price).policy
    assert asks.failed_channel_blocks == 144
    assert (asks.fee_base_msat, asks.fee_proportional_millionths, asks.hold_seconds) == (5, 6, 7)
    env = {
        "CROMFORD_CLIENT_MAX_FEE_BASE_MSAT": "8",
        "CROMFORD_CLIENT_MAX_FEE_PROPORTIONAL_MILLIONTHS": "0",
        "CROMFORD_CLIENT_FAILED_CHANNEL_BLOCKS": "9",
        "CROMFORD_LSP_FAILED_CHANNEL_BLOCKS": "10",
    }
    allows = started.client(env=env).policy
    assert allows.failed_channel_blocks == 9
    assert started.lsp(env=env).policy.failed_channel_blocks == 10
    assert (allows.fee_base_msat_max, allows.fee_proportional_millionths_max) == (8, 0)


def test_what_leaving_may_burn_is_part_of_both_policies(started: Started) -> None:
    assert started.lsp().policy.burn_limit == started.client().policy.burn_limit == BurnLimit()
    words = ("--max-feerate-times-estimate", "3", "--max-burnt-percent", "4")
    assert started.lsp(*words).policy.burn_limit == BurnLimit(times_estimate=3, percent=4)
    env = {
        "CROMFORD_CLIENT_MAX_FEERATE_TIMES_ESTIMATE": "5",
        "CROMFORD_CLIENT_MAX_BURNT_PERCENT": "100",
    }
    limit = started.client(env=env).policy.burn_limit
    assert limit == BurnLimit(times_estimate=5, percent=100)


def test_places_for_peers_are_told_and_strangers_cannot_have_more_than_there_are(
    started: Started,
) -> None:
    assert started.lsp().limits == Limits()
    words = ("--connections-max", "40", "--strangers-max", "30", "--connections-per-address", "3")
    told = started.lsp(*words).limits
    assert (told.connections_max, told.strangers_max, told.per_address_max) == (40, 30, 3)
    assert started.lsp("--connections-max", "40").limits.strangers_max == 20
    few = started.lsp("--connections-max", "3", "--min-clients", "3")
    assert few.limits.strangers_max == 3, "all who wait for the first factory are strangers"
    refused = started.run("lsp", "run", "--connections-max", "40", "--strangers-max", "41")
    assert refused.exit_code == EXIT_USAGE
    assert "lsp.strangers_max: expected at most connections_max, 40" in refused.stderr


def test_what_strangers_may_have_is_part_of_the_policy(started: Started) -> None:
    words = (
        *("--capital-per-client-sat", "50000", "--capital-per-build-sat", "60000"),
        *("--capital-max-sat", "70000", "--new-joins-per-block", "8"),
        *("--allowed-clients", f"{NODE_ID},03{NODE_ID[2:]}"),
    )
    policy = started.lsp(*words).policy
    assert (policy.capital_per_client_sat, policy.capital_per_build_sat) == (50_000, 60_000)
    assert (policy.capital_max_sat, policy.new_joins_per_block) == (70_000, 8)
    assert policy.allowed_clients is not None
    assert bytes.fromhex(NODE_ID) in policy.allowed_clients
    assert len(policy.allowed_clients) == 2


def test_limits_of_capital_go_from_the_smaller_to_the_larger(started: Started) -> None:
    refused = started.run("lsp", "run", "--capital-per-client-sat", "300000000")
    assert refused.exit_code == EXIT_USAGE
    assert "lsp.capital_per_client_sat: expected at most capital_per_build_sat" in refused.stderr


def test_an_allowed_client_is_named_by_a_point_on_the_curve(started: Started) -> None:
    refused = started.run("lsp", "run", "--allowed-clients", "02" + "00" * 32)
    assert refused.exit_code == EXIT_USAGE
    assert "lsp.allowed_clients: expected node ids" in refused.stderr


def test_what_is_done_about_a_factory_that_dies_is_an_option_of_both(started: Started) -> None:
    lsp = started.lsp(
        "--dying-policy", "close,move", "--dying-step-percent", "30", "--dying-wait-percent", "10"
    ).policy
    assert lsp.dying_policy == (DyingStep.CLOSE, DyingStep.MOVE)
    assert (lsp.dying_step_percent, lsp.dying_wait_percent) == (30, 10)
    assert started.lsp("--dying-policy", "sweep").policy.dying_policy == (DyingStep.SWEEP,)
    client = started.client("--when-dying", "stay", "--moving-capacity-sat", "70000").policy
    assert (client.when_dying, client.moving_capacity_sat) == (WhenDying.STAY, 70_000)
    assert started.client().policy.when_dying is WhenDying.MOVE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dying-policy", ""), 'expected one of move, close, sweep, received ""'),
        (("--dying-policy", "merge"), 'expected one of move, close, sweep, received "merge"'),
        (
            ("--dying-policy", "sweep,close"),
            "expected sweep last, nothing is left to do after it, received sweep, close",
        ),
        (
            ("--dying-policy", "move,move"),
            "lsp.dying_policy: expected each step once, received move, move",
        ),
        (("--dying-step-percent", "0"), "expected a whole number in 1..100, received 0"),
        (("--dying-wait-percent", "101"), "expected a whole number in 1..100, received 101"),
    ],
)
def test_a_policy_about_dying_that_means_nothing_is_refused_by_name(
    started: Started, words: tuple[str, str], said: str
) -> None:
    result = started.run("lsp", "run", *words)
    assert result.exit_code == EXIT_USAGE
    assert said in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([], "a list with at least one value"),
        (["merge"], "one of move, close, sweep"),
        ("move", "a list with at least one value"),
    ],
)
def test_a_file_with_an_empty_list_of_steps_or_an_unknown_one_is_refused(
    written: object, expected: str
) -> None:
    (key,) = (key for key in LSP_KEYS if key.name == "dying_policy")
    with pytest.raises(ValueError, match=f"^expected {expected}, received "):
        key.kind.of_toml(written)


@pytest.mark.parametrize("listen", ["0.0.0.0:9750", "[::]:9750"])
def test_an_lsp_that_would_hand_on_nobodys_address_says_so(started: Started, listen: str) -> None:
    told = started.run("lsp", "run", "--listen", listen)
    assert told.exit_code == 0
    assert f"WARNING: clients are told to connect to {listen}, which is no machine's" in told.stderr
    for words in (("--listen", listen, "--announce", "lsp.example.org:9750"), ()):
        assert started.run("lsp", "run", *words).stderr == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--connections-max", "10", "--build-at-clients", "11"),
            "lsp.build_at_clients: expected at most connections_max, 10, received 11",
        ),
        (
            ("--connections-max", "1"),
            "lsp.min_clients: expected at most connections_max, 1, received 2",
        ),
        (
            ("--allowed-clients", f"{NODE_ID},{NODE_ID}"),
            "lsp.allowed_clients: expected at least min_clients, 2, of them",
        ),
        (
            ("--allowed-clients", f"{NODE_ID},03{NODE_ID[2:]}", "--build-at-clients", "3"),
            "lsp.allowed_clients: expected at least build_at_clients, 3, of them",
        ),
    ],
)
def test_a_factory_that_could_never_be_built_is_refused_at_the_start(
    started: Started, words: tuple[str, ...], told: str
) -> None:
    refused = started.run("lsp", "run", *words)
    assert (refused.exit_code, refused.stdout) == (EXIT_USAGE, "")
    assert told in refused.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--dying-policy", "move,sweep", "--dying-step-percent", "10"),
            "lsp.dying_step_percent: expected the default, 50, where dying_policy does not",
        ),
        (
            ("--dying-policy", "sweep", "--dying-wait-percent", "10"),
            "lsp.dying_wait_percent: expected the default, 25, where dying_policy does not",
        ),
        (
            ("--fee-policy", "ephemeral", "--max-feerate-times-estimate", "3"),
            "lsp.max_feerate_times_estimate: expected the default, 10, where fee_policy is",
        ),
        (
            ("--fee-policy", "ephemeral", "--max-burnt-percent", "3"),
            "lsp.max_burnt_percent: expected the default, 10, where fee_policy is ephemeral and",
        ),
        (("--api-beyond-loopback",), "api.beyond_loopback: expected only beside api.listen"),
        (
            ("--api-beyond-loopback", "--api-listen", "127.0.0.1:9000"),
            "api.beyond_loopback: expected only where api.listen names an address that other",
        ),
        (
            ("--inner", "dw", "--max-clients", "2"),
            "lsp.inner: expected none where max_clients, 2, are in one leaf; received dw",
        ),
    ],
)
def test_a_choice_that_would_do_nothing_is_refused(
    started: Started, words: tuple[str, ...], told: str
) -> None:
    refused = started.run("lsp", "run", *words)
    assert (refused.exit_code, refused.stdout) == (EXIT_USAGE, "")
    assert told in refused.stderr


@pytest.mark.parametrize("key", ["max_feerate_sat_per_vb = 3", "max_burnt_percent = 3"])
def test_a_limit_of_fees_where_no_tree_pays_any_is_refused(
    started: Started, tmp_path: Path, key: str
) -> None:
    lines = ("[client]", f"lsp = '{LSP}'", "fee_policies = ['ephemeral']", key)
    (tmp_path / "config.toml").write_text("\n".join(lines), encoding="utf-8")
    refused = started.run("client", "run")
    assert (refused.exit_code, refused.stdout) == (EXIT_USAGE, "")
    name = key.partition(" ")[0]
    assert f"client.{name}: expected the default, " in refused.stderr
    assert "where fee_policies is ephemeral alone and no tree pays" in refused.stderr


def test_what_an_agent_has_no_use_for_is_said_to_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(daemons, "run_agent", begun.append)
    file = tmp_path / "config.toml"
    lines = ("[metrics]", "listen = '127.0.0.1:9'", "[backup]", "dir = 'b'", "[chain]")
    feerate = "fallback_feerate_sat_per_vb = 5"
    file.write_text("\n".join((*lines, feerate)), encoding="utf-8")
    told = CommandLine(tmp_path).run("agent", "run").stderr
    assert len(begun) == 1
    for path in ("metrics.listen", "backup.dir", "chain.fallback_feerate_sat_per_vb"):
        assert f"WARNING: {path} has no effect" in told
    file.unlink()
    assert CommandLine(tmp_path).run("agent", "run").stderr == ""
