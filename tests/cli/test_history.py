"""Lists that one can book: pages, one entry by its hash, and comma-separated values."""

import csv
import io
import json
from typing import Any

import pytest
from tests.cli import answers, market_answers
from tests.cli.conftest import CommandLine

from cromford.daemon.api.payment_limits import LIMIT_MAX

HASH = "5a" * 32
N_PAYMENTS = 7
FORWARDS: Any = answers.LSP_PAYMENTS["forwards"]
PAID: dict[str, Any] = answers.PAID


def paged(params: dict[str, Any]) -> dict[str, Any]:
    """Answer as a daemon with few payments, which shows at most three of them at a time."""
    begin = int(params["after"].removeprefix("at-")) if "after" in params else N_PAYMENTS
    numbers = range(begin, max(0, begin - min(3, params["limit"])), -1)
    left = begin - len(numbers)
    return {
        "payments": [answers.PAID | {"number": number} for number in numbers],
        "next": f"at-{left}" if left else None,
    }


def numbers_of(document: dict[str, Any]) -> list[int]:
    return [one["number"] for one in document["payments"]]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_list_has_as_many_entries_as_are_asked_for_however_many_pages_that_takes(
    fake: Any,
) -> None:
    daemon = fake({"payments": paged})
    line = CommandLine(daemon.datadir)
    first = line.document("client", "payments", "--limit", "4")
    assert (numbers_of(first), first["next"]) == ([7, 6, 5, 4], "at-3")
    assert [params["limit"] for _, params in daemon.calls] == [4, 1]
    rest = line.document("client", "payments", "--after", first["next"])
    assert (numbers_of(rest), rest["next"]) == ([3, 2, 1], None)
    assert "more follow: --after at-3" in line.run("client", "payments", "--limit", "4").stdout


def test_filters_are_the_daemons(fake: Any) -> None:
    daemon = fake({"payments": paged, "invoices": paged})
    line = CommandLine(daemon.datadir)
    words = "--status paid --since 2026-11-29T00:00:00Z --until 1800000000 --label tea --limit 1"
    line.document("client", "payments", "--direction", "out", *words.split())
    line.document("client", "invoices", "--external-id", "order-12", "--limit", "1")
    assert [params for _, params in daemon.calls] == [
        {
            "limit": 1,
            "direction": "out",
            "status": "paid",
            "since": 1_795_910_400,
            "until": 1_800_000_000,
            "label": "tea",
        },
        {"limit": 1, "external_id": "order-12"},
    ]
    result = line.run("client", "payments", "--since", "yesterday", "--json")
    assert result.exit_code == 2
    assert "expected a day as in 2026-11-29" in json.loads(result.stderr)["message"]


@pytest.mark.parametrize("until", ["2026-11-28", "2026-11-29"])
def test_a_time_in_which_nothing_can_be_is_refused_and_not_answered_with_nothing(
    fake: Any, until: str
) -> None:
    daemon = fake({"payments": paged})
    words = ("client", "payments", "--since", "2026-11-29", "--until", until, "--json")
    result = CommandLine(daemon.datadir).run(*words)
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (2, "usage")
    assert "--since: expected an earlier time" in json.loads(result.stderr)["message"]
    assert daemon.calls == []


