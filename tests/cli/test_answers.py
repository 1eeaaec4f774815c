"""Every command: one JSON document for machines, words with units for people."""

import json
from typing import Any

import pytest
from tests.cli import (
    answers,
    backup_answers,
    ban_answers,
    close_answers,
    exit_answers,
    ladder_answers,
    market_answers,
    world_answers,
)
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

LSP_COMMANDS: list[tuple[str, str, object]] = [
    ("lsp status", "status", answers.LSP_STATUS),
    ("lsp wallet address", "address", {"address": "bcrt1qfresh", "is_new": True}),
    ("lsp wallet balance", "wallet_balance", world_answers.BALANCE),
    ("lsp wallet coins", "wallet_coins", answers.COINS),
    ("lsp wallet send bcrt1q 70000 --yes", "wallet_send", answers.PAYMENT),
    ("lsp wallet split 3 --yes", "wallet_split", answers.SPLIT),
    (f"lsp wallet bump {'ab' * 32} --yes", "wallet_bump", answers.BUMPED_PAYMENT),
    (f"lsp wallet abandon {'ab' * 32} --yes", "wallet_abandon", answers.ABANDONED),
    ("lsp factory abandon cdcd --yes", "factory_abandon", answers.ABANDONED_FACTORY),
    (
        "lsp factory replace cdcd --candidate 1 --yes",
        "factory_replace",
        ladder_answers.REPLACED_FACTORY,
    ),
    ("lsp factory bump cdcd --yes", "factory_bump", ladder_answers.BUMPED_FACTORY),
    ("lsp close cdcd --yes", "close", close_answers.CLOSE),
    ("lsp lobby", "lobby", answers.LOBBY),
    ("lsp build", "build", answers.BUILD),
    ("lsp factories", "factories", {"factories": [answers.lsp_summary()]}),
    (f"lsp factory show {answers.FACTORY_ID}", "factory_show", answers.SHOWN),
    (f"lsp factory export {answers.FACTORY_ID}", "factory_export", answers.EXPORT),
    (f"lsp pay {answers.TEXT}", "pay", answers.PAID),
    ("lsp payments", "payments", answers.LSP_PAYMENTS),
    ("lsp balances", "balances", answers.LSP_BALANCES),
    ("lsp price", "price", market_answers.PRICE),
    ("lsp set-price --off", "set_price", market_answers.PRICE),
    ("lsp ledger", "ledger", market_answers.LEDGER),
    ("lsp bans list", "bans", ban_answers.BANS),
    (f"lsp bans add {ban_answers.NODE_ID} --reason spam", "ban_add", ban_answers.BAN),
    (f"lsp bans remove {ban_answers.NODE_ID}", "ban_remove", ban_answers.BAN),
    (
        f"lsp exit {answers.FACTORY_ID} 1 --yes",
        "exit_start",
        answers.LSP_ANSWERS["exit_start"],
    ),
    (f"lsp backup create {backup_answers.FILE}", "backup_create", backup_answers.CREATED),
    ("lsp stop", "stop", {"stopping": True}),
]
CLIENT_COMMANDS: list[tuple[str, str, object]] = [
    ("client status", "status", answers.CLIENT_STATUS),
    ("client wallet address", "address", {"address": "bcrt1qfresh", "is_new": True}),
    ("client wallet coins", "wallet_coins", answers.COINS),
    ("client wallet send bcrt1q all --yes", "wallet_send", answers.PAYMENT),
    ("client wallet split 3 --yes", "wallet_split", answers.SPLIT),
    (f"client wallet bump {'ab' * 32} --yes", "wallet_bump", answers.BUMPED_PAYMENT),
    (f"client wallet abandon {'ab' * 32} --yes", "wallet_abandon", answers.ABANDONED),
    ("client join --capacity-sat 500000", "join", answers.CLIENT_ANSWERS["join"]),
    ("client leave", "leave", {"left": True}),
    ("client factories", "factories", {"factories": [answers.client_summary()]}),
    ("client factory", "factory", answers.BRANCH),
    ("client verify", "verify", answers.VERIFIED),
    ("client exit plan", "exit_plan", exit_answers.EXIT_PLAN),
    ("client exit start --yes", "exit_start", answers.CLIENT_ANSWERS["exit_start"]),
    ("client exit status", "exit_status", exit_answers.EXIT_STATUS),
    ("client exit pause", "exit_pause", answers.CLIENT_ANSWERS["exit_pause"]),
    ("client invoice 1500msat", "invoice", answers.INVOICE),
    (f"client pay {answers.TEXT}", "pay", answers.PAID),
    (f"client pay {answers.TEXT} --dry-run", "pay", answers.PLANNED),
    ("client payments", "payments", answers.PAYMENTS),
    ("client balance", "balance", answers.CLIENT_BALANCE),
    (
        f"client backup create {backup_answers.FILE} --overwrite",
        "backup_create",
        backup_answers.CREATED,
    ),
    ("client backup status", "backup_status", backup_answers.STATUS),
    ("client stop", "stop", {"stopping": True}),
]


