"""A factory's page: one file, that runs nothing and loads nothing, with every number as text."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.picture.documents import Document, client_document, lsp_document, tree_for, with_state
from tests.picture.drawn import check
from tests.picture.test_factory_picture import HOSTILE, SHOWN_OF_HOSTILE

from cromford import told
from cromford.picture.page import ROWS_OPEN, factory_page

VOID = {"meta", "rect", "path", "circle"}


class Page(HTMLParser):
    """What is on a page: its elements, and the cells of its tables by their names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._name = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.tables[self._name].append([])
        if tag in {"td", "th"}:
            self.tables[self._name][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "summary":
            self._name = data.partition(" (")[0]
            self.tables[self._name] = []
        elif self._open and self._open[-1] in {"td", "th"}:
            self.tables[self._name][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def page_of(document: Document) -> Page:
    return Page(factory_page(document))


def svg_of(html: str) -> str:
    (found,) = re.findall("<svg.*</svg>", html, re.DOTALL)
    return str(found)


def lsp_page(n_clients: int = 8, **changes: Any) -> Page:
    return page_of(lsp_document(tree_for(n_clients), **changes))


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_it_holds_the_picture_and_needs_nothing_else(role: str) -> None:
    tree = tree_for(8)
    html = factory_page(lsp_document(tree) if role == "lsp" else client_document(tree, 2))
    check(svg_of(html))
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policies = [meta for meta in page.of("meta") if meta.get("http-equiv")]
    assert policies == [
        {
            "http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; style-src 'unsafe-inline'",
        }
    ]
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert {"charset": "utf-8"} in page.of("meta")
    assert [meta for meta in page.of("meta") if meta.get("name") == "viewport"]


def test_its_tables_say_every_transaction_and_every_channel() -> None:
    document = lsp_document(tree_for(8))
    tables = page_of(document).tables
    assert len(tables["Transactions"]) == 1 + len(document["transactions"])
    for row, tx in zip(tables["Transactions"][1:], document["transactions"], strict=True):
        delay = "432 blocks" if tx["kind"] == "state" else ""
        assert row[0] == tx["name"]
        assert row[2:6] == [
            delay,
            told.sat(tx["input_amount_sat"]),
            told.sat(tx["fee_sat"]),
            f"{tx['vsize']} vB",
        ]
        assert row[7] == tx["txid"]
    assert [row[:2] for row in tables["Channels"][1:]] == [
        [f"{client}", "1,000,000 sat"] for client in range(1, 9)
    ]
    assert [row[1] for row in tables["Heights"][1:]] == [
        f"{document[field]:,}"
        for field in ("dying_height", "exit_deadline_height", "expiry_height")
    ]
    assert [row[2] for row in tables["Ledger"][1:]] == [
        told.sat(line["amount_sat"]) for line in document["ledger"]
    ]


def test_what_was_replaced_and_what_won_is_said_in_the_row() -> None:
    tree = tree_for(8)
    replaced = with_state(lsp_document(tree), "state_1", 2)
    rows = {row[0]: row for row in page_of(replaced).tables["Transactions"]}
    assert rows["state_1 v2"][1] == "signed, off chain; superseded 2 older states"
    lost = with_state(lsp_document(tree, published=["state_1"]), "state_1", 1)
    rows = {row[0]: row for row in page_of(lost).tables["Transactions"]}
    assert "state_1 is on chain instead" in rows["state_1 v1"][1]


def test_a_clients_page_says_which_channel_is_its_own_and_knows_no_ledger() -> None:
    tables = page_of(client_document(tree_for(8), 2)).tables
    assert [row[0] for row in tables["Channels"][1:]] == ["1", "2 (you)"]
    assert "Ledger" not in tables


def test_a_page_of_nothing_has_no_tables() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("terms", "funding", "n_clients", "funding_amount_sat", "expiry_height"), None
    )
    nothing |= dict.fromkeys(("exit_deadline_height", "dying_height", "period"), None)
    page = page_of(client_document(tree_for(8), 1, transactions=[], **nothing))
    assert page.tables == {}


def test_a_long_table_is_folded() -> None:
    few, many = lsp_page(8), lsp_page(64)
    assert all("open" in details for details in few.of("details"))
    assert len(many.tables["Transactions"]) > ROWS_OPEN
    assert ["open" in details for details in many.of("details")] == [True, False, False, True]


def test_hostile_words_stay_words() -> None:
    page = lsp_page(
        factory_id=HOSTILE, status=HOSTILE, aborted=HOSTILE, channels_failed={"1": HOSTILE}
    )
    assert page.of("script") == []
    assert page.tables["Channels"][1][3] == SHOWN_OF_HOSTILE


def test_the_same_document_gives_the_same_page() -> None:
    document = lsp_document(tree_for(8))
    assert factory_page(document) == factory_page(dict(reversed(document.items())))