def test_comma_separated_values_are_all_of_it_with_a_heading_and_plain_amounts(fake: Any) -> None:
    daemon = fake({"payments": paged})
    line = CommandLine(daemon.datadir)
    result = line.run("client", "payments", "--csv")
    assert result.stdout_bytes.count(b"\r\n") == 1 + N_PAYMENTS
    rows = rows_of(result.stdout_bytes.decode())
    assert [row["number"] for row in rows] == ["7", "6", "5", "4", "3", "2", "1"]
    assert {params["limit"] for _, params in daemon.calls} == {LIMIT_MAX}
    row = rows[0]
    assert (row["created_at"], row["settled_at"]) == (
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:22Z",
    )
    assert (row["amount_msat"], row["amount_sat"]) == ("40000000", "40000")
    assert (row["fee_msat"], row["fee_sat"], row["received_msat"]) == ("41500", "41", "")
    assert (row["direction"], row["status"], row["payment_hash"]) == ("out", "paid", HASH)
    assert len(rows_of(line.run("client", "payments", "--csv", "--limit", "2").stdout)) == 2


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@sum", "'@sum"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\n =1+1", "'\n =1+1"),
        ("\t=1", "'\t=1"),
        ("\r\n=1", "?\n=1"),
        ("\x1b]0;paid\x07\x9b2J", "?]0;paid??2J"),
        ("\u30b3\u30fc\u3000\u30d2\u30fc", "\u30b3\u30fc\u3000\u30d2\u30fc"),
        ("a=1", "a=1"),
        ('two, "good"\ncoffees', 'two, "good"\ncoffees'),
    ],
)
def test_no_text_is_a_formula_in_a_spreadsheet(fake: Any, text: str, written: str) -> None:
    invoice = answers.INVOICE | {"description": text, "label": text, "external_id": text}
    daemon = fake({"invoices": {"payments": [invoice], "next": None}})
    result = CommandLine(daemon.datadir).run("client", "invoices", "--csv")
    (row,) = rows_of(result.stdout_bytes.decode())
    assert (row["description"], row["label"], row["external_id"]) == (written, written, written)
    assert (row["amount_msat"], row["amount_sat"], row["settled_at"]) == ("1500", "1", "")


def test_forwards_and_sales_are_written_too(fake: Any) -> None:
    held, failed = FORWARDS
    through = {"forwards": [failed], "in_flight": [held], "next": None}
    daemon = fake({"forwards": through, "ledger": market_answers.LEDGER})
    line = CommandLine(daemon.datadir)
    (row,) = rows_of(line.run("lsp", "forwards", "--csv").stdout)
    assert (row["status"], row["fee_sat"], row["settled_at"]) == (
        "failed",
        "41",
        "2023-11-14T22:14:20Z",
    )
    (sale,) = rows_of(line.run("lsp", "ledger", "--csv").stdout)
    assert (sale["amount_sat"], sale["price_msat"], sale["price_sat"]) == (
        "250000",
        "3600500",
        "3600",
    )
    assert sale["in_force_at"] == "2023-11-14T22:14:50Z"
    shown = line.run("lsp", "forwards").stdout
    assert "held: the payee is away" in shown
    assert "failed: incorrect_or_unknown_payment_details" in shown


def test_an_answer_is_json_or_comma_separated_values(fake: Any) -> None:
    line = CommandLine(fake({}).datadir)
    result = line.run("client", "payments", "--csv", "--json")
    assert result.exit_code == 2
    assert "either JSON or comma-separated" in json.loads(result.stderr)["message"]


def test_one_payment_is_shown_by_its_hash(fake: Any) -> None:
    found = {"payments": [answers.PAID]}
    through = {"forwards": [FORWARDS[1]]}
    line = CommandLine(
        fake(
            {"payment_show": found, "forward_show": through, "invoice_show": answers.INVOICE}
        ).datadir
    )
    assert line.document("client", "payments", "show", HASH) == found
    assert line.document("lsp", "forwards", "show", HASH) == through
    assert line.document("client", "invoices", "show", HASH) == answers.INVOICE
    paid = line.run("client", "payments", "show", HASH).stdout
    assert "2023-11-14 22:13:20" in paid
    assert PAID["preimage"] in paid
    shown = line.run("client", "invoices", "show", HASH).stdout
    assert "table 7" in shown
    assert "order-12" in shown


def test_what_an_operator_calls_things_is_handed_on(fake: Any) -> None:
    daemon = fake({"invoice": answers.INVOICE, "pay": answers.PAID})
    line = CommandLine(daemon.datadir)
    line.document("client", "invoice", "1500", "--label", "table 7", "--external-id", "order-12")
    for role in ("client", "lsp"):
        line.document(role, "pay", answers.TEXT, "--label", "rent")
    invoice, *pays = [params for _, params in daemon.calls]
    assert (invoice["label"], invoice["external_id"]) == ("table 7", "order-12")
    assert [params["label"] for params in pays] == ["rent", "rent"]
