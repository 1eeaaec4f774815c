"""Other people's transactions: at every block more of them than fit, at two feerates.

The dear ones leave less room in a block than an exit of many wants, so that families compete by
what they pay. The cheap ones, small enough for any gap, take what nobody pays more for.
"""

from dataclasses import dataclass, field
from typing import Final

from cromford.bitcoin.tx import SAT_PER_BTC, WITNESS_SCALE, OutPoint, Tx, Txid
from cromford.regtest.options import RESERVED_WEIGHT
from tests.daemon.town import TownNode
from tests.functional.node_world import OPEN_ADDRESS, OPEN_SCRIPT, Coin, coin_of, hex_of, pay

N_COINS: Final = 300
MATURE_BLOCKS: Final = 101
SPLITTING_SAT: Final = 100_000
NO_DATA: Final = b""
DATA: Final = b"\x6a\x4d" + (860).to_bytes(2, "little") + bytes(860)
N_BLOCKS_AHEAD: Final = 2


def block_weight_of(room_vsize: int) -> int:
    """Return the weight of blocks with room for so many virtual bytes beside the coinbase."""
    return RESERVED_WEIGHT + WITNESS_SCALE * room_vsize


@dataclass
class FullBlocks:
    """Keeps a mempool with more in it than a block takes.

    Attributes:
        node: Whose mempool.
        room_vsize: Of a block.
        left_vsize: What the dear ones leave of it.
        dear_sat_per_vb: What these pay.
        cheap_sat_per_vb: What all others pay.
        offered: The txids of all that were offered.
    """

    node: TownNode
    room_vsize: int
    left_vsize: int
    dear_sat_per_vb: int
    cheap_sat_per_vb: int
    offered: set[str] = field(default_factory=set)
    _coins: list[Coin] = field(default_factory=list)
    _waiting: dict[str, tuple[Tx, bool]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make coins to pay with, and let them confirm."""
        (block_hash,) = self.node.call("generatetoaddress", 1, OPEN_ADDRESS)
        coinbase = self.node.call("getblock", block_hash, 2)["tx"][0]
        self.node.call("generatetoaddress", MATURE_BLOCKS, OPEN_ADDRESS)
        amount_sat = int(coinbase["vout"][0]["value"] * SAT_PER_BTC)
        outpoint = OutPoint(txid=Txid.from_hex(coinbase["txid"]), vout=0)
        each_sat = (amount_sat - SPLITTING_SAT) // N_COINS
        split = pay([Coin(outpoint, amount_sat)], *[(each_sat, OPEN_SCRIPT)] * N_COINS)
        self.node.call("generateblock", OPEN_ADDRESS, [hex_of(split)])
        self._coins = [coin_of(split, vout) for vout in range(N_COINS)]

    def coin(self) -> Coin:
        """Return a confirmed coin that anybody may spend, to pay something else with."""
        return self._coins.pop()

    def refill(self) -> None:
        """Offer what the next block takes, and cheap ones for two blocks more."""
        waiting = set(self.node.call("getrawmempool"))
        for txid in [txid for txid in self._waiting if txid not in waiting]:
            tx, _ = self._waiting.pop(txid)  # In a block: nothing else spends what it spends.
            self._coins.append(coin_of(tx, 0))
        self._offer(self.dear_sat_per_vb, self.room_vsize - self.left_vsize, is_dear=True)
        self._offer(self.cheap_sat_per_vb, N_BLOCKS_AHEAD * self.room_vsize, is_dear=False)

    def _offer(self, sat_per_vb: int, wanted_vsize: int, *, is_dear: bool) -> None:
        data = DATA if is_dear else NO_DATA
        n_vbytes = sum(tx.vsize for tx, dear in self._waiting.values() if dear is is_dear)
        while n_vbytes + _vsize_with(data) <= wanted_vsize:
            tx = _paying(self._coins.pop(0), data, sat_per_vb)
            self.node.call("sendrawtransaction", hex_of(tx))
            self._waiting[str(tx.txid)] = (tx, is_dear)
            self.offered.add(str(tx.txid))
            n_vbytes += tx.vsize


def _paying(coin: Coin, data: bytes, sat_per_vb: int) -> Tx:
    """Return a transaction with the coin's rest as change, and what it carries."""
    carried = [(0, data)] if data else []
    fee_sat = sat_per_vb * _vsize_with(data)
    return pay([coin], (coin.amount_sat - fee_sat, OPEN_SCRIPT), *carried, fee_sat=fee_sat)


def _vsize_with(data: bytes) -> int:
    outpoint = OutPoint(txid=Txid(bytes(32)), vout=0)
    carried = [(0, data)] if data else []
    return pay([Coin(outpoint, 0)], (0, OPEN_SCRIPT), *carried, fee_sat=0).vsize
