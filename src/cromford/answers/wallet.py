"""The wallet: what it holds, its coins, and what was paid out of it."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.chain import RefusedTransaction
from cromford.answers.units import Blocks, Count, HexId, Outpoint, Sat, SatPerVb, Txid

WithheldWord: TypeAlias = Literal["coins_taken", "change_spent"]
CoinStatus: TypeAlias = Literal["free", "reserved", "immature", "paying"]


class NewAddress(TypedDict):
    """An address of the wallet's, which was not given before if it `is_new`.

    After 20 in a row that nobody paid, the last of them is given again: a wallet that is restored
    from its words does not look further.
    """

    address: str
    is_new: bool


class WaitingPayment(TypedDict):
    """A payment of the wallet's without a block.

    What it pays is null while a coin of it is in no block: a child of a funding's change, or after
    a reorganisation. `withheld` says why it is not published, where it came back by one:
    `coins_taken` while a coin of it, `change_spent` while the change of what a block had in its
    place, is in use since; null of any other.
    """

    txid: Txid
    fee_sat: Sat | None
    feerate_sat_per_vb: SatPerVb | None
    withheld: WithheldWord | None


class WalletBalance(TypedDict):
    """The wallet in numbers, and the address that it gives next.

    `confirmed_sat` is free, reserved, immature or paying. `paying_sat` is what the coins hold that
    payments without a block spend, and `change_sat` what of it comes back to the wallet with their
    blocks. `arriving_sat` comes out of exits, out of closes that wait for a block, and at an LSP
    out of what it sweeps of its factories, after its delays and less the fees of the sweeps. What a
    close pays is in the balance of its channel, too, until the block has it: it is one money.
    `waiting` are those payments, and `refused` those of them that the node does not take.
    `address` is empty until a block was read: nothing would be found before.
    """

    confirmed_sat: Sat
    free_sat: Sat
    reserved_sat: Sat
    immature_sat: Sat
    paying_sat: Sat
    change_sat: Sat
    arriving_sat: Sat
    waiting: list[WaitingPayment]
    refused: list[RefusedTransaction]
    address: str


class OwnCoin(TypedDict):
    """A coin of the wallet's.

    `reserved_for` is a factory's id, or the txid of what spends it.
    """

    outpoint: Outpoint
    amount_sat: Sat
    address: str
    confirmations: Blocks
    status: CoinStatus
    reserved_for: HexId | None


class OwnCoins(TypedDict):
    """The wallet's coins, oldest first."""

    coins: list[OwnCoin]


class SpentCoins(TypedDict):
    """What a payment of the wallet's pays, and what it costs.

    `feerate_source` says in words where the feerate comes from.
    """

    txid: Txid
    amount_sat: Sat
    fee_sat: Sat
    change_sat: Sat
    feerate_sat_per_vb: SatPerVb
    feerate_source: str


class SentCoins(SpentCoins):
    """A payment to an address; `sent` is false where it was only planned.

    One that is asked for again by its external id is told as it is now: sent, whatever is asked.
    """

    sent: bool


class BumpedPayment(SpentCoins):
    """A payment in the place of one that paid less; `bumped` is false where it was only planned."""

    bumped: bool
    replaces: Txid


class SplitCoins(SpentCoins):
    """Coins made of others; `split` is false where it was only planned.

    One that is asked for again by its external id is told as it is now, whatever is asked.
    """

    split: bool
    n_coins: Count


class AbandonedPayment(TypedDict):
    """A payment that was given up, and what that frees; `abandoned` is false for a plan.

    `reason` is why the node does not take it.
    """

    abandoned: bool
    txid: Txid
    reason: str
    freed_sat: Sat
