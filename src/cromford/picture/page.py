"""A factory as one page that needs nothing else: its picture, and all of its numbers as tables."""

from collections.abc import Iterable, Sequence
from typing import Final

from cromford import told
from cromford.picture.factory import described, factory_picture
from cromford.picture.markup import Markup, element, joined, words
from cromford.picture.reading import Document, DrawnFactory, DrawnVertex, read_factory
from cromford.picture.tree import signers_of

ROWS_OPEN: Final = 40  # A longer table is folded.
# The page may not load anything, from anywhere, nor run anything, whatever stands in it.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root{color-scheme:light dark}
body{margin:0 auto;padding:8px;max-width:960px;font:16px/1.4 system-ui,-apple-system,"Segoe UI",
Roboto,sans-serif;color:#1b1f24;background:#fff}
svg{display:block;margin:0 auto}h1{font-size:1.15em;overflow-wrap:anywhere}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85em}td,th{padding:2px 10px 2px 0;text-align:left;
white-space:nowrap;vertical-align:top}td.number,th.number{text-align:right}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:12em}
tr+tr td{border-top:1px solid #d0d7de}summary{cursor:pointer;font-weight:600}
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}
tr+tr td{border-color:#30363d}}
"""
_NUMBERS: Final = frozenset({"waits", "spends", "fee", "size", "amount", "height"})
_LONG: Final = frozenset({"how it stands", "comes back", "why"})


def factory_page(document: Document) -> str:
    """Return a factory as one HTML page.

    Args:
        document: What `factory show` answers with `--json`, of an LSP or of a client.
    """
    factory = read_factory(document)
    title = f"Factory {document['factory_id']}"
    body = element(
        "body",
        words("h1", title),
        Markup(factory_picture(document)),
        words("p", described(factory)),
        *_tables(factory),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        words("title", title),
        Markup(f"<style>{_STYLE.strip()}</style>"),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _tables(factory: DrawnFactory) -> Iterable[Markup]:
    document = factory.document
    heights = [
        (name, f"{document[field]:,}")
        for name, field in (
            ("dying from", "dying_height"),
            ("exit deadline", "exit_deadline_height"),
            ("expiry", "expiry_height"),
        )
        if document[field] is not None
    ]
    yield _table("Heights", ("what", "height"), heights)
    yield _table(
        "Transactions",
        ("name", "how it stands", "waits", "spends", "fee", "size", "signed by", "txid"),
        _transactions(factory),
    )
    yield _table(
        "Channels",
        ("client", "amount", "how it stands", "why"),
        [
            (
                f"{channel.client} (you)" if channel.is_own else f"{channel.client}",
                told.sat(channel.amount_sat),
                channel.badge.meaning,
                channel.told,
            )
            for leaf in factory.leaves
            for channel in leaf.channels
        ],
    )
    yield _table(
        "Ledger",
        ("paid by", "for", "amount", "comes back"),
        [
            (
                line["payer"],
                line["item"].replace("_", " "),
                told.sat(line["amount_sat"]),
                line["recovered"],
            )
            for line in document.get("ledger", ())
        ],
    )


def _transactions(factory: DrawnFactory) -> list[Sequence[str]]:
    txids = {tx["name"]: tx["txid"] for tx in factory.document["transactions"]}
    return [row for vertex in factory.vertices for row in _rows(vertex, txids)]


def _rows(vertex: DrawnVertex, txids: Document) -> Iterable[Sequence[str]]:
    for tx in vertex.txs:
        waits = "" if tx.delay_blocks is None else told.counted(tx.delay_blocks, "block")
        stands = tx.badge.meaning
        if tx.landed:
            stands += f"; {tx.landed} is on chain instead"
        if tx.n_superseded:
            stands += f"; superseded {told.counted(tx.n_superseded, 'older state')}"
        yield (
            tx.name,
            stands,
            waits,
            told.sat(tx.input_sat),
            told.sat(tx.fee_sat),
            f"{tx.vsize:,} vB",
            signers_of(vertex.clients),
            txids[tx.name],
        )


def _table(name: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table with its name; nothing, without rows."""
    if not rows:
        return joined(())
    table = element(
        "table",
        element("tr", *(words("th", heading, class_=_class(heading)) for heading in headings)),
        *(
            element(
                "tr",
                *(
                    words("td", value, class_=_class(heading))
                    for heading, value in zip(headings, row, strict=True)
                ),
            )
            for row in rows
        ),
    )
    scrolled = element("div", table, class_="scroll")
    summary = words("summary", f"{name} ({len(rows):,})")
    is_open = {} if len(rows) > ROWS_OPEN else {"open": "open"}
    return element("details", summary, scrolled, **is_open)


def _class(heading: str) -> str:
    if heading in _NUMBERS:
        return "number"
    return "long" if heading in _LONG else "word"
