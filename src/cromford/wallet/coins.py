"""The coins of a wallet: what blocks gave and took, and what is reserved for whom."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from immutables import Map

from cromford.bitcoin.block import COINBASE_MATURITY, is_coinbase
from cromford.bitcoin.fees import (
    P2TR_INPUT_WEIGHT,
    P2TR_OUTPUT_VSIZE,
    TX_FRAME_WEIGHT,
    fee_sat_of,
)
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut, compact_size, vsize_of
from cromford.factory.funding import CHANGE_MIN_SAT
from cromford.shelf import Shelf
from cromford.told import sat
from cromford.wallet.account import CHANGE, GAP_LIMIT, RECEIVE, Account, WalletPath

N_INPUTS_MAX: Final = 128  # With many more, a proposal to 1,024 clients would not fit a message.
N_OUTPUTS_MAX: Final = 21  # Of a payment: the coins of a split, and change.


class InsufficientCoins(Exception):
    """The wallet cannot pay. Amounts in sat.

    `beyond_sat` is what smaller coins hold than those that one transaction spends at most.
    """

    def __init__(
        self, *, needed_sat: int, available_sat: int, worthless_sat: int = 0, beyond_sat: int = 0
    ) -> None:
        beside = f", beside {sat(worthless_sat)} in coins that cost more to spend than they hold"
        beyond = (
            f", beside {sat(beyond_sat)} in smaller coins: one transaction spends {N_INPUTS_MAX} "
            "coins at most, so pay them to yourself first"
        )
        super().__init__(
            f"{sat(needed_sat)} are needed, {sat(available_sat)} are free"
            + (beside if worthless_sat else "")
            + (beyond if beyond_sat else "")
        )
        self.needed_sat = needed_sat
        self.available_sat = available_sat
        self.worthless_sat = worthless_sat
        self.beyond_sat = beyond_sat


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletCoin:
    """An output that pays to the wallet."""

    outpoint: OutPoint
    txout: TxOut
    path: WalletPath
    height: int
    is_coinbase: bool
    spent_height: int | None = None

    @property
    def to_spend(self) -> "SpentCoin":
        """What a transaction that spends it needs."""
        return SpentCoin(outpoint=self.outpoint, txout=self.txout, path=self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentCoin:
    """A coin that a transaction of ours spends: what it is, and its key's path in the wallet."""

    outpoint: OutPoint
    txout: TxOut
    path: WalletPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """Coins that are set aside for the children of one transaction, and where change goes.

    `cost_sat` is what children have cost that are settled; then no coin is left in it. `returned`
    are those that were in it: a child that waits in mempools may still spend them.
    """

    coins: tuple[SpentCoin, ...]
    change_script: bytes
    cost_sat: int = 0
    returned: tuple[SpentCoin, ...] = ()

    @property
    def ever_held(self) -> tuple[SpentCoin, ...]:
        """The coins that are in it or were, each once."""
        return tuple({coin.outpoint: coin for coin in (*self.returned, *self.coins)}.values())

    @property
    def amount_sat(self) -> int:
        """What the coins hold."""
        return sum(coin.txout.amount_sat for coin in self.coins)

    @property
    def largest_first(self) -> tuple[SpentCoin, ...]:
        """The coins in the order in which they are spent: the fewest that reach."""
        return tuple(sorted(self.coins, key=lambda coin: (-coin.txout.amount_sat, coin.outpoint)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Coins chosen for a transaction with a change output, and its fee in sat."""

    coins: tuple[WalletCoin, ...]
    change_sat: int
    fee_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledPayment:
    """A payment that its payer gave an id, or what takes the place of one.

    Attributes:
        external_id: The id.
        tx: It, signed.
        fee_sat: What it pays.
        asked_sat: What was to be paid; None for all that was free.
    """

    external_id: str
    tx: Tx
    fee_sat: int
    asked_sat: int | None

    @property
    def coins_made(self) -> tuple[TxOut, ...]:
        """Those that it made, if it is a split; else the one output that it pays.

        They pay to one script, and so does their change. A bump may have taken from the first or,
        without change, from the last of them.
        """
        first, *rest = self.tx.outputs
        alike = [out for out in rest if out.script_pubkey == first.script_pubkey]
        asked = self.asked_sat
        return (first, *(out for out in alike if asked is None or out.amount_sat == asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """The wallet's state: a fold of the blocks and the reservations.

    Of what was spent nothing is forgotten, for a reorg revives it; so it is on shelves.
    """

    account: Account
    scripts: Shelf[bytes, WalletPath]
    coins: Shelf[OutPoint, WalletCoin] = field(default_factory=Shelf)
    unspent: Map[OutPoint, WalletCoin] = field(default_factory=Map)  # those of the coins
    touched: Shelf[int, tuple[OutPoint, ...]] = field(default_factory=Shelf)  # by a height's block
    reserved: Shelf[OutPoint, bytes] = field(default_factory=Shelf)  # for an attempt or a payment
    reserved_for: Shelf[bytes, tuple[OutPoint, ...]] = field(default_factory=Shelf)  # the same
    payments: Mapping[Txid, Tx] = field(default_factory=dict)  # signed by us, not yet confirmed
    # Confirmed, or overtaken by another spend of their coins: at which height. A reorg revives.
    ended_payments: Mapping[Txid, tuple[int, Tx]] = field(default_factory=dict)
    overtaken: Mapping[Txid, Txid] = field(default_factory=dict)  # of these, by which other spend
    called: Shelf[Txid, CalledPayment] = field(default_factory=Shelf)
    newest_called: Shelf[str, Txid] = field(default_factory=Shelf)  # of them, by external id
    next_receive: int = 0
    next_change: int = 0
    # Beyond the last script that a block paid; None of a checkpoint that is older than this.
    unpaid_receive: int | None = None
    unpaid_change: int | None = None

    def paid_by(self, tx: Tx) -> list[OutPoint]:
        """Return the outputs of a transaction that pay to the wallet."""
        return [
            tx.outpoint(vout)
            for vout, txout in enumerate(tx.outputs)
            if txout.script_pubkey in self.scripts
        ]

    def news(self, txs: Sequence[Tx]) -> Iterator[Tx]:
        """Yield the transactions of one block that pay to the wallet or spend from it."""
        created: set[OutPoint] = set()
        scripts = self.scripts.among({out.script_pubkey for tx in txs for out in tx.outputs})
        for tx in txs:
            pays = [
                tx.outpoint(vout)
                for vout, txout in enumerate(tx.outputs)
                if txout.script_pubkey in scripts
            ]
            created.update(pays)
            if pays or any(
                tx_in.outpoint in self.unspent or tx_in.outpoint in created for tx_in in tx.inputs
            ):
                yield tx

    def with_tx(self, tx: Tx, height: int) -> "Wallet":
        """Return the wallet after a transaction confirmed at `height`."""
        coins, unspent, touched = self.coins, self.unspent, list(self.touched.get(height, ()))
        next_index = {RECEIVE: self.next_receive, CHANGE: self.next_change}
        unpaid = {change: self.first_unpaid(change) for change in next_index}
        for tx_in in tx.inputs:
            coin = unspent.get(tx_in.outpoint)
            if coin is not None:
                coins = coins.set(coin.outpoint, replace(coin, spent_height=height))
                unspent = unspent.delete(coin.outpoint)
                touched.append(coin.outpoint)
        for vout, txout in enumerate(tx.outputs):
            path = self.scripts.get(txout.script_pubkey)
            if path is None:
                continue
            outpoint = tx.outpoint(vout)
            coin = WalletCoin(
                outpoint=outpoint,
                txout=txout,
                path=path,
                height=height,
                is_coinbase=is_coinbase(tx),
            )
            coins, unspent = coins.set(outpoint, coin), unspent.set(outpoint, coin)
            touched.append(outpoint)
            next_index[path.change] = max(next_index[path.change], path.index + 1)
            unpaid[path.change] = max(unpaid[path.change], path.index + 1)
        spent = {tx_in.outpoint for tx_in in tx.inputs}
        over = {
            txid
            for txid, payment in self.payments.items()
            if any(tx_in.outpoint in spent for tx_in in payment.inputs)
        }
        wallet = replace(
            self,
            coins=coins,
            unspent=unspent,
            touched=self.touched.update({height: tuple(touched)} if touched else {}),
            payments={txid: p for txid, p in self.payments.items() if txid not in over},
            ended_payments={
                **self.ended_payments,
                **{txid: (height, self.payments[txid]) for txid in over},
            },
            overtaken=_without(self.overtaken, {tx.txid}),
            next_receive=next_index[RECEIVE],
            next_change=next_index[CHANGE],
            unpaid_receive=unpaid[RECEIVE],
            unpaid_change=unpaid[CHANGE],
        )
        for txid in over:
            wallet = wallet.released(txid)
        called = self.called.get(tx.txid)
        if called and over.isdisjoint({tx.txid, self.newest_called[called.external_id]}):
            wallet = wallet.with_late(called, height)
        return wallet.with_gap()

    def without_block(self, height: int) -> "Wallet":
        """Return the wallet after the block at `height` left the active chain."""
        coins, unspent = self.coins, self.unspent
        for outpoint in self.touched.get(height, ()):
            coin = coins.get(outpoint)
            if coin is not None and coin.height == height:
                coins = coins.delete(outpoint)
                unspent = unspent.delete(outpoint) if outpoint in unspent else unspent
            elif coin is not None and coin.spent_height == height:
                coin = replace(coin, spent_height=None)
                coins, unspent = coins.set(outpoint, coin), unspent.set(outpoint, coin)
        revived = [tx for ended, tx in self.ended_payments.values() if ended == height]
        wallet = replace(
            self,
            coins=coins,
            unspent=unspent,
            touched=self.touched.delete(height),
            ended_payments={t: e for t, e in self.ended_payments.items() if e[0] != height},
            overtaken=_without(
                self.overtaken, {tx.txid for tx in revived if not self.is_behind(tx.txid)}
            ),
        )
        for tx in revived:
            wallet = wallet.with_revived(tx)
        return wallet

    def with_revived(self, tx: Tx) -> "Wallet":
        """Return the wallet with a payment that waits again; others' coins stay set aside for them.

        It was overtaken, perhaps, and what it did not lose to that is in use since.
        """
        held = {tx_in.outpoint: self.reserved.get(tx_in.outpoint) for tx_in in tx.inputs}
        wallet = self.with_spending(tx)
        for outpoint, owner in held.items():
            if owner is not None:
                wallet = wallet.with_reserved([outpoint], owner)
        return wallet

    def is_behind(self, txid: Txid) -> bool:
        """Say whether a block had another in a payment's place, of which an output is in use.

        After a reorganisation it would end what that output was spent for.
        """
        by = self.overtaken.get(txid)
        return by is not None and any(
            OutPoint(txid=by, vout=vout) in self.reserved for vout in range(N_OUTPUTS_MAX)
        )

    def is_withheld(self, tx: Tx) -> bool:
        """Say whether a payment that waits is not published: it would end what was paid since.

        After a reorganisation, with a coin of its own, or what a block had in its place.
        """
        held = (self.reserved.get(tx_in.outpoint) for tx_in in tx.inputs)
        return self.is_behind(tx.txid) or any(owner not in {None, tx.txid} for owner in held)

    def lost_to(self, txid: Txid) -> Txid | None:
        """Return what a block has in a payment's place, or had; None if it is published."""
        if txid in self.payments and not self.is_behind(txid):
            return None
        return self.overtaken.get(txid)

    def with_gap(self, gap: int = GAP_LIMIT) -> "Wallet":
        """Return the wallet watching this many scripts beyond the last used (BIP 44)."""
        scripts: dict[bytes, WalletPath] = {}
        for change, first in ((RECEIVE, self.next_receive), (CHANGE, self.next_change)):
            for index in range(first + gap - 1, -1, -1):
                path = WalletPath(change=change, index=index)
                script = self.account.script(path)
                if script in self.scripts:
                    break  # So are all below it.
                scripts[script] = path
        return replace(self, scripts=self.scripts.update(scripts))

    def with_address_used(self, change: int) -> "Wallet":
        """Return the wallet after a fresh script was handed out."""
        if change == CHANGE:
            return replace(self, next_change=self.next_change + 1).with_gap()
        return replace(self, next_receive=self.next_receive + 1).with_gap()

    def first_unpaid(self, change: int) -> int:
        """Return the index beyond the last script that a block paid."""
        known = self.unpaid_change if change == CHANGE else self.unpaid_receive
        if known is None:
            paths = (coin.path for coin in self.coins.values())
            return max((path.index + 1 for path in paths if path.change == change), default=0)
        return known

    def is_at_gap(self, change: int) -> bool:
        """Say whether `GAP_LIMIT` scripts in a row were handed out that no block has paid."""
        index = self.next_change if change == CHANGE else self.next_receive
        return index >= self.first_unpaid(change) + GAP_LIMIT

    def next_script(self, change: int) -> bytes:
        """Return the next script nobody has been told of; at the gap, the last one within it again.

        Whoever restores a wallet from its words looks no further (BIP 44): what is paid to one
        beyond would seem lost.
        """
        index = self.next_change if change == CHANGE else self.next_receive
        last = self.first_unpaid(change) + GAP_LIMIT - 1
        return self.account.script(WalletPath(change=change, index=min(index, last)))

    def with_reserved(self, outpoints: Sequence[OutPoint], attempt_id: bytes) -> "Wallet":
        """Return the wallet with coins set aside for an attempt to build a factory."""
        known = self.reserved_for.get(attempt_id, ())
        reserved_for = tuple(dict.fromkeys((*known, *outpoints)))
        return replace(
            self,
            reserved=self.reserved.update(dict.fromkeys(outpoints, attempt_id)),
            reserved_for=self.reserved_for.set(attempt_id, reserved_for),
        )

    def with_spending(self, tx: Tx) -> "Wallet":
        """Return the wallet with a payment signed; its coins are set aside until it is over."""
        reserved = self.with_reserved([tx_in.outpoint for tx_in in tx.inputs], tx.txid)
        return replace(reserved, payments={**self.payments, tx.txid: tx})

    def fee_sat(self, tx: Tx) -> int | None:
        """Return what a payment out of the wallet pays; None while a coin of it is in no block."""
        coins = [self.coins.get(tx_in.outpoint) for tx_in in tx.inputs]
        spent_sat = [coin.txout.amount_sat for coin in coins if coin is not None]
        if len(spent_sat) < len(coins):
            return None
        return sum(spent_sat) - sum(out.amount_sat for out in tx.outputs)

    def with_called(self, tx: Tx, external_id: str, asked_sat: int | None) -> "Wallet":
        """Return the wallet with a payment known by its payer's id, in the place of any before."""
        fee_sat = self.fee_sat(tx) or 0
        called = CalledPayment(external_id=external_id, tx=tx, fee_sat=fee_sat, asked_sat=asked_sat)
        return replace(
            self,
            called=self.called.set(tx.txid, called),
            newest_called=self.newest_called.set(external_id, tx.txid),
        )

    def with_late(self, called: CalledPayment, height: int) -> "Wallet":
        """Return the wallet after a block had a payment of an id that nobody waited for any more.

        It, or what replaced it, was given up, or had lost a coin. From now on it is that of its id.
        """
        tx = called.tx
        return replace(
            self,
            ended_payments={**self.ended_payments, tx.txid: (height, tx)},
            newest_called=self.newest_called.set(called.external_id, tx.txid),
        )

    def called_now(self, external_id: str) -> CalledPayment | None:
        """Return the payment of an id: the newest, unless a block has one that it replaced."""
        newest = self.newest_called.get(external_id)
        if newest is None:
            return None
        by = self.lost_to(newest)
        return self.called[by if by is not None and self.is_same_called(by, newest) else newest]

    def is_same_called(self, one: Txid, other: Txid) -> bool:
        """Say whether two payments have the same id, so that one replaced the other."""
        called, others = self.called.get(one), self.called.get(other)
        return bool(called and others and called.external_id == others.external_id)

    def without_payment(self, txid: Txid) -> "Wallet":
        """Return the wallet after a payment was given up: its coins are free again.

        If it confirms all the same, it is a transaction like any other that spends them.
        """
        payments = {other: tx for other, tx in self.payments.items() if other != txid}
        return replace(self.released(txid), payments=payments)

    def released(self, owner: bytes) -> "Wallet":
        """Return the wallet with the coins of an attempt, or of a payment, free again.

        But for those that a payment spends which waits, and did not get them back: see
        `with_revived`.
        """
        reserved, freed = self.reserved, set[OutPoint]()
        for outpoint in self.reserved_for.get(owner, ()):
            if reserved.get(outpoint) == owner:
                reserved = reserved.delete(outpoint)
                freed.add(outpoint)
        wallet = replace(self, reserved=reserved, reserved_for=self.reserved_for.delete(owner))
        for txid, tx in self.payments.items():
            back = [tx_in.outpoint for tx_in in tx.inputs if tx_in.outpoint in freed]
            if back and txid != owner:
                wallet = wallet.with_reserved(back, txid)
        return wallet

    def free(self, tip_height: int) -> tuple[WalletCoin, ...]:
        """Return the confirmed, mature, unspent and unreserved coins, largest first."""
        return tuple(
            sorted(
                (
                    coin
                    for coin in self.unspent.values()
                    if coin.outpoint not in self.reserved
                    and not (coin.is_coinbase and tip_height + 1 - coin.height < COINBASE_MATURITY)
                ),
                key=lambda coin: (-coin.txout.amount_sat, coin.outpoint),
            )
        )

    def purse_coins(
        self,
        needed_sat: int,
        *,
        free: Sequence[WalletCoin],
        held_sat: int,
        n_most: int,
        input_sat: int = 0,
        above_sat: int = 0,
    ) -> tuple[WalletCoin, ...]:
        """Return the free coins to set aside for a sum: the smallest that holds all of it alone.

        If none does, the largest, until they do together with what is held: less, if there is no
        more. Small ones would only take the places of those that are needed later.

        Args:
            needed_sat: The sum.
            free: The free coins, largest first.
            held_sat: What is set aside for it already.
            n_most: The most coins.
            input_sat: What each coin after the first costs, an input more: one that holds no more
                brings nothing.
            above_sat: What a coin holds more than, to have a place beside those that are held.
        """
        enough = [coin for coin in free if coin.txout.amount_sat >= needed_sat]
        if enough:
            return (enough[-1],)
        chosen: list[WalletCoin] = []
        for coin in free[:n_most]:
            if held_sat >= needed_sat or coin.txout.amount_sat <= max(input_sat, above_sat):
                break
            chosen.append(coin)
            held_sat += coin.txout.amount_sat - (input_sat if held_sat else 0)
        return tuple(chosen)

    def payable_sat(self, *, tip_height: int, feerate_sat_per_kw: int) -> int:
        """Return what the free coins can pay, as if they were one: each more has an input more."""
        input_sat = fee_sat_of(
            vsize=-(-P2TR_INPUT_WEIGHT // 4), feerate_sat_per_kw=feerate_sat_per_kw
        )
        worth = [
            coin.txout.amount_sat - input_sat
            for coin in self.free(tip_height)
            if coin.txout.amount_sat > input_sat
        ]
        return sum(worth) + input_sat if worth else 0

    def confirmed_sat(self) -> int:
        """Return the sum of all unspent coins, reserved and immature ones included."""
        return sum(coin.txout.amount_sat for coin in self.unspent.values())

    def completed(self) -> "Wallet":
        """Return a wallet that an older version wrote with what is found in it by other keys."""
        touched: dict[int, list[OutPoint]] = {}
        reserved_for: dict[bytes, list[OutPoint]] = {}
        unspent: dict[OutPoint, WalletCoin] = {}
        for outpoint, coin in self.coins.walk():
            touched.setdefault(coin.height, []).append(outpoint)
            if coin.spent_height is None:
                unspent[outpoint] = coin
            else:
                touched.setdefault(coin.spent_height, []).append(outpoint)
        for outpoint, owner in self.reserved.walk():
            reserved_for.setdefault(owner, []).append(outpoint)
        return replace(
            self,
            unspent=Map(unspent),
            touched=Shelf({height: tuple(of) for height, of in touched.items()}),
            reserved_for=Shelf({owner: tuple(of) for owner, of in reserved_for.items()}),
        )

    def select(
        self, *, output_scripts_sat: int, n_outputs: int, feerate_sat_per_kw: int, tip_height: int
    ) -> Selection:
        """Return coins that pay `output_scripts_sat`, the fee and a change worth having.

        The largest coins first: fewest inputs, and so the smallest transaction. All outputs are
        taken to be taproot outputs.

        Raises:
            InsufficientCoins: If the largest `N_INPUTS_MAX` free coins do not reach.
        """

        def fee_sat_with(n_inputs: int) -> int:
            vsize = wallet_tx_vsize(n_inputs=n_inputs, n_outputs=n_outputs + 1)
            return fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)

        free = self.free(tip_height)
        coins, beyond = free[:N_INPUTS_MAX], free[N_INPUTS_MAX:]
        total_sat = 0
        for n_inputs, coin in enumerate(coins, start=1):
            total_sat += coin.txout.amount_sat
            fee_sat = fee_sat_with(n_inputs)
            change_sat = total_sat - output_scripts_sat - fee_sat
            if change_sat >= CHANGE_MIN_SAT:
                return Selection(coins=coins[:n_inputs], change_sat=change_sat, fee_sat=fee_sat)
        raise InsufficientCoins(
            needed_sat=output_scripts_sat + fee_sat_with(max(len(coins), 1)) + CHANGE_MIN_SAT,
            available_sat=total_sat,
            beyond_sat=sum(coin.txout.amount_sat for coin in beyond),
        )


def _without(overtaken: Mapping[Txid, Txid], txids: AbstractSet[Txid]) -> Mapping[Txid, Txid]:
    return {txid: by for txid, by in overtaken.items() if txid not in txids}


def new_wallet(account: Account) -> Wallet:
    """Return an empty wallet that watches its first scripts."""
    wallet = Wallet(account=account, scripts=Shelf(), unpaid_receive=0, unpaid_change=0)
    return wallet.with_gap()


def wallet_tx_weight(*, n_inputs: int, n_outputs: int) -> int:
    """Return the weight of a signed transaction of BIP 86 inputs and taproot outputs."""
    counts_weight = 4 * (len(compact_size(n_inputs)) + len(compact_size(n_outputs)) - 2)
    return (
        TX_FRAME_WEIGHT
        + counts_weight
        + n_inputs * P2TR_INPUT_WEIGHT
        + n_outputs * P2TR_OUTPUT_VSIZE * 4
    )


def wallet_tx_vsize(*, n_inputs: int, n_outputs: int) -> int:
    """Return the vbytes of a signed transaction of BIP 86 inputs and taproot outputs."""
    return vsize_of(wallet_tx_weight(n_inputs=n_inputs, n_outputs=n_outputs))