@pytest.mark.parametrize(("words", "method", "document"), LSP_COMMANDS)
def test_an_lsp_command_gives_the_daemons_document(
    lsp: FakeDaemon, words: str, method: str, document: object
) -> None:
    assert CommandLine(lsp.datadir).document(*words.split()) == document
    assert [name for name, _ in lsp.calls] == [method]


@pytest.mark.parametrize(("words", "method", "document"), CLIENT_COMMANDS)
def test_a_client_command_gives_the_daemons_document(
    client: FakeDaemon, words: str, method: str, document: object
) -> None:
    assert CommandLine(client.datadir).document(*words.split()) == document
    before = ["exit_plan"] if method == "exit_start" else []  # What it would bring.
    assert [name for name, _ in client.calls] == [*before, method]


SAID: list[tuple[str, list[Any]]] = [
    (
        "lsp status",
        [
            "4,000,000,000 sat free",
            "3 connected, 2 waiting",
            "preparing",
            "client 2: silent",
            "750,856 sat in 1 factory",
            "750,856 sat in f0f0f0f0f0f0: expiry in 5,880 blocks, at height 6,000",
            "capital earned      1,500 msat",
            f"{answers.OTHER_NODE_ID} keeps displacing itself",
        ],
    ),
    ("lsp lobby", [answers.LOBBY["address"], "400,000 sat", "7 blocks", "banned until height 1,2"]),
    ("lsp build", ["building", "rank 1: waits in the lobby", "750,856 sat", "300 sat"]),
    ("lsp factories", ["f0f0f0f0f0f0", "live", "3 deep", "exit within 4,406 blocks"]),
    (
        f"lsp factory show {answers.FACTORY_ID}",
        [
            "kickoff_root",
            "delay 432 blocks",
            "signers LSP, 1",
            "channel of client 1  500,000 sat",
            "L-stock of the LSP  249,794 sat",
            "582 sat",
        ],
    ),
    (
        "lsp wallet balance",
        [
            *("3,000,000,000 sat", "for fundings and children", "not yet 100 blocks deep"),
            *("bcrt1qnext", f"waits for a block    {'22' * 32}, at 2.004 sat/vB"),
            f"{'33' * 32}, at 0.5 sat/vB: it came back by a reorganisation, and the change of what",
        ],
    ),
    (
        "lsp wallet coins",
        ["reserved for f0f0f0f0f0f0", "7 blocks", "1 block ", "1,000,000,000 sat", "bcrt1qother"],
    ),
    (
        "client wallet send bcrt1q all --dry-run",
        ["dry run: nothing was sent", "308 sat (2.004 sat/vB, estimate for 6 blocks)"],
    ),
    (
        "client status",
        [
            "1,500 msat and 1,000 ppm",
            "20,000 sat to 100,000,000 sat",
            "at least 400,000 sat",
            "too much",
            "end soon after they begin; does a second copy of the data directory run?",
        ],
    ),
    (
        "client backup status",
        [
            "/second: 34 records, 5 seconds behind",
            "/third: NOT WRITTEN",
            "restored  from /a/backup",
            "WARNING: no channel is updated: /third is not there",
        ],
    ),
    (
        f"client backup create {backup_answers.FILE}",
        [backup_answers.FILE, "1,234 in 5 streams", f"{backup_answers.SIZE:,} bytes"],
    ),
    ("client join --capacity-sat 500000", ["500,000 sat", "waiting in the lobby"]),
    ("client factories", ["client 1 of 1", "500,000 sat", "expiry in 5,000 blocks"]),
    ("client factory", ["your channel: 500,000 sat", "state_root"]),
    ("client verify", ["ok", "funding output", "all 1 checks passed"]),
    (
        "client exit plan",
        [
            "291 vB",
            "432 blocks",
            "9,170 sat, of which children 8,254 sat, out of a coin of 8,584 sat",
            "out of a coin of 4,916 sat; your wallet lacks 916 sat for them",
            "about 3.1 days",
            "publish kickoff_root now",
            "sweep, 124 vB, 248 sat, 433 blocks after the channel",
            "htlc 7, 120 sat",
            "reaches your wallet     99,752 sat",
        ],
    ),
    (
        "client exit status",
        [
            "under way",
            "10.02 sat/vB, 10.00 sat/vB wanted, by our child 444444444444 of 2,522 sat",
            "120,000 sat",
            "height 13,515",
            "1,234 sat so far",
            "58,766 sat",
        ],
    ),
    (
        "lsp payments",
        [
            "40,000 sat",
            "41,500 msat",
            "held: the payee is away",
            "failed: incorrect_or_unknown_payment_details",
            "1,002",
            "41 sat",
        ],
    ),
    ("lsp balances", ["99,000,001 msat", "in all", "200,000 sat", "failed: it lied", "4 sat out"]),
    (
        f"client pay {answers.TEXT}",
        ["paid", "40,000 sat", "41,500 msat", "40,041,500 msat", "a ?[31mboat", "77" * 32],
    ),
    (
        f"client pay {answers.TEXT} --dry-run",
        ["dry run: nothing was paid", "2023-11-14 22:13:20 UTC", "1,234", "height 1,034"],
    ),
    (
        "client payments",
        ["paid out", "failed: temporary_channel_failure", "open", "a boat?proof"],
    ),
    ("client balance", ["99,000,001 msat", "395,000 sat", "2 sat out", "99,752 sat", "in all"]),
]


