"""The tree: what is below stands below, and a cell is as wide as the clients that sign it.

Up to 32 clients each has a column, and so has every vertex above. Of more, a level whose cells are
too narrow for a line is folded: one bar says how many there are, and how they stand. A client knows
no more than its own way out; that is drawn vertex by vertex.
"""

from collections.abc import Sequence
from typing import Final

from cromford import told
from cromford.picture.cells import NARROW, UPRIGHT_STEP, cell, lies, shares
from cromford.picture.markup import Markup, joined
from cromford.picture.paper import LINE, MARGIN, ROOM, SMALL, paragraph
from cromford.picture.reading import (
    Badge,
    DrawnChannel,
    DrawnFactory,
    DrawnTx,
    DrawnVertex,
)

BESIDE: Final = 3 * UPRIGHT_STEP  # So narrow, a cell has no room for its delay.
UPRIGHT: Final = 110.0
FOLDED: Final = 16.0
INDENT: Final = 6.0
GAP: Final = 3.0
_Lines = tuple[tuple[str, ...], str]  # What a cell says, and all that is to be said of it.
_Cell = tuple[Badge, _Lines, float, float]  # How it stands, its lines, its left and its width.


def funding_lines(factory: DrawnFactory) -> _Lines:
    """Return what is said of the funding output, short and in full."""
    funding = factory.document["funding"]
    amount = told.sat(funding["amount_sat"])
    depth = told.counted(funding["confirmations"], "confirmation")
    full = f"funding output {funding['txid']}:{funding['vout']}, {amount}, {depth}"
    return ("funding output", amount, depth), full


def tx_lines(tx: DrawnTx, signers: str) -> _Lines:
    """Return what is said of a transaction, short and in full."""
    delay, waits = "no delay", "no delay"
    if tx.delay_blocks is not None:
        delay = f"+{told.counted(tx.delay_blocks, 'block')}"
        waits = f"waits {told.counted(tx.delay_blocks, 'block')}"
    short: tuple[str, ...] = (tx.name, delay, told.sat(tx.input_sat), signers)
    full = (
        f"{tx.name}: {told.sat(tx.input_sat)}, {waits}, fee {told.sat(tx.fee_sat)}, "
        f"{tx.vsize:,} vB, signed by {signers}; {tx.badge.meaning}"
    )
    if tx.n_superseded:
        full += f"; superseded: {told.counted(tx.n_superseded, 'older state')}"
    if tx.landed:
        short, full = (f"{tx.landed} won", *short), f"{full}; {tx.landed} is on chain instead"
    return short, full


def channel_lines(channel: DrawnChannel) -> _Lines:
    """Return what is said of a channel, short and in full."""
    amount = told.sat(channel.amount_sat)
    whose = "your channel" if channel.is_own else f"client {channel.client}"
    full = f"channel of client {channel.client}: {amount}; {channel.badge.meaning}"
    return (whose, amount), full + (f": {channel.told}" if channel.told else "")


def lstock_lines(leaf: DrawnVertex) -> _Lines:
    """Return what is said of the L-stock at a leaf, short and in full."""
    amount = told.sat(leaf.lstock_sat)
    full = f"liquidity stock of the LSP: {amount}; {leaf.lstock_badge.meaning}"
    return ("L-stock", amount), full


def _what(signed: Sequence[tuple[DrawnVertex, DrawnTx]]) -> str:
    """Return what the transactions of a level are: `34 kickoffs`."""
    kind = signed[0][1].name.partition("_")[0]
    return (
        told.counted(len(signed), "static vertex", "static vertices")
        if kind == "static"
        else (told.counted(len(signed), kind))
    )


def _waits(txs: Sequence[DrawnTx]) -> str:
    """Return how long the transactions of a level wait."""
    delays = sorted({tx.delay_blocks for tx in txs if tx.delay_blocks is not None})
    if not delays:
        return "no delay"
    least = "" if len(delays) == 1 else f"{delays[0]:,} to "
    return f"+{least}{told.counted(delays[-1], 'block')}"


