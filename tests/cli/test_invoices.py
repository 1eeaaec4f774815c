"""What an invoice says, without a daemon; and waiting until one is paid."""

import json
from typing import Any

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon
from tests.invoice.orders import LSP_NODE_ID, order, signer

from cromford.cli import invoices
from cromford.daemon.api.payments import nothing_found
from cromford.invoice.bolt11 import sign_invoice

HASH = "ab" * 32
OPEN = answers.INVOICE | {"payment_hash": HASH}
PAID = answers.INVOICE | {"status": "paid", "payment_hash": HASH, "received_msat": 1_500}


def telling(*stands: dict[str, Any], events: int = 0) -> dict[str, Any]:
    """Return the answers of a daemon whose list is another each time; the last one stays."""
    left = list(stands)
    told = [{"event": "invoice_paid", "cursor": "7f-1"}] * events

    def shown(params: dict[str, Any]) -> dict[str, Any]:
        if params["payment_hash"] != HASH:
            raise nothing_found("invoice", bytes.fromhex(params["payment_hash"]))
        return left.pop(0) if len(left) > 1 else left[0]

    def happened(params: dict[str, Any]) -> dict[str, Any]:
        assert (params["about"], params["only"]) == (HASH, ["invoice_paid", "invoice_expired"])
        return {"events": told, "cursor": "7f-1"}

    return {"invoice_show": shown, "events": happened}


def test_an_invoice_that_is_paid_meanwhile_ends_the_wait_with_0(fake: Any) -> None:
    line = CommandLine(fake(telling(OPEN, PAID, events=1)).datadir)
    assert line.document("client", "invoices", "wait", HASH.upper()) == PAID
    assert line.run("client", "invoices", "wait", HASH).stdout.startswith("paid: 1,500 msat")


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [("open", "invoice_open", True), ("expired", "invoice_expired", False)],
)
def test_one_that_is_not_paid_ends_it_with_1(
    fake: Any, status: str, code: str, *, retryable: bool
) -> None:
    line = CommandLine(fake(telling(OPEN | {"status": status})).datadir)
    result = line.run("client", "invoices", "wait", HASH, "--seconds", "0", "--json")
    error = json.loads(result.stderr)
    assert (result.exit_code, error["code"], error["retryable"]) == (1, code, retryable)


def test_one_that_nobody_bounds_is_waited_for_however_late_it_expires(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    years = iter(range(100))
    monkeypatch.setattr(invoices, "_now", lambda: next(years) * 365 * 86_400.0)
    stands = telling(OPEN, PAID)
    asked: list[Any] = []

    def happened(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        event = {"event": "invoice_paid", "cursor": "7f-1"}
        return {"events": [event] if len(asked) > 2 else [], "cursor": "7f-1"}

    line = CommandLine(fake(stands | {"events": happened}).datadir)
    assert line.document("client", "invoices", "wait", HASH) == PAID
    assert len(asked) == 3


def test_one_that_nobody_made_here_is_not_waited_for(fake: Any) -> None:
    line = CommandLine(fake(telling(OPEN)).datadir)
    result = line.run("client", "invoices", "wait", "cd" * 32, "--json")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (4, "invoice_not_found")


def test_what_is_no_invoice_is_said_by_field(client: FakeDaemon) -> None:
    for words in (("decode",), ("invoices", "wait")):
        result = CommandLine(client.datadir).run("client", *words, "lnbcrt1qqq", "--json")
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (2, "invalid_invoice")
    assert client.calls == []


def test_what_an_invoice_says_is_shown_without_a_daemon(client: FakeDaemon) -> None:
    invoice = order()
    text = sign_invoice(invoice, signer().sign_node)
    line = CommandLine(client.datadir)
    document = line.document("client", "decode", text)
    assert (document["amount_msat"], document["payee"]) == (12_345_000, invoice.payee.hex())
    assert document["payment_hash"] == invoice.payment_hash.hex()
    assert document["expires_at"] - document["created_at"] == 3600
    assert document["lsp"]["node_id"] == LSP_NODE_ID.hex()
    assert invoice.payment_secret.hex() not in json.dumps(document)
    shown = line.run("client", "decode", f"lightning:{text.upper()}").stdout
    assert "12,345 sat" in shown
    assert "two coffees and a croissant" in shown
    assert client.calls == []


def test_one_that_is_over_says_so(client: FakeDaemon) -> None:
    text = sign_invoice(order(created_at=1_000_000_000), signer().sign_node)
    line = CommandLine(client.datadir)
    assert line.document("client", "decode", text)["expired"] is True
    assert "EXPIRED at 2001-09-09" in line.run("client", "decode", text).stdout


def test_an_invoice_may_be_named_by_itself(fake: Any) -> None:
    text = sign_invoice(order(payment_hash=bytes.fromhex(HASH)), signer().sign_node)
    line = CommandLine(fake(telling(PAID)).datadir)
    assert line.document("client", "invoices", "wait", text) == PAID