@pytest.mark.parametrize(("words", "said"), SAID)
def test_people_read_names_amounts_and_blocks_with_their_units(
    lsp: FakeDaemon, client: FakeDaemon, words: str, said: list[str]
) -> None:
    daemon = lsp if words.startswith("lsp") else client
    result = CommandLine(daemon.datadir).run(*words.split())
    assert result.exit_code == 0, result.stderr
    assert [text for text in said if text not in result.stdout] == [], result.stdout


def test_options_stand_before_or_after_the_command(lsp: FakeDaemon) -> None:
    after = CommandLine(None).run("lsp", "lobby", "--datadir", str(lsp.datadir), "--json")
    before = CommandLine(lsp.datadir).run("--json", "lsp", "lobby")
    assert json.loads(after.stdout) == json.loads(before.stdout) == answers.LOBBY


def test_the_data_directory_and_json_can_come_from_the_environment(lsp: FakeDaemon) -> None:
    result = CommandLine(lsp.datadir).run("lsp", "lobby", env={"CROMFORD_JSON": "1"})
    assert json.loads(result.stdout) == answers.LOBBY


def test_a_build_passes_on_what_was_asked_for(lsp: FakeDaemon) -> None:
    words = ("lsp", "build", "--min", "2", "--max", "5", "--dry-run")
    CommandLine(lsp.datadir).document(*words)
    CommandLine(lsp.datadir).document("lsp", "build")
    assert lsp.calls == [
        ("build", {"min_clients": 2, "max_clients": 5, "dry_run": True}),
        ("build", {"dry_run": False}),
    ]


@pytest.mark.parametrize("change", [{"joined": True}, {"connected": False}])
def test_a_join_waits_for_the_lsp_if_there_is_one(fake: Any, change: dict[str, bool]) -> None:
    wish = answers.CLIENT_STATUS["wish"]
    status = answers.CLIENT_STATUS | {"refusal": None} | change
    daemon = fake({"join": {"wish": wish, "joined": False}, "status": status})
    line = CommandLine(daemon.datadir)
    joined = {"wish": wish, "joined": status["joined"]}
    assert line.document("client", "join", "--capacity-sat", "500000") == joined
    said = line.run("client", "join", "--capacity-sat", "500000").stdout
    assert ("waiting in the lobby" in said) is status["joined"]


def test_a_dry_run_shows_what_each_shape_costs_and_a_build_does_not(fake: Any) -> None:
    daemon = fake({"build": answers.BUILD | {"started": False}})
    shown = CommandLine(daemon.datadir).run("lsp", "build", "--dry-run").stdout
    for told in ("default *", "dw 2", "894", "1,998 blocks", "625 vB", "959 vB", "expected fewer"):
        assert told in shown
    built = CommandLine(fake({"build": answers.BUILD}).datadir).run("lsp", "build").stdout
    assert "1,998 blocks" not in built


