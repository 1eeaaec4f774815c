"""Random blocks and reorgs: the wallet is what replaying the active chain gives."""

from dataclasses import dataclass, field
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.wallet.payments import (
    STRANGER,
    coinbase,
    empty_wallet,
    script,
    tx_of,
)

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.wallet.account import CHANGE, GAP_LIMIT, RECEIVE

N_SCRIPTS = 8  # Per chain; all within the first gap.
MATURITY = 100
HEIGHT_FIRST = 200


@dataclass
class Block:
    height: int
    txs: list[Tx] = field(default_factory=list)


@dataclass
class Found:
    """A coin, as the naive model sees it."""

    amount_sat: int
    height: int
    is_coinbase: bool


class WalletMachine(RuleBasedStateMachine):
    """The model keeps the active chain and reads it from the beginning for every question."""

    @initialize()
    def start(self) -> None:
        self.wallet = empty_wallet()
        self.chain: list[Block] = []
        self.orphaned: list[Tx] = []
        self.reserved: dict[OutPoint, bytes] = {}
        self.used = {RECEIVE: 0, CHANGE: 0}
        self.next_height = HEIGHT_FIRST
        self.numbers = count()

    @property
    def tip_height(self) -> int:
        return self.next_height - 1

    def replayed(self) -> dict[OutPoint, Found]:
        """Read the active chain: what pays to the wallet and is not spent."""
        scripts = {script(i, change) for change in (RECEIVE, CHANGE) for i in range(N_SCRIPTS)}
        unspent: dict[OutPoint, Found] = {}
        for block in self.chain:
            for tx in block.txs:
                for tx_in in tx.inputs:
                    unspent.pop(tx_in.outpoint, None)
                for vout, txout in enumerate(tx.outputs):
                    if txout.script_pubkey in scripts:
                        unspent[tx.outpoint(vout)] = Found(
                            amount_sat=txout.amount_sat,
                            height=block.height,
                            is_coinbase=tx.inputs[0].outpoint.txid == bytes(32),
                        )
        return unspent

    def connect(self, tx: Tx) -> None:
        """Put a transaction into the newest block."""
        self.chain[-1].txs.append(tx)
        self.wallet = self.wallet.with_tx(tx, self.tip_height)
        for txout in tx.outputs:
            for change in (RECEIVE, CHANGE):
                for index in range(N_SCRIPTS):
                    if txout.script_pubkey == script(index, change):
                        self.used[change] = max(self.used[change], index + 1)

    @rule(change=st.sampled_from([RECEIVE, CHANGE]), index=st.integers(0, N_SCRIPTS - 1))
    def block_with_a_coinbase(self, change: int, index: int) -> None:
        self.chain.append(Block(self.next_height))
        self.next_height += 1
        to = script(index, change) if index % 2 else STRANGER
        self.connect(coinbase((next(self.numbers) << 16) + self.tip_height, to, 5_000_000))

    @rule(n_blocks=st.sampled_from([1, 98, 99, 100]))
    def blocks_of_others(self, n_blocks: int) -> None:
        for _ in range(n_blocks):
            self.chain.append(Block(self.next_height))
            self.next_height += 1

    @precondition(lambda self: self.chain)
    @rule(
        paid=st.lists(
            st.tuples(
                st.sampled_from([RECEIVE, CHANGE]),
                st.integers(0, N_SCRIPTS - 1),
                st.integers(330, 100_000),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def payment(self, paid: list[tuple[int, int, int]]) -> None:
        outputs = [
            TxOut(amount_sat=amount_sat, script_pubkey=script(index, change))
            for change, index, amount_sat in paid
        ]
        # Numbered anew in each example: what is sorted by txid is then drawn the same again.
        stranger = OutPoint(txid=Txid((1 + next(self.numbers)).to_bytes(32, "big")), vout=0)
        self.connect(tx_of([stranger], outputs))

    @precondition(lambda self: self.chain and self.replayed())
    @rule(data=st.data(), to_self=st.booleans())
    def spend(self, data: st.DataObject, to_self: bool) -> None:  # noqa: FBT001 - drawn
        outpoints = sorted(self.replayed())
        spent = data.draw(st.lists(st.sampled_from(outpoints), min_size=1, unique=True))
        to = script(data.draw(st.integers(0, N_SCRIPTS - 1)), CHANGE) if to_self else STRANGER
        self.connect(tx_of(spent, [TxOut(amount_sat=700, script_pubkey=to)]))

    @precondition(lambda self: self.chain)
    @rule(depth=st.integers(1, 6))
    def reorg(self, depth: int) -> None:
        for _ in range(min(depth, len(self.chain))):
            gone = self.chain.pop()
            self.orphaned += [t for t in gone.txs if t.inputs[0].outpoint.txid != bytes(32)]
            self.wallet = self.wallet.without_block(gone.height)
            self.next_height -= 1

    @precondition(lambda self: self.chain and self.orphaned)
    @rule(data=st.data())
    def orphan_confirms_again(self, data: st.DataObject) -> None:
        """A transaction of a lost block confirms in the new chain, where it still can."""
        tx = data.draw(st.sampled_from(self.orphaned))
        active = [t for block in self.chain for t in block.txs]
        spent = {tx_in.outpoint for t in active for tx_in in t.inputs}
        made_by_orphans = {t.txid for t in self.orphaned} - {t.txid for t in active}
        for tx_in in tx.inputs:
            if tx_in.outpoint in spent or tx_in.outpoint.txid in made_by_orphans:
                return
        self.connect(tx)

    @precondition(lambda self: self.replayed())
    @rule(data=st.data(), attempt=st.sampled_from([b"\xaa" * 32, b"\xbb" * 32]))
    def reserve(self, data: st.DataObject, attempt: bytes) -> None:
        outpoint = data.draw(st.sampled_from(sorted(self.replayed())))
        self.reserved[outpoint] = attempt
        self.wallet = self.wallet.with_reserved([outpoint], attempt)

    @rule(attempt=st.sampled_from([b"\xaa" * 32, b"\xbb" * 32]))
    def release(self, attempt: bytes) -> None:
        self.reserved = {o: owner for o, owner in self.reserved.items() if owner != attempt}
        self.wallet = self.wallet.released(attempt)

    @invariant()
    def the_balance_is_what_the_chain_says(self) -> None:
        unspent = self.replayed()
        assert self.wallet.confirmed_sat() == sum(found.amount_sat for found in unspent.values())
        mine = {
            outpoint: Found(
                amount_sat=coin.txout.amount_sat, height=coin.height, is_coinbase=coin.is_coinbase
            )
            for outpoint, coin in self.wallet.coins.items()
            if coin.spent_height is None
        }
        assert mine == unspent

    @invariant()
    def the_free_coins_are_what_the_next_block_may_spend(self) -> None:
        expected = {
            outpoint
            for outpoint, found in self.replayed().items()
            if outpoint not in self.reserved
            and (not found.is_coinbase or self.next_height - found.height >= MATURITY)
        }
        assert {coin.outpoint for coin in self.wallet.free(self.tip_height)} == expected

    @invariant()
    def nothing_used_is_handed_out_and_the_gap_is_watched(self) -> None:
        for change, n_used in self.used.items():
            assert self.wallet.next_script(change) == script(n_used, change)
            watched = [p.index for p in self.wallet.scripts.values() if p.change == change]
            assert sorted(watched) == list(range(n_used + GAP_LIMIT))


TestWallet = WalletMachine.TestCase
TestWallet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
