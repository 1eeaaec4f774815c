"""What a picture needs of a factory's document: its tree as a tree, and how each part stands.

The document is that of `factory show`, of an LSP or of a client. What is not in it is not drawn.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

Document = Mapping[str, Any]

LSP_INDEX: Final = 0
NEVER: Final = frozenset({"aborted", "dead", "displaced", "given_up", "swept"})
ENDED: Final = frozenset({"closed"})
CONFIRMED: Final = "confirmed"  # The status of a close that is in a block.
SEGWIT_MARK: Final = slice(8, 12)  # After the version; without it a transaction has no signature.


class Badge(Enum):
    """How a part of a factory stands: a letter for those who see no colour, and what it means."""

    WAITING = ("", "signed, off chain")
    UNSIGNED = ("U", "not signed yet")
    ON_CHAIN = ("C", "on chain")
    SUPERSEDED = ("S", "superseded by a newer state")
    CLOSED = ("E", "ended by a close that is in a block")
    VOID = ("X", "void: nothing of it can be in a block any more")
    LEAVING = ("L", "a channel on its way to the chain, or there")
    MOVED = ("M", "a channel whose client moved out")
    FAILED = ("F", "a channel that failed")

    @property
    def letter(self) -> str:
        """What stands in its corner."""
        return self.value[0]

    @property
    def meaning(self) -> str:
        """What it means."""
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTx:
    """A transaction of a vertex.

    Attributes:
        name: Its own.
        badge: How it stands.
        delay_blocks: How long it waits after what it spends; None: it does not.
        input_sat: What it spends.
        fee_sat: What it pays.
        vsize: Of it, signed.
        n_superseded: How many older states it replaced.
        landed: The name of an older state that is on chain in its place; empty: none.
    """

    name: str
    badge: Badge
    delay_blocks: int | None
    input_sat: int
    fee_sat: int
    vsize: int
    n_superseded: int = 0
    landed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnChannel:
    """A client's channel at its leaf; `is_own` to whoever asked, if that is a client."""

    client: int
    amount_sat: int
    badge: Badge
    is_own: bool
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnVertex:
    """A vertex: its transactions, who signs them, and what is below."""

    layer: int
    txs: tuple[DrawnTx, ...]
    clients: tuple[int, ...]
    children: tuple["DrawnVertex", ...]
    channels: tuple[DrawnChannel, ...]
    lstock_sat: int
    lstock_badge: Badge

    @property
    def is_leaf(self) -> bool:
        """Whether channels hang from it."""
        return not self.children

    def vertices(self) -> Iterator["DrawnVertex"]:
        """Yield this one and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.vertices()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFactory:
    """A factory, as far as it is known to whoever asked.

    Attributes:
        document: Where it is from.
        root: Its tree, or a client's branch; None while nothing of it is known.
        n_clients: How many it has; None while that is not known.
        is_branch: Whether it is a client's, who sees no more of the tree than its own way out.
    """

    document: Document
    root: DrawnVertex | None
    n_clients: int | None
    is_branch: bool

    @property
    def is_funded(self) -> bool:
        """Whether its funding is in a block."""
        funding = self.document["funding"]
        return funding is not None and funding["confirmations"] > 0

    @property
    def vertices(self) -> tuple[DrawnVertex, ...]:
        """Every vertex, depth first."""
        return () if self.root is None else tuple(self.root.vertices())

    @property
    def leaves(self) -> tuple[DrawnVertex, ...]:
        """Those that channels hang from, left to right."""
        return tuple(vertex for vertex in self.vertices if vertex.is_leaf)

    @property
    def badges(self) -> tuple[Badge, ...]:
        """Every badge that is in the picture, in the order of the legend."""
        found = {tx.badge for vertex in self.vertices for tx in vertex.txs}
        found |= {channel.badge for leaf in self.leaves for channel in leaf.channels}
        found |= {leaf.lstock_badge for leaf in self.leaves if leaf.lstock_sat}
        if any(tx.n_superseded for vertex in self.vertices for tx in vertex.txs):
            found.add(Badge.SUPERSEDED)
        if self.is_funded:
            found.add(Badge.ON_CHAIN)
        return tuple(badge for badge in Badge if badge in found)


def read_factory(document: Document) -> DrawnFactory:
    """Return a factory as it is drawn.

    Args:
        document: What `factory show` answers with `--json`.
    """
    return _Reader(document).factory()


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._txs: list[Document] = list(document["transactions"])
        self._children: dict[str, list[Document]] = {}
        for tx in self._txs:
            if tx["parent"] is not None:
                self._children.setdefault(tx["parent"], []).append(tx)
        self._published = {_unversioned(name): name for name in document["published"]}
        self._is_branch = "leaves" not in document

    def factory(self) -> DrawnFactory:
        root = next((tx for tx in self._txs if tx["parent"] is None), None)
        is_gone = self._document["status"] in ENDED
        return DrawnFactory(
            document=self._document,
            root=None if root is None else self._vertex(root, is_closed=is_gone),
            n_clients=self._document["n_clients"],
            is_branch=self._is_branch,
        )

    def _vertex(self, first: Document, *, is_closed: bool) -> DrawnVertex:
        """Return the vertex that begins with a transaction.

        Args:
            first: A kickoff, or the one of a static vertex.
            is_closed: Whether a close spent what is above it.
        """
        txs, drawn = [first], []
        if first["kind"] == "kickoff":
            txs += self._spending(first)[:1]
        for tx in txs:
            is_closed = is_closed or _unversioned(tx["name"]) in self._closed_names
            drawn.append(self._tx(tx, is_closed=is_closed))
        below = [] if txs[-1]["kind"] == "kickoff" else self._spending(txs[-1])
        outputs = txs[-1]["outputs"]
        return DrawnVertex(
            layer=first["layer"],
            txs=tuple(drawn),
            clients=tuple(index for index in first["signers"] if index != LSP_INDEX),
            children=tuple(self._vertex(tx, is_closed=is_closed) for tx in below),
            channels=tuple(
                self._channel(output, drawn[-1].badge)
                for output in outputs
                if output["kind"] == "channel"
            ),
            lstock_sat=sum(o["amount_sat"] for o in outputs if o["kind"] == "lstock"),
            lstock_badge=drawn[-1].badge,
        )

    def _spending(self, parent: Document) -> list[Document]:
        found = self._children.get(parent["name"], [])
        return sorted(found, key=lambda tx: int(tx["parent_vout"]))

    def _tx(self, tx: Document, *, is_closed: bool) -> DrawnTx:
        published = self._published.get(_unversioned(tx["name"]), "")
        return DrawnTx(
            name=tx["name"],
            badge=self._badge(tx, published, is_closed=is_closed),
            delay_blocks=tx["nsequence"] if tx["kind"] == "state" else None,
            input_sat=tx["input_amount_sat"],
            fee_sat=tx["fee_sat"],
            vsize=tx["vsize"],
            n_superseded=tx["state_index"] or 0,
            landed=published if published not in {"", tx["name"]} else "",
        )

    def _badge(self, tx: Document, published: str, *, is_closed: bool) -> Badge:
        if published == tx["name"]:
            return Badge.ON_CHAIN
        if published:
            return Badge.VOID  # An older state won: the newest can never be in a block.
        if is_closed:
            return Badge.CLOSED
        if self._document["status"] in NEVER:
            return Badge.VOID
        is_signed = tx["tx_hex"][SEGWIT_MARK] == "0001"
        return Badge.WAITING if is_signed else Badge.UNSIGNED

    def _channel(self, output: Document, leaf: Badge) -> DrawnChannel:
        client = output["client"]
        badge, told = self._channel_badge(client, leaf)
        return DrawnChannel(
            client=client,
            amount_sat=output["amount_sat"],
            badge=badge,
            is_own=self._is_branch and client == self._document["client"],
            told=told,
        )

    def _channel_badge(self, client: int, leaf: Badge) -> tuple[Badge, str]:
        """Return how a channel stands, and why, where somebody said so."""
        document = self._document
        if self._is_branch:
            if client != document["client"]:
                return leaf, ""
            failure = document["channel_failed"]
            leaves, moved = document["is_exiting"], document["status"] == "moved_out"
        else:
            failure = document["channels_failed"].get(str(client))
            leaves, moved = client in document["leaving"], client in document["moved_out"]
        if f"channel {client}" in self._closed_names:
            return Badge.CLOSED, ""
        if moved:
            return Badge.MOVED, ""
        if leaves:
            return Badge.LEAVING, failure or ""
        if failure:
            return Badge.FAILED, failure
        return leaf, ""

    @property
    def _closed_names(self) -> frozenset[str]:
        """What closes that are in a block took the place of, as an LSP knows it."""
        return frozenset(
            _unversioned(close["name"])
            for close in ([] if self._is_branch else self._document["closed"])
            if close["status"] == CONFIRMED
        )


def _unversioned(name: str) -> str:
    """Return the name of a state without its version: `state_0 v2` is one of `state_0`."""
    return name.partition(" v")[0]
