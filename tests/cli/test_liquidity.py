"""Inbound liquidity on the command line: what is shown, what is asked, what is bought."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.cli import answers, market_answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli import asking, market
from cromford.daemon.api.failures import ApiFailure

Fake = Callable[[dict[str, Any]], FakeDaemon]
ASKED = {"amount_sat": 100_000}
BUY: dict[str, Any] = {
    "factory_id": market_answers.FACTORY_ID,
    "quote_id": market_answers.QUOTE["quote_id"],
    "price_max_msat": 1_500_000,
    "beyond_coverage": False,
    "wait_seconds": 2.0,
}
COMMAND = ("client", "buy-liquidity", "100000")


def test_nothing_is_bought_where_nobody_can_be_asked(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run(*COMMAND, "--json")
    assert result.exit_code == 5
    told = json.loads(result.stderr)
    assert told["code"] == "needs_confirmation"
    assert told["message"].endswith("100,000 sat of inbound liquidity cost 1,500 sat")
    assert client.calls == [("liquidity_quote", ASKED)]


def test_the_question_says_what_it_costs_and_what_is_in_the_way(
    client: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    answer = CommandLine(client.datadir).run(*COMMAND, typed="y\n")
    assert answer.exit_code == 0
    for told in (
        "100,000 sat of inbound liquidity cost 1,500 sat; usable for 4,320 blocks",
        "AWAY, so that it cannot be sold now: client 2",
        "poisons would cover 540,000 sat of the 594,000 sat that your channel could hold",
    ):
        assert told in answer.stderr
    assert client.calls == [("liquidity_quote", ASKED), ("liquidity_buy", BUY)]


def test_who_says_no_buys_nothing(client: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    assert CommandLine(client.datadir).run(*COMMAND, typed="n\n").exit_code != 0
    assert [name for name, _ in client.calls] == ["liquidity_quote"]


def test_a_dry_run_shows_the_quote_and_buys_nothing(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run(*COMMAND, "--dry-run")
    assert [name for name, _ in client.calls] == ["liquidity_quote"]
    for told in (
        "dry run: nothing was bought",
        "your channel grows from 500,000 sat to 600,000 sat",
        "1,500 sat, out of your balance",
        "4,320 blocks (about 30.0 days)",
        "clients 1 (you), 2 (AWAY)",
        "540,000 sat of yours, afterwards",
        "valid to height 1,240",
        "it is the last sale of your leaf: after it, your LSP has a seat in its next factory",
    ):
        assert told in result.stdout
    document = CommandLine(client.datadir).document(*COMMAND, "--dry-run")
    assert document == {"quote": market_answers.QUOTE, "purchase": None}


def test_what_is_allowed_beforehand_is_the_most_that_is_paid(client: FakeDaemon) -> None:
    command = CommandLine(client.datadir)
    for asked in (COMMAND, (*COMMAND, "--dry-run")):
        refused = command.run(*asked, "--max-price-msat", "1499999", "--json")
        assert refused.exit_code == 1
        assert json.loads(refused.stderr)["code"] == "price_too_high"
        assert "1,499,999 msat is allowed" in json.loads(refused.stderr)["message"]
    assert command.run(*COMMAND, "--max-price-msat", "2000000").exit_code == 0
    bought = BUY | {"price_max_msat": 2_000_000}
    assert client.calls == [
        ("liquidity_quote", ASKED),
        ("liquidity_quote", ASKED),
        ("liquidity_quote", ASKED),
        ("liquidity_buy", bought),
    ]


def test_every_option_reaches_the_daemon(client: FakeDaemon) -> None:
    options = ("--factory", "f0f0", "--from-payment", "ab" * 32, "--beyond-coverage", "--yes")
    command = ("client", "buy-liquidity", "all", *options, "--wait")
    result = CommandLine(client.datadir).run(*command)
    assert result.exit_code == 0
    assert "bought: your channel holds 600,000 sat now, for 1,500 sat" in result.stdout
    asked = {"factory_id": "f0f0", "payment_hash": "ab" * 32}
    bought = BUY | {"beyond_coverage": True, "wait_seconds": 90.0}
    assert client.calls == [("liquidity_quote", asked), ("liquidity_buy", bought)]


def test_what_is_waited_for_and_not_over_is_no_success(fake: Fake) -> None:
    client = fake(answers.CLIENT_ANSWERS | {"liquidity_buy": market_answers.ORDERED})
    result = CommandLine(client.datadir).run(*COMMAND, "--yes", "--wait")
    assert result.exit_code == 1
    assert "neither yours nor over" in result.stderr


@pytest.mark.parametrize("n_lost", [1, 2])
def test_where_the_answer_is_lost_it_is_asked_for_again_by_the_same_quote(
    fake: Fake, n_lost: int
) -> None:
    lost = [ApiFailure("connection_lost", "the daemon closed the connection")] * n_lost

    def buy(_params: dict[str, Any]) -> object:
        if lost:
            raise lost.pop()
        return market_answers.BOUGHT

    client = fake(answers.CLIENT_ANSWERS | {"liquidity_buy": buy})
    result = CommandLine(client.datadir).run(*COMMAND, "--yes")
    names = [name for name, _ in client.calls]
    assert names == ["liquidity_quote", "liquidity_buy", "liquidity_buy"]
    assert client.calls[1] == client.calls[2]
    assert (result.exit_code == 0) is (n_lost == 1)
    if n_lost == 2:
        assert "it may be bought, or not" in result.stderr
        assert "to ask again is to buy once more" in result.stderr


def test_a_payment_that_pays_is_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market, "PAYMENT_POLL_SECONDS", 0.0)
    answers_left = [ApiFailure("payment_not_here", "none waits"), market_answers.QUOTE]

    def quote(_params: dict[str, Any]) -> object:
        answer = answers_left.pop(0)
        if isinstance(answer, ApiFailure):
            raise answer
        return answer

    client = fake(answers.CLIENT_ANSWERS | {"liquidity_quote": quote})
    from_payment = (*COMMAND, "--from-payment", "ab" * 32, "--yes")
    assert CommandLine(client.datadir).run(*from_payment, "--wait").exit_code == 0
    assert [name for name, _ in client.calls] == [*["liquidity_quote"] * 2, "liquidity_buy"]
    answers_left[:] = [ApiFailure("payment_not_here", "none waits")]
    refused = CommandLine(client.datadir).run(*from_payment)
    assert refused.exit_code == 1
    assert "none waits" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("client", "buy-liquidity", "0"), "received 0, or all"),
        (("client", "buy-liquidity", "1.5"), 'received "1.5", or all'),
        ((*COMMAND, "--wait", "--dry-run"), "there is nothing to wait for"),
        ((*COMMAND, "--max-price-msat", "-1"), "-1 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_daemon_is_asked(
    client: FakeDaemon, words: tuple[str, ...], said: str
) -> None:
    result = CommandLine(client.datadir).run(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert client.calls == []


def test_of_a_price_only_what_is_named_changes(lsp: FakeDaemon) -> None:
    command = CommandLine(lsp.datadir)
    assert command.run("lsp", "set-price", "--base-msat", "7", "--on").exit_code == 0
    assert command.run("lsp", "set-price", "--per-month", "0").exit_code == 0
    assert lsp.calls == [
        ("set_price", {"base_msat": 7, "is_for_sale": True}),
        ("set_price", {"per_month": 0}),
    ]
    lsp.calls.clear()
    for words in ((), ("--per-million", "1000001"), ("--min-sat", "0"), ("--base-msat", "-1")):
        assert command.run("lsp", "set-price", *words).exit_code == 2
    assert lsp.calls == []


def test_a_price_is_shown_in_percent_and_with_an_example(lsp: FakeDaemon, fake: Fake) -> None:
    shown = CommandLine(lsp.datadir).run("lsp", "price").stdout
    assert "100 sat, 0.2 % of the amount, and 0.4 % for each 30 days; at least 10,000 sat" in shown
    assert "100,000 sat for 12,960 blocks (about 90.0 days) cost 1,500 sat" in shown
    other = fake({"price": market_answers.PRICE | {"is_for_sale": False}})
    assert "not for sale" in CommandLine(other.datadir).run("lsp", "price").stdout


def test_the_ledger_tells_what_was_sold_and_what_all_of_it_earned(
    lsp: FakeDaemon, fake: Fake
) -> None:
    shown = CommandLine(lsp.datadir).run("lsp", "ledger").stdout
    for told in (
        "1,234",
        "250,000 sat",
        "3,600,500 msat",
        "750,000 sat",
        "250,000 sat for 3,600,500 msat in 1 sale",
        "earned by forwarding",
    ):
        assert told in shown
    other = fake({"ledger": market_answers.LEDGER | {"sales": []}})
    assert "nothing was sold" in CommandLine(other.datadir).run("lsp", "ledger").stdout


def test_an_lsp_reads_what_is_left_of_each_leaf_and_who_holds_out(fake: Fake) -> None:
    selling = [market_answers.ADVANCE]
    shows = {
        "factory_show": answers.SHOWN | {"advances": selling},
        "factories": {"factories": [answers.lsp_summary(advances=selling)]},
    }
    lsp = fake(answers.LSP_ANSWERS | shows)
    shown = CommandLine(lsp.datadir).run("lsp", "factory", "show", answers.FACTORY_ID).stdout
    for told in (
        "1 of 0..3",
        "250,000 sat",
        "leaf 0: 100,000 sat for client 2, state 2 is to be signed; waits for client 1",
    ):
        assert told in shown
    assert "waits for client 1" in CommandLine(lsp.datadir).run("lsp", "factories").stdout
    status = CommandLine(lsp.datadir).run("lsp", "status").stdout
    assert "250,000 sat for 3,600,500 msat in 1 sale" in status
    assert "0.2 % of the amount" in status


@pytest.mark.parametrize("command", ["balance", "status"])
def test_a_client_reads_what_is_covered_and_how_far_its_purchase_is(
    fake: Fake, command: str
) -> None:
    stands = market_answers.LIQUIDITY | market_answers.BUYING
    channels = [answers.client_channel(liquidity=stands)]
    client = fake(
        {
            "balance": answers.CLIENT_BALANCE | {"channels": channels},
            "status": answers.CLIENT_STATUS | {"channels": channels},
        }
    )
    shown = CommandLine(client.datadir).run("client", command).stdout
    for told in (
        "you are buying 100,000 sat for 1,500 sat: the LSP is to finish the leaf's next state",
        "poisons cover 480,000 sat of yours; 5,000 sat are BEYOND that; of 7 sat in payments",
        "inbound liquidity for sale: 250,000 sat in 2 sales",
    ):
        assert told in shown


@pytest.mark.parametrize("command", ["balance", "status"])
@pytest.mark.parametrize(
    ("status", "is_for_sale"),
    [
        *((status, True) for status in ("open", "offline", "stale", "unmarkable", "pending")),
        *((status, False) for status in ("exiting", "closing", "ending", "moved_out", "behind")),
        *((status, False) for status in ("marked", "failed", "displaced", "dead")),
    ],
)
def test_nothing_is_for_sale_to_a_channel_that_grows_no_more(
    fake: Fake, command: str, status: str, *, is_for_sale: bool
) -> None:
    channels = [answers.client_channel(status=status)]
    client = fake(
        {
            "balance": answers.CLIENT_BALANCE | {"channels": channels},
            "status": answers.CLIENT_STATUS | {"channels": channels},
        }
    )
    shown = CommandLine(client.datadir).run("client", command).stdout
    assert ("for sale" in shown) == is_for_sale


def test_a_client_reads_that_a_neighbour_buys(fake: Fake) -> None:
    others = {"advance": market_answers.BUYING["advance"], "covered_sat": None, "sales_left": 0}
    channels = [answers.client_channel(liquidity=market_answers.LIQUIDITY | others)]
    client = fake({"balance": answers.CLIENT_BALANCE | {"channels": channels}})
    shown = CommandLine(client.datadir).run("client", "balance").stdout
    assert "a neighbour buys; the LSP is to finish the leaf's next state" in shown
    assert "poisons cover" not in shown
    assert "for sale" not in shown