def signers_of(clients: Sequence[int]) -> str:
    """Return who signs in short, `LSP, 1-4`: the clients of a vertex stand side by side."""
    if len(clients) == 1:
        return f"LSP, {clients[0]}"
    return f"LSP, {clients[0]}-{clients[-1]}"


class TreeDrawing:
    """A tree from a height on; `markup` is what is drawn, `y` where the next goes on."""

    def __init__(self, factory: DrawnFactory, root: DrawnVertex, y: float, prefix: str) -> None:
        self.y = y
        self._prefix = prefix
        self._drawn: list[Markup] = []
        badge = Badge.ON_CHAIN if factory.is_funded else Badge.WAITING
        self._row([(badge, funding_lines(factory), MARGIN + 0.0, ROOM + 0.0)])
        if factory.is_branch:
            self._branch(root)
        else:
            self._tree(factory, root)

    @property
    def markup(self) -> Markup:
        """All that is drawn."""
        return joined(self._drawn)

    def _row(self, cells: Sequence[_Cell]) -> None:
        """Draw cells side by side: all lines lie, or those of all cells stand."""
        is_upright = not all(lies(short, width, badge) for badge, (short, _), _, width in cells)
        n_lines = max(len(short) for _, (short, _), _, _ in cells)
        height = UPRIGHT if is_upright else n_lines * LINE + 6.0
        for badge, (short, full), x, width in cells:
            self._drawn.append(
                cell(
                    badge,
                    short,
                    x,
                    self.y,
                    width=width,
                    height=height,
                    prefix=self._prefix,
                    facts=full,
                    is_upright=is_upright,
                )
            )
        self.y += height

    # A client's

    def _branch(self, root: DrawnVertex) -> None:
        vertex, x = root, MARGIN + 0.0
        while True:
            self.y += GAP
            width = MARGIN + ROOM - x
            for tx in vertex.txs:
                self._superseded([(tx, x, width)])
                self._row([(tx.badge, tx_lines(tx, signers_of(vertex.clients)), x, width)])
            if vertex.is_leaf:
                break
            vertex, x = vertex.children[0], x + INDENT
        self.y += GAP
        each = width / len(vertex.channels)
        cells = [
            (channel.badge, channel_lines(channel), x + each * place, each)
            for place, channel in enumerate(vertex.channels)
        ]
        self._row(cells)
        if vertex.lstock_sat:
            self._row([(vertex.lstock_badge, lstock_lines(vertex), x, width)])

    def _superseded(self, places: Sequence[tuple[DrawnTx, float, float]]) -> None:
        """Draw a strip above each transaction that replaced older states."""
        height = LINE + 4.0
        for tx, x, width in places:
            if tx.n_superseded:
                older = told.counted(tx.n_superseded, "older state")
                words = (f"{older} superseded", older, f"{tx.n_superseded:,} older")
                fits = [word for word in words if lies((word,), width, Badge.SUPERSEDED)]
                drawn = cell(
                    Badge.SUPERSEDED,
                    fits[:1],
                    x,
                    self.y,
                    width=width,
                    height=height,
                    prefix=self._prefix,
                    facts=f"{tx.name} superseded {older}",
                )
                self._drawn.append(drawn)
        if any(tx.n_superseded for tx, _, _ in places):
            self.y += height

    # An LSP's

    def _tree(self, factory: DrawnFactory, root: DrawnVertex) -> None:
        n_clients = len(root.clients)
        self._column = ROOM / n_clients
        n_layers = max(vertex.layer for vertex in factory.vertices) + 1
        for layer in range(n_layers):
            inner = [v for v in factory.vertices if v.layer == layer and not v.is_leaf]
            self._level(inner)
        self._level(factory.leaves)
        self._channels(factory)

    def _place(self, vertex: DrawnVertex) -> tuple[float, float]:
        """Return where a vertex begins, and how wide it is."""
        width = self._column * len(vertex.clients)
        return MARGIN + self._column * (vertex.clients[0] - 1), width

    def _level(self, vertices: Sequence[DrawnVertex]) -> None:
        """Draw one level: its vertices transaction by transaction, or all of them as bars."""
        if not vertices:
            return
        self.y += GAP
        n_txs = max(len(vertex.txs) for vertex in vertices)
        narrowest = min(self._place(vertex)[1] for vertex in vertices)
        if narrowest < NARROW:
            self._fold_level(vertices, n_txs)
            return
        for number in range(n_txs):
            signed = [
                (vertex, vertex.txs[number]) for vertex in vertices if number < len(vertex.txs)
            ]
            if narrowest < BESIDE:
                self._say(f"{_what(signed)}: {_waits([tx for _, tx in signed])}")
            self._superseded([(tx, *self._place(vertex)) for vertex, tx in signed])
            self._row(
                [
                    (tx.badge, tx_lines(tx, signers_of(vertex.clients)), *self._place(vertex))
                    for vertex, tx in signed
                ]
            )

    def _fold_level(self, vertices: Sequence[DrawnVertex], n_txs: int) -> None:
        for number in range(n_txs):
            signed = [
                (vertex, vertex.txs[number]) for vertex in vertices if number < len(vertex.txs)
            ]
            txs = [tx for _, tx in signed]
            total = told.sat(sum(tx.input_sat for tx in txs))
            self._fold(f"{_what(signed)}: {_waits(txs)}, {total}", [tx.badge for tx in txs])
            older = sum(tx.n_superseded for tx in txs)
            if older:
                self._say(f"{told.counted(older, 'older state')} superseded")
            for tx in txs:
                if tx.landed:
                    self._say(f"{tx.landed} is on chain in the place of {tx.name}")

    def _fold(self, text: str, badges: Sequence[Badge]) -> None:
        counts = [(badge, badges.count(badge)) for badge in Badge if badge in badges]
        if len(counts) > 1 or counts[0][0] is not Badge.WAITING:
            text += "; " + ", ".join(f"{n:,} {badge.letter or 'waiting'}" for badge, n in counts)
        self._say(text)
        self._drawn.append(
            shares(badges, MARGIN, self.y, width=ROOM, height=FOLDED, prefix=self._prefix)
        )
        self.y += FOLDED + GAP

    def _say(self, text: str) -> None:
        drawn, self.y = paragraph(text, self.y, font=SMALL)
        self._drawn.append(drawn)

    def _channels(self, factory: DrawnFactory) -> None:
        leaves = factory.leaves
        channels = [channel for leaf in leaves for channel in leaf.channels]
        stocked = [leaf for leaf in leaves if leaf.lstock_sat]
        self.y += GAP
        if self._column < NARROW:
            total = told.sat(sum(channel.amount_sat for channel in channels))
            self._fold(
                f"{len(channels):,} channels: {total}", [channel.badge for channel in channels]
            )
            self._fold_lstocks(stocked)
            return
        self._row(
            [
                (
                    channel.badge,
                    channel_lines(channel),
                    MARGIN + self._column * (channel.client - 1),
                    self._column,
                )
                for channel in channels
            ]
        )
        if stocked:
            self._row(
                [(leaf.lstock_badge, lstock_lines(leaf), *self._place(leaf)) for leaf in stocked]
            )

    def _fold_lstocks(self, leaves: Sequence[DrawnVertex]) -> None:
        if leaves:
            total = told.sat(sum(leaf.lstock_sat for leaf in leaves))
            text = f"L-stock of the LSP in {told.counted(len(leaves), 'leaf', 'leaves')}: {total}"
            self._fold(text, [leaf.lstock_badge for leaf in leaves])
