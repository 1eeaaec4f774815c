"""Where every satoshi of a factory's funding output went, by the chain alone; and what moved."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.close_scopes import lsp_scope
from tests.dying.world import MOVERS, SEATS, DyingWorld, balance_msat
from tests.protocol.paying_clients import book

LSP: Final = "LSP"
MINERS: Final = "miners"
ANYBODY: Final = "anybody"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one got: where, in which block, how much.

    Attributes:
        who: By letter; the LSP; miners; anybody.
        what: The transaction that pays it, in words.
        outpoint: Which output; None for a fee.
        height: Of its block.
        amount_sat: How much.
    """

    who: str
    what: str
    outpoint: OutPoint | None
    height: int
    amount_sat: int


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What one got in the channel that it moved to: the outpoint that it hangs from, and msat."""

    who: str
    outpoint: OutPoint
    amount_msat: int


class Accounts:
    """What became of the funding output of a world's factory that died.

    Attributes:
        funding_sat: How much was in it.
        pieces: Where it is now, in the order of blocks.
        moved: What clients have in the next factory.
    """

    def __init__(self, world: DyingWorld) -> None:
        self.world = world
        self.funding_sat = world.old.attempt.tree.funding_amount_sat
        self.pieces: list[Piece] = []
        self.moved = [self._moved(name) for name in MOVERS]
        self._letters = {world.people[name].name: name for name in SEATS}
        self._nodes = {node.tx.txid: node.name for node in world.old.attempt.tree.nodes}
        self._closes = dict(self._closed())
        self._unspent = {world.old.attempt.funding_outpoint: "funding"}
        self._follow()
        assert not self._unspent, f"nobody's: {self._unspent}"

    @property
    def total_sat(self) -> int:
        """All of it that is somewhere."""
        return sum(piece.amount_sat for piece in self.pieces)

    def of(self, who: str) -> list[Piece]:
        """Return what one got on chain."""
        return [piece for piece in self.pieces if piece.who == who]

    def _moved(self, name: str) -> Moved:
        client = self.world.people[name]
        link = book(client).links[self.world.held(client).setting.channel_id]
        return Moved(
            who=name,
            outpoint=link.setting.funding.outpoint,
            amount_msat=balance_of(link).own_msat,
        )

    def _closed(self) -> Iterator[tuple[Txid, str]]:
        for record in self.world.of_old(cl.CloseFinished):
            scope = lsp_scope(self.world.old.attempt, OutPoint.parse(record.outpoint))
            for data in record.txs:
                yield Tx.parse(data).txid, f"close of {scope.name}"

    def _follow(self) -> None:
        chain = self.world.chain
        for height in range(self.world.start_height, chain.height + 1):
            for tx in chain.blocks[height][1]:
                spent = [tx_in.outpoint for tx_in in tx.inputs if tx_in.outpoint in self._unspent]
                if spent:
                    assert len(spent) == len(tx.inputs), "nobody else's coin is in any of this"
                    self._pass_on(tx, [self._unspent.pop(one) for one in spent], height)

    def _pass_on(self, tx: Tx, spent: list[str], height: int) -> None:
        what = self._nodes.get(tx.txid) or self._closes.get(tx.txid)
        if what is None:
            is_channel = len(spent) == 1 and spent[0].startswith("channel ")
            what = f"commitment in {spent[0]}" if is_channel else f"sweep of {', '.join(spent)}"
        fee_sat = self.world.chain.fee_sat(tx)
        self._add(MINERS, f"fee of {what}", None, height, fee_sat)
        for vout, out in enumerate(tx.outputs):
            owner, _ = self.world.names.get(out.script_pubkey, ("", None))
            if owner:
                name = self._letters.get(owner, LSP)
                self._add(name, what, tx.outpoint(vout), height, out.amount_sat)
            elif out.script_pubkey == ANCHOR_SCRIPT:
                self._add(ANYBODY, f"anchor of {what}", tx.outpoint(vout), height, out.amount_sat)
            else:
                self._unspent[tx.outpoint(vout)] = self._name(tx, what, vout)

    def _name(self, tx: Tx, what: str, vout: int) -> str:
        for name, seat in SEATS.items():
            setting = self.world.old.attempt.setting(seat)
            if setting.funding.outpoint == tx.outpoint(vout):
                return f"channel {name}"
        return f"{what}:{vout}"

    def _add(
        self, who: str, what: str, outpoint: OutPoint | None, height: int, amount_sat: int
    ) -> None:
        self.pieces.append(
            Piece(who=who, what=what, outpoint=outpoint, height=height, amount_sat=amount_sat)
        )


def rows(accounts: Accounts, *, by_outpoint: bool) -> Iterator[str]:
    """Yield who got what as rows of a table.

    Args:
        accounts: What became of it.
        by_outpoint: Whether each output is named in full; else by its place in its transaction.
    """
    yield "| who | had, msat | got by | output | block after dying began | sat |"
    yield "|---|---|---|---|---|---|"
    moved = {one.who: one for one in accounts.moved}
    for name in sorted(SEATS):
        had = f"{balance_msat(SEATS[name]):,}"
        if name in moved:
            one = moved[name]
            place = str(one.outpoint) if by_outpoint else "channel in the next factory"
            yield f"| {name} | {had} | moved | {place} | | {_sat(one.amount_msat)} |"
        for piece in accounts.of(name):
            yield _row(accounts, piece, had, by_outpoint=by_outpoint)
        if name not in moved and not accounts.of(name):
            yield f"| {name} | {had} | nothing | | | 0 |"
    for who in (LSP, ANYBODY):
        for piece in accounts.of(who):
            yield _row(accounts, piece, "", by_outpoint=by_outpoint)
    fees = accounts.of(MINERS)
    yield f"| miners | | {len(fees)} fees | | | {sum(fee.amount_sat for fee in fees):,} |"
    yield (
        f"| all on chain | | | | | {accounts.total_sat:,}, "
        f"of {accounts.funding_sat:,} in the funding output |"
    )


def _row(accounts: Accounts, piece: Piece, had: str, *, by_outpoint: bool) -> str:
    outpoint = piece.outpoint
    place = ""
    if outpoint is not None:
        place = str(outpoint) if by_outpoint else str(outpoint.vout)
    since = piece.height - accounts.world.life.dying_height
    return f"| {piece.who} | {had} | {piece.what} | {place} | {since} | {piece.amount_sat:,} |"


def _sat(amount_msat: int) -> str:
    whole, rest = divmod(amount_msat, MSAT_PER_SAT)
    return f"{whole:,}.{rest:03}"
