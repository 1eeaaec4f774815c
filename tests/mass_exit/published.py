"""What a mass exit brought on chain, told by the blocks alone; and its children, by the log."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.watch.bumping import N_ANCHORS_MAX, anchor_of
from tests.daemon.town import TownNode

BUMPING_LOG: Final = "cromford.daemon.bumping"
TX_BUMPED, CHILD_REFUSED = "tx_bumped", "child_refused"
ANCHORS_SAT_MAX: Final = N_ANCHORS_MAX * ANCHOR_DUST_SAT  # More is out of a coin.


@dataclass(frozen=True, kw_only=True)
class OnChain:
    """The transactions of an exit by what they are, each with the height of its block.

    Attributes:
        tree: Of the tree.
        commitments: What spends a channel's output.
        children: What spends an anchor of these.
        rest: What spends other outputs of them: sweeps.
    """

    tree: Mapping[Tx, int]
    commitments: Mapping[Tx, int]
    children: Mapping[Tx, int]
    rest: Mapping[Tx, int]

    def parent_of(self, child: Tx) -> Tx:
        """Return whose anchor a child spends that is in no earlier block; it spends one more."""
        anchors = {anchor_of(tx): tx for tx in (*self.tree, *self.commitments)}
        parents = [anchors[one.outpoint] for one in child.inputs if one.outpoint in anchors]
        return max(parents, key=lambda tx: {**self.tree, **self.commitments}[tx])


def on_chain(node: TownNode, *, after_height: int, tree: Collection[str]) -> OnChain:
    """Read the blocks after a height.

    Args:
        node: Whose chain.
        after_height: The last block before the exit.
        tree: The txids of the tree's transactions.
    """
    found: dict[str, dict[Tx, int]] = {
        kind: {} for kind in ("tree", "commitments", "children", "rest")
    }
    kinds: dict[OutPoint, str] = {}  # Of what would spend an output.
    for height in range(after_height + 1, node.call("getblockcount") + 1):
        for tx in _block_txs(node, height):
            kind = _kind_of(tx, kinds, tree)
            if kind is None:
                continue
            found[kind][tx] = height
            if kind in {"tree", "commitments"}:
                for vout, txout in enumerate(tx.outputs):
                    is_anchor = txout.script_pubkey == ANCHOR_SCRIPT
                    kinds[tx.outpoint(vout)] = "children" if is_anchor else "rest"
    return OnChain(**found)


def _kind_of(tx: Tx, kinds: Mapping[OutPoint, str], tree: Collection[str]) -> str | None:
    if str(tx.txid) in tree:
        return "tree"
    spent = {kinds[one.outpoint] for one in tx.inputs if one.outpoint in kinds}
    if "children" in spent:
        return "children"
    if "rest" not in spent:
        return None
    return "rest" if anchor_of(tx) is None else "commitments"


def _block_txs(node: TownNode, height: int) -> Iterator[Tx]:
    block: Any = node.call("getblock", node.call("getblockhash", height), 2)
    for one in block["tx"][1:]:
        yield Tx.parse(bytes.fromhex(one["hex"]))


@dataclass(eq=False)
class Bumped(logging.Handler):
    """Every child that the node took of anybody.

    Attributes:
        height: The tip, told by whoever mines.
        fees: By the parent's and the child's txid; what spends anchors alone is the same child,
            whoever makes it.
        paid: By the parent's txid and the tip, those that coins paid for.
        n_refused: Children that came too late.
    """

    height: int = 0
    fees: dict[Txid, dict[Txid, int]] = field(default_factory=dict)
    paid: dict[tuple[Txid, int], list[int]] = field(default_factory=dict)
    n_refused: int = 0

    @property
    def n_paid(self) -> Counter[Txid]:
        """Return how many children of each parent coins paid for."""
        return Counter(txid for (txid, _), fees in self.paid.items() for _ in fees)

    def __post_init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the log."""
        if record.msg.startswith(CHILD_REFUSED):
            self.n_refused += 1
        elif record.msg.startswith(TX_BUMPED) and isinstance(record.args, tuple):
            _, txid, child, fee_sat = record.args
            assert isinstance(txid, Txid)
            assert isinstance(child, Txid)
            assert isinstance(fee_sat, int)
            self.fees.setdefault(txid, {})[child] = fee_sat
            if fee_sat > ANCHORS_SAT_MAX:
                self.paid.setdefault((txid, self.height), []).append(fee_sat)


@contextmanager
def heard() -> Iterator[Bumped]:
    """Listen to what the daemons of this process say of children."""
    logger, bumped = logging.getLogger(BUMPING_LOG), Bumped()
    level = logger.level
    logger.addHandler(bumped)
    logger.setLevel(logging.INFO)
    try:
        yield bumped
    finally:
        logger.setLevel(level)
        logger.removeHandler(bumped)