def test_a_join_that_is_built_for_at_once_is_told_so(fake: Any) -> None:
    wish = answers.CLIENT_STATUS["wish"]
    status = answers.CLIENT_STATUS | {"refusal": None, "joined": False}
    building = {"factories": [answers.client_summary(status="building", stage="received")]}
    answer = {"join": {"wish": wish, "joined": False}, "status": status, "factories": building}
    said = (
        CommandLine(fake(answer).datadir).run("client", "join", "--capacity-sat", "500000").stdout
    )
    assert "a factory is being built with it" in said


def test_a_factory_id_is_passed_on_only_if_one_was_named(client: FakeDaemon) -> None:
    CommandLine(client.datadir).document("client", "exit", "plan", "f0f0")
    CommandLine(client.datadir).document("client", "exit", "plan")
    assert [params for _, params in client.calls] == [{"factory_id": "f0f0"}, {}]


@pytest.mark.parametrize(
    ("blocks_to_expiry", "said"),
    [
        (5_000, "exit within 4,406 blocks, expiry in 5,000 blocks"),
        (594 + 1_008, "SOON: exit within 1,008 blocks"),
        (594 + 144, "URGENT: exit within 144 blocks"),
        (594, "EXIT DEADLINE PASSED, expiry in 594 blocks"),
        (0, "EXPIRED at height 6,000"),
        (None, "-"),
    ],
)
def test_listings_get_louder_as_the_exit_deadline_nears(
    fake: Any, blocks_to_expiry: int | None, said: str
) -> None:
    factory = answers.client_summary(blocks_to_expiry=blocks_to_expiry)
    daemon = fake({"factories": {"factories": [factory]}})
    result = CommandLine(daemon.datadir).run("client", "factories")
    assert said in result.stdout


@pytest.mark.parametrize("status", ["given_up", "displaced", "dead"])
def test_a_factory_that_is_not_to_be_has_no_deadline(fake: Any, status: str) -> None:
    factory = answers.client_summary(status=status, blocks_to_expiry=-3)
    daemon = fake({"factories": {"factories": [factory]}})
    said = CommandLine(daemon.datadir).run("client", "factories").stdout
    assert status in said
    assert "EXPIRED" not in said


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_a_listing_survives_a_factory_of_which_little_is_known(fake: Any, role: str) -> None:
    unknown = ("n_clients", "capacity_sat", "min_depth", "expiry_height", "blocks_to_expiry")
    factories = [
        answers.client_summary(status="building", stage="received") | dict.fromkeys(unknown),
        answers.client_summary(status="aborted", aborted="the LSP: client 2 is silent"),
    ]
    if role == "lsp":
        factories = [
            answers.lsp_summary(status="building", phase="signing_below", holdouts=[1, 2]),
            answers.lsp_summary(status="aborted", aborted="client 2 is silent"),
        ]
    daemon = fake({"factories": {"factories": factories}})
    result = CommandLine(daemon.datadir).run(role, "factories")
    assert result.exit_code == 0, result.stderr
    assert "silent" in result.stdout
    assert "received" in result.stdout or "signing_below, waits for 1, 2" in result.stdout


def test_what_a_peer_wrote_cannot_steer_the_terminal(fake: Any) -> None:
    evil = "gone \x1b]0;owned\x07 [red]"
    daemon = fake({"factories": {"factories": [answers.client_summary(aborted=evil)]}})
    result = CommandLine(daemon.datadir).run("client", "factories")
    assert "\x1b" not in result.stdout
    assert "[red]" in result.stdout


def test_an_empty_list_is_said(fake: Any) -> None:
    daemon = fake({"factories": {"factories": []}})
    assert CommandLine(daemon.datadir).run("lsp", "factories").stdout == "no factories\n"
    assert CommandLine(daemon.datadir).document("client", "factories") == {"factories": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"status": "building", "phase": "signing_root", "holdouts": [1, 3]},
            "signing root; waits for client 1, client 3, 12.5 s left",
        ),
        (
            {"status": "building", "phase": "acknowledging", "seconds_left": None},
            "acknowledging; waits for nobody\n",
        ),
        ({"status": "funding", "confirmations": 1}, "1 of 3 confirmations"),
        (
            {"status": "funding"},
            f"bumped to 15.5 sat/vB: {answers.CHANNEL_TXID} pays 4,210 sat",
        ),
    ],
)
def test_a_factory_that_is_not_finished_shows_what_it_waits_for(
    fake: Any, changes: dict[str, Any], said: str
) -> None:
    daemon = fake({"factory_show": answers.SHOWN | {"seconds_left": 12.5} | changes})
    shown = CommandLine(daemon.datadir).run("lsp", "factory", "show", answers.FACTORY_ID)
    assert said in shown.stdout, shown.output


