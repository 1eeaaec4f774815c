"""A factory as one picture: its tree, who signs, what it holds, how it stands, what is left."""

from collections.abc import Iterator
from typing import Final

from cromford import told
from cromford.picture.cells import box
from cromford.picture.markup import Markup, joined
from cromford.picture.paper import (
    FONT,
    LINE,
    MARGIN,
    SMALL,
    line_of_text,
    paragraph,
    sheet,
)
from cromford.picture.reading import Badge, Document, DrawnFactory, read_factory
from cromford.picture.timeline import countdown, life_of, timeline
from cromford.picture.tree import TreeDrawing

ID_SHOWN: Final = 12
PREFIX_SHOWN: Final = 8
READING: Final = (
    "Each box is a transaction: what it spends, how many blocks it waits after that, and who signs "
    "it. What spends its outputs stands below."
)
SWATCH: Final = 12.0
GAP: Final = 8.0
_HEX: Final = frozenset("0123456789abcdef")


def factory_picture(document: Document) -> str:
    """Return a factory as SVG.

    Args:
        document: What `factory show` answers with `--json`, of an LSP or of a client.
    """
    factory = read_factory(document)
    prefix = prefix_of(document)
    drawn: list[Markup] = []
    y = MARGIN + 0.0
    head, y = _head(factory, y)
    drawn.append(head)
    life = life_of(document)
    if life is not None:
        line, y = timeline(life, y + GAP / 2, prefix)
        drawn.append(line)
    if factory.root is not None:
        tree = TreeDrawing(factory, factory.root, y + GAP, prefix)
        drawn.append(tree.markup)
        legend, y = _legend(factory, tree.y + GAP, prefix)
        drawn.append(legend)
    for note in notes(factory):
        part, y = paragraph(note, y + 2)
        drawn.append(part)
    return sheet(
        *drawn,
        height=y + MARGIN,
        prefix=prefix,
        title=f"Factory {document['factory_id']}",
        description=described(factory),
    )


def prefix_of(document: Document) -> str:
    """Return what the names within a factory's picture begin with: pictures share a page."""
    found = [c for c in str(document["factory_id"]).lower() if c in _HEX]
    return "f" + "".join(found[:PREFIX_SHOWN])


def described(factory: DrawnFactory) -> str:
    """Return in a sentence what the picture shows."""
    document = factory.document
    parts = [f"{_status(factory)}, {_size(factory)}"]
    txs = [tx for vertex in factory.vertices for tx in vertex.txs]
    if txs:
        n = sum(tx.badge is Badge.ON_CHAIN for tx in txs)
        parts.append(f"{told.counted(len(txs), 'transaction')}, {n:,} of them on chain")
    life = life_of(document)
    if life is not None:
        parts.append(countdown(life)[0])
    return "; ".join((*parts, *notes(factory)))


def notes(factory: DrawnFactory) -> Iterator[str]:
    """Yield what is under way, or went wrong, line by line."""
    document = factory.document
    if document["aborted"]:
        yield f"Aborted: {document['aborted']}"
    for refused in document["refused"]:
        yield f"Refused by the node: {refused['name']}, {refused['reason']}"
    closing = document["closing"]
    if closing is not None:
        yield "A close is under way."
    yield from _closes(factory)
    for leaf in factory.leaves:
        for channel in leaf.channels:
            if channel.told:
                yield f"Client {channel.client}: {channel.told}"
    for output in document.get("sweeping", ()):
        amount = told.sat(output["amount_sat"])
        yield f"To be swept: {output['name']}, {amount}, from height {output['height']:,} on"


def _closes(factory: DrawnFactory) -> Iterator[str]:
    """Yield the closes that are signed: an LSP's by what they spend, and a client's own."""
    document = factory.document
    if factory.is_branch:
        own = document["close"]
        named = [] if own is None else [("your channel", own)]
    else:
        named = [(close["name"], close) for close in document["closed"]]
    for where, close in named:
        txid = "" if close["txid"] is None else f", {close['txid'][:ID_SHOWN]}"
        yield f"A close of {where}: {close['status']}{txid}"


def _status(factory: DrawnFactory) -> str:
    return str(factory.document["status"]).replace("_", " ")


def _size(factory: DrawnFactory) -> str:
    n_clients, amount_sat = factory.n_clients, factory.document["funding_amount_sat"]
    if n_clients is None or amount_sat is None:
        return "nothing of it is known yet"
    return f"{told.counted(n_clients, 'client')}, {told.sat(amount_sat)}"


def _head(factory: DrawnFactory, y: float) -> tuple[Markup, float]:
    name = f"factory {factory.document['factory_id'][:ID_SHOWN]}"
    title, y = paragraph(name, y, font=FONT + 2, style="bold")
    whose = f"; you are client {factory.document['client']}" if factory.is_branch else ""
    about, y = paragraph(f"{_status(factory)}, {_size(factory)}{whose}", y)
    return joined((title, about)), y


def _legend(factory: DrawnFactory, y: float, prefix: str) -> tuple[Markup, float]:
    head, y = paragraph(READING, y, font=SMALL, style="dim")
    drawn: list[Markup] = [head]
    for badge in factory.badges:
        ground = box(badge, MARGIN, y + 1, width=SWATCH, height=SWATCH - 1, prefix=prefix)
        letter = line_of_text(
            badge.letter,
            MARGIN + SWATCH / 2,
            y + LINE - 4,
            font=SMALL,
            style="bold",
            anchor="middle",
        )
        part, y = paragraph(badge.meaning, y, font=SMALL, indent=SWATCH + 6)
        drawn += [ground, *([letter] if badge.letter else []), part]
        y += 2
    return joined(drawn), y
