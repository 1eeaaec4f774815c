"""Where every satoshi is, by the blocks alone, and whose wallet says that it is there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cromford.bitcoin.block import is_coinbase, parse_block
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.regtest.node import RegtestNode
from tests.drill.people import LSP, DrillFailed, People

NOBODY: Final = b"\x51\x20" + bytes.fromhex(
    "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"
)  # BIP 341's point that nobody knows the secret key of: it mines.


@dataclass
class Blocks:
    """All blocks so far.

    Attributes:
        node: Whose chain.
        miner_address: What blocks pay.
        unspent: Every output that is not spent, but the miner's.
        txs: Every transaction that is no miner's.
        created_sat: What coinbases paid to somebody.
        fees_sat: What transactions left to miners.
    """

    node: RegtestNode
    miner_address: str
    unspent: dict[OutPoint, TxOut] = field(default_factory=dict)
    txs: dict[Txid, Tx] = field(default_factory=dict)
    created_sat: int = 0
    fees_sat: int = 0
    _spent: dict[OutPoint, TxOut] = field(default_factory=dict)
    _read: int = 0

    def mine(self, n_blocks: int, address: str = "") -> None:
        """Find blocks of what waits, which pay the miner or an address."""
        self.node.call("generatetoaddress", n_blocks, address or self.miner_address)

    def height(self) -> int:
        """Return the height of the tip."""
        return int(self.node.call("getblockcount"))

    def unconfirmed(self) -> list[str]:
        """Return what waits in the mempool."""
        waiting: list[str] = self.node.call("getrawmempool")
        return waiting

    def follow(self) -> None:
        """Read the blocks that were not read."""
        while self._read < self.height():
            self._read += 1
            name = self.node.call("getblockhash", self._read)
            raw = bytes.fromhex(self.node.call("getblock", name, 0))
            for tx in parse_block(raw, block_hash=Txid.from_hex(name), height=self._read).txs:
                self._take(tx)

    def input_sat(self, tx: Tx) -> int:
        """Return what a transaction spends, in sat."""
        return sum(self._spent[one.outpoint].amount_sat for one in tx.inputs)

    def _take(self, tx: Tx) -> None:
        outputs = {tx.outpoint(vout): out for vout, out in enumerate(tx.outputs)}
        # A coinbase's commitment to its witnesses is no money, and what it pays nobody is nobody's.
        held = {at: out for at, out in outputs.items() if out.amount_sat}
        total_sat = sum(out.amount_sat for out in held.values())
        if is_coinbase(tx):
            held = {at: out for at, out in held.items() if out.script_pubkey != NOBODY}
            self.created_sat += sum(out.amount_sat for out in held.values())
        else:
            self.txs[tx.txid] = tx
            for one in tx.inputs:
                self._spent[one.outpoint] = self.unspent.pop(one.outpoint)
            self.fees_sat += self.input_sat(tx) - total_sat
        self.unspent |= held


class Accounts:
    """What everybody's wallet says, beside the blocks."""

    def __init__(self, people: People, blocks: Blocks) -> None:
        self.people = people
        self.blocks = blocks

    def coins(self, name: str) -> dict[OutPoint, int]:
        """Return what a wallet has: outpoints and satoshis."""
        listed = self.people.ask(name, "wallet_coins")["coins"]
        found = {}
        for coin in listed:
            txid, _, vout = coin["outpoint"].partition(":")
            found[OutPoint(txid=Txid.from_hex(txid), vout=int(vout))] = coin["amount_sat"]
        return found

    def left_behind(self) -> list[str]:
        """Return the unspent outputs that are in no wallet, and no anchors; and what waits."""
        self.blocks.follow()
        owned: set[OutPoint] = set()
        for name in self.people.names:
            owned |= self.coins(name).keys()
        left = [
            str(at)
            for at, out in self.blocks.unspent.items()
            if at not in owned and out.script_pubkey != ANCHOR_SCRIPT
        ]
        return left + self.blocks.unconfirmed()

    def earned_sat(self, client: str) -> int:
        """Return what a client's coins came from, in sat: what a sweep spent, or a close paid."""
        total_sat = 0
        owned = self.coins(client)
        txids = dict.fromkeys(at.txid for at in owned)
        for txid in txids:
            tx = self.blocks.txs[txid]
            if all(at in owned for at in tx.outpoints):
                total_sat += self.blocks.input_sat(tx)
            else:
                total_sat += sum(owned[at] for at in tx.outpoints if at in owned)
        return total_sat

    def check(self, coins_sat: dict[str, int]) -> list[str]:
        """Check that all adds up; return it as lines.

        Args:
            coins_sat: What each client's coins came from, by what was closed and left.

        Raises:
            DrillFailed: If a satoshi is missing, or one is too many.
        """
        if left := self.left_behind():
            raise DrillFailed(f"outputs that nobody has: {left}")
        lines = list(self._lines(coins_sat))
        sums = {name: sum(self.coins(name).values()) for name in self.people.names}
        anchors_sat = sum(
            out.amount_sat
            for out in self.blocks.unspent.values()
            if out.script_pubkey == ANCHOR_SCRIPT
        )
        total_sat = sum(sums.values()) + anchors_sat + self.blocks.fees_sat
        if total_sat != self.blocks.created_sat:
            raise DrillFailed(f"expected {self.blocks.created_sat:,} sat, received {total_sat:,}")
        lines.append(
            f"lsp {sums[LSP]:,} sat, anchors {anchors_sat:,}, fees {self.blocks.fees_sat:,}: "
            f"{total_sat:,} in all, as many as were mined for the LSP"
        )
        return lines

    def _lines(self, coins_sat: dict[str, int]) -> Iterator[str]:
        for client in self.people.clients:
            for at, amount_sat in self.coins(client).items():
                if self.blocks.unspent[at].amount_sat != amount_sat:
                    raise DrillFailed(f"{client} has {at} at another amount than the chain")
            earned_sat = self.earned_sat(client)
            if earned_sat != coins_sat[client]:
                raise DrillFailed(
                    f"{client}'s coins: expected {coins_sat[client]:,} sat, received {earned_sat:,}"
                )
            yield f"{client} {earned_sat:,} sat out of its channels"