def test_what_of_a_factory_is_on_chain_is_shown_with_who_leaves_and_whose_channel_failed(
    fake: Any,
) -> None:
    left = {
        "published": ["kickoff_root"],
        "channels_failed": {"2": "the peer: leaving by an exit"},
        "leaving": [2, 3],
        "moved_out": [4],
    }
    daemon = fake({"factory_show": answers.SHOWN | left, "factory": answers.BRANCH | left})
    cromford = CommandLine(daemon.datadir)
    shown = cromford.run("lsp", "factory", "show", answers.FACTORY_ID).stdout
    for told in (
        "the channel of client 2 failed: the peer: leaving by an exit\n",
        "leaving or out: client 2, client 3\n",
        "moved out: client 4\n",
    ):
        assert told in shown
    for tree in (shown, cromford.run("client", "factory").stdout):
        (kickoff,) = [line for line in tree.splitlines() if " kickoff_root " in line]
        (state,) = [line for line in tree.splitlines() if " state_root " in line]
        assert kickoff.endswith(", on chain")
        assert "on chain" not in state


def test_what_is_to_be_swept_is_shown_with_what_waits_for_lower_fees(fake: Any) -> None:
    outputs = [
        {"name": name, "outpoint": f"{answers.FUNDING_TXID}:{vout}", "amount_sat": amount_sat}
        for vout, (name, amount_sat) in enumerate([("static_root:1", 12_345), ("state_0:2", 200)])
    ]
    expired = {
        "status": "expired",
        "sweeping": [{**output, "height": 6_001} for output in outputs],
        "not_worth_sweeping": outputs[1:],
    }
    summary = {**answers.lsp_summary(), "status": "expired", "sweeping": expired["sweeping"]}
    daemon = fake({"factory_show": answers.SHOWN | expired, "factories": {"factories": [summary]}})
    cromford = CommandLine(daemon.datadir)
    shown = cromford.run("lsp", "factory", "show", answers.FACTORY_ID).stdout
    assert "to be swept: static_root:1, 12,345 sat, from height 6,001 on\n" in shown
    assert "state_0:2, 200 sat, from height 6,001 on; not worth its fee today" in shown
    listed = " ".join(cromford.run("lsp", "factories").stdout.split())
    assert "to be swept" in listed


@pytest.mark.parametrize("lacking_sat", [0, 12_345])
def test_an_lsps_operator_is_told_how_much_is_lacking_in_coins(fake: Any, lacking_sat: int) -> None:
    known: Any = answers.LSP_STATUS["capital"]
    capital = {**known, "lacking_sat": lacking_sat}
    daemon = fake({"status": {**answers.LSP_STATUS, "capital": capital}})
    shown = CommandLine(daemon.datadir).run("lsp", "status").stdout
    assert ("12,345 sat IN COINS, for fees of what is on chain" in shown) is (lacking_sat > 0)


@pytest.mark.parametrize(("left", "said"), [(1_008, "expiry in 1,008 blocks"), (-3, "EXPIRED")])
def test_the_lsps_capital_names_what_is_locked_until_when(fake: Any, left: int, said: str) -> None:
    locked = {
        "factory_id": "f1" * 32,
        "amount_sat": 7,
        "expiry_height": 9,
        "blocks_to_expiry": left,
    }
    capital = {"free_sat": 1, "reserved_sat": 2, "locked_sat": 14, "earned_msat": 0}
    capital["lacking_sat"] = 0
    capital |= market_answers.SOLD
    status = {**answers.LSP_STATUS, "capital": {**capital, "locked": [locked, locked]}}
    daemon = fake({"status": status})
    shown = CommandLine(daemon.datadir).run("lsp", "status").stdout
    assert f"7 sat in f1f1f1f1f1f1: {said}" in shown
    assert "in 2 factories" in shown
