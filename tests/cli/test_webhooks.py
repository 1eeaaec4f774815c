"""`webhook`: what is passed on, and what people read."""

from typing import Any

import pytest
from tests.answers.fitting import check_fits
from tests.cli.conftest import CommandLine

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
WELL: dict[str, Any] = {
    "name": "shop",
    "url": "https://a.example/b",
    "only": ["invoice_paid"],
    "made_at": 1_700_000_000,
    "cursor": "7f-9",
    "delivered_at": 1_700_000_100,
    "failures": 0,
    "next_try_at": None,
    "last_error": None,
    "missed_after": None,
}
ILL: dict[str, Any] = {
    **WELL,
    "name": "books",
    "only": [],
    "failures": 3,
    "next_try_at": 1_700_000_200,
    "last_error": "status 500",
    "missed_after": "7f-1",
}
ANSWERS: dict[str, Any] = {
    "webhook_add": WELL | {"secret": SECRET, "warnings": ["a.example is not known now"]},
    "webhooks": {"webhooks": [WELL, ILL]},
    "webhook_remove": WELL,
}


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_what_is_asked_for_is_passed_on(fake: Any, role: str) -> None:
    for method, answer in ANSWERS.items():
        check_fits(answer, role, method)
    daemon = fake(ANSWERS)
    line = CommandLine(daemon.datadir)
    url = WELL["url"]
    added = line.document(role, "webhook", "add", "shop", url, "--only", "a", "--only", "b")
    assert added == ANSWERS["webhook_add"]
    line.document(role, "webhook", "add", "shop", url)
    assert line.document(role, "webhook", "list") == ANSWERS["webhooks"]
    line.document(role, "webhook", "remove", "shop")
    assert daemon.calls == [
        ("webhook_add", {"name": "shop", "url": url, "only": ["a", "b"]}),
        ("webhook_add", {"name": "shop", "url": url}),
        ("webhooks", {}),
        ("webhook_remove", {"name": "shop"}),
    ]


def test_people_read_the_secret_once_and_how_each_goes(fake: Any) -> None:
    line = CommandLine(fake(ANSWERS).datadir)
    assert line.run("client", "webhook", "add", "shop", "https://a.example/b").stdout == (
        f"{SECRET}\nthe secret of its signatures; it is shown this once\n"
        "WARNING: a.example is not known now\n"
    )
    listed = line.run("client", "webhook", "list").stdout
    words = listed.split()
    for told in ("shop", "books", "all", "ok", "3", "500;", "7f-1"):
        assert told in words, listed
    assert "AAEC" not in listed
    assert line.run("client", "webhook", "remove", "shop").stdout == "shop is removed\n"


def test_that_there_are_none_is_said(fake: Any) -> None:
    line = CommandLine(fake({"webhooks": {"webhooks": []}}).datadir)
    assert line.run("lsp", "webhook", "list").stdout == "no webhooks\n"
