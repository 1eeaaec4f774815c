"""The wallet's API methods, the same for both daemons."""

import asyncio
from collections.abc import Callable, Iterator
from decimal import ROUND_UP, Decimal
from typing import Any, Final, Protocol

import msgspec

from cromford.adapters.bitcoind import BitcoindChain
from cromford.answers.wallet import (
    AbandonedPayment,
    BumpedPayment,
    CoinStatus,
    NewAddress,
    OwnCoin,
    OwnCoins,
    SentCoins,
    SpentCoins,
    SplitCoins,
    WaitingPayment,
    WalletBalance,
    WithheldWord,
)
from cromford.bitcoin.address import address_of_script, script_of_address
from cromford.bitcoin.block import COINBASE_MATURITY
from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, SAT_PER_KW_OF_SAT_PER_VB, sat_per_vb
from cromford.bitcoin.network import Network
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.api.called_payments import sent_before, split_before
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.payment_limits import EXTERNAL_ID_SIZE_MAX
from cromford.daemon.api.payments import check_words
from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.metrics import Sample
from cromford.daemon.refusals import Refusals
from cromford.daemon.remedies import refusal
from cromford.ports import ChainUnavailable, TxRefused
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.spending import planned, planned_bump
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import CalledPayment, Wallet, WalletCoin
from cromford.wallet.spending import SpendingPlan
from cromford.watch.feerates import OwnFeerate

FEERATE_TARGET_BLOCKS: Final = 6
EXIT_NOT_FOUND: Final = 4
BUMP_IT: Final = "Let it pay more with `wallet bump`."
FEERATE_MAX_SAT_PER_VB: Final = 1000  # Above it somebody has mistyped.
FIRST_BLOCK_SECONDS: Final = 10.0  # That whoever wants an address waits for a node that starts.


class WalletOwner(Protocol):
    """What a daemon offers these methods."""

    network: Network
    chain: BitcoindChain
    fallback_sat_per_kw: int

    @property
    def wallet(self) -> Wallet:
        """The wallet's present state."""

    @property
    def height(self) -> int:
        """The height of the tip."""

    @property
    def recorded_height(self) -> int:
        """The height from which on the wallet was read up to now; -1 if it is new."""

    @property
    def following(self) -> ChainFollowing:
        """What waits for the first block."""

    @property
    def arriving_sat(self) -> int:
        """What is on its way to the wallet out of channels that are on chain."""

    @property
    def refusals(self) -> Refusals:
        """What the node does not take."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""

    def foresee(self, event: ev.Event) -> object:
        """Check an operator's request, and change nothing."""


class _SendParams(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    amount_sat: int | None = None  # None: all that is free
    feerate_sat_per_vb: str | None = None  # a decimal number; None: the node's estimate
    external_id: str = ""  # by one, it is paid once
    dry_run: bool = False


class _SplitParams(msgspec.Struct, forbid_unknown_fields=True):
    n_coins: int
    amount_sat: int | None = None  # of each coin; None: all that is free, divided
    feerate_sat_per_vb: str | None = None  # a decimal number; None: the node's estimate
    external_id: str = ""  # by one, it is made once
    dry_run: bool = False


class _BumpParams(msgspec.Struct, forbid_unknown_fields=True):
    txid: str
    feerate_sat_per_vb: str | None = None  # a decimal number; None: the node's estimate
    from_amount: bool = False  # its payee pays for it, and not the change or other coins
    dry_run: bool = False


class _AbandonParams(msgspec.Struct, forbid_unknown_fields=True):
    txid: str
    dry_run: bool = False


PARAMS: Final[Params] = {
    "wallet_send": _SendParams,
    "wallet_split": _SplitParams,
    "wallet_bump": _BumpParams,
    "wallet_abandon": _AbandonParams,
}


def wallet_methods(owner: WalletOwner) -> dict[str, Handler]:
    """Return `address`, and `wallet_` with balance, coins, send, split, bump and abandon."""

    async def address() -> NewAddress:
        await _check_looks(owner)
        wallet = owner.wallet
        script, is_new = wallet.next_script(RECEIVE), not wallet.is_at_gap(RECEIVE)
        owner.request(ev.AddressRequested())
        return {"address": address_of_script(script, owner.network), "is_new": is_new}

    async def balance() -> WalletBalance:
        return wallet_summary(owner)

    async def coins() -> OwnCoins:
        coins = sorted(owner.wallet.unspent.values(), key=lambda coin: (coin.height, coin.outpoint))
        return {"coins": [_show_coin(owner, coin) for coin in coins]}

    async def send(params: dict[str, Any]) -> SentCoins:
        return await _send(owner, read_params(params, _SendParams))

    async def split(params: dict[str, Any]) -> SplitCoins:
        return await _split(owner, read_params(params, _SplitParams))

    async def bump(params: dict[str, Any]) -> BumpedPayment:
        return await _bump(owner, read_params(params, _BumpParams))

    async def abandon(params: dict[str, Any]) -> AbandonedPayment:
        return await _abandon(owner, read_params(params, _AbandonParams))

    return {
        "address": without_params(address),
        "wallet_balance": without_params(balance),
        "wallet_coins": without_params(coins),
        "wallet_send": send,
        "wallet_split": split,
        "wallet_bump": bump,
        "wallet_abandon": abandon,
    }


def wallet_summary(owner: WalletOwner) -> WalletBalance:
    """Return the wallet in numbers: what is confirmed, free, reserved, immature, and arriving.

    `paying_sat` is what the coins hold that payments without a block spend, and `change_sat` what
    of it comes back to the wallet with their blocks.

    `arriving_sat` comes out of exits, out of closes that wait for a block, and at an LSP out of
    what it sweeps of its factories, after its delays and less the fees of the sweeps.
    """
    wallet = owner.wallet
    by_status: dict[str, int] = {}
    for coin in wallet.unspent.values():
        status = _status_of(owner, coin)
        by_status[status] = by_status.get(status, 0) + coin.txout.amount_sat
    return {
        "confirmed_sat": wallet.confirmed_sat(),
        "free_sat": by_status.get("free", 0),
        "reserved_sat": by_status.get("reserved", 0),
        "immature_sat": by_status.get("immature", 0),
        "paying_sat": by_status.get("paying", 0),
        "change_sat": _change_sat(wallet),
        "arriving_sat": owner.arriving_sat,
        "waiting": [_show_waiting(wallet, tx) for tx in wallet.payments.values()],
        "refused": owner.refusals.shown_of(wallet.payments, {}),
        "address": address_of_script(wallet.next_script(RECEIVE), owner.network)
        if owner.recorded_height >= 0
        else "",
    }


async def _check_looks(owner: WalletOwner) -> None:
    """Check that the wallet looks for what is paid to it.

    A new one begins with the newest block of a node that has caught up, however much later that is:
    it would never find what was paid to an address in between.

    Raises:
        ApiFailure: If no block was read yet.
    """
    if owner.recorded_height >= 0:
        return
    try:
        async with asyncio.timeout(FIRST_BLOCK_SECONDS):
            await owner.following.has_block.wait()
    except TimeoutError as error:
        reason = str(owner.following.stale() or "the node was not asked")
        raise ApiFailure(
            "chain_stale",
            "no block was read yet, and a new wallet finds nothing that was paid to it before: "
            + reason,
            retryable=True,
            remediation="Ask again once `status` says that the chain is fresh.",
        ) from error


def _change_sat(wallet: Wallet) -> int:
    # What is not published comes to no block: what is paid instead has its coins, or its change.
    published = (tx for tx in wallet.payments.values() if not wallet.is_withheld(tx))
    return sum(
        tx.outputs[outpoint.vout].amount_sat for tx in published for outpoint in wallet.paid_by(tx)
    )


def _show_waiting(wallet: Wallet, tx: Tx) -> WaitingPayment:
    fee_sat = wallet.fee_sat(tx)
    return {
        "txid": str(tx.txid),
        "fee_sat": fee_sat,
        "feerate_sat_per_vb": None if fee_sat is None else sat_per_vb(1000 * fee_sat // tx.weight),
        "withheld": _withheld(wallet, tx),
    }


def _withheld(wallet: Wallet, tx: Tx) -> WithheldWord | None:
    if not wallet.is_withheld(tx):
        return None
    return "change_spent" if wallet.is_behind(tx.txid) else "coins_taken"


def wallet_samples(owner: WalletOwner) -> Iterator[Sample]:
    """Yield the wallet's numbers for Prometheus."""
    for name, amount_sat in wallet_summary(owner).items():
        if isinstance(amount_sat, int):
            yield "wallet_sat", {"kind": name.removesuffix("_sat")}, amount_sat
    reserved = [
        coin.txout.amount_sat
        for coin in owner.wallet.unspent.values()
        if _status_of(owner, coin) == "reserved"
    ]
    yield "reserved_coins", {}, len(reserved)
    yield "reserved_sat", {}, sum(reserved)


def _status_of(owner: WalletOwner, coin: WalletCoin) -> CoinStatus:
    wallet = owner.wallet
    reserved_for = wallet.reserved.get(coin.outpoint)
    if reserved_for is not None:
        return "paying" if reserved_for in wallet.payments else "reserved"
    if coin.is_coinbase and owner.height + 1 - coin.height < COINBASE_MATURITY:
        return "immature"
    return "free"


def _owner_id(wallet: Wallet, reserved_for: bytes) -> str:
    is_payment = reserved_for in wallet.payments
    return str(Txid(reserved_for)) if is_payment else reserved_for.hex()


def _show_coin(owner: WalletOwner, coin: WalletCoin) -> OwnCoin:
    reserved_for = owner.wallet.reserved.get(coin.outpoint)
    return {
        "outpoint": str(coin.outpoint),
        "amount_sat": coin.txout.amount_sat,
        "address": address_of_script(coin.txout.script_pubkey, owner.network),
        "confirmations": owner.height - coin.height + 1,
        "status": _status_of(owner, coin),
        "reserved_for": None if reserved_for is None else _owner_id(owner.wallet, reserved_for),
    }


async def _send(owner: WalletOwner, wanted: _SendParams) -> SentCoins:
    try:
        script_pubkey = script_of_address(wanted.address, owner.network)
    except ValueError as error:
        raise InvalidParam("address", str(error)) from error
    priced = await _called_or_priced(owner, wanted)
    if isinstance(priced, CalledPayment):
        return sent_before(
            owner.wallet,
            priced,
            script_pubkey=script_pubkey,
            amount_sat=wanted.amount_sat,
            network=owner.network,
        )
    feerate_sat_per_kw, source = priced
    event = ev.SpendingRequested(
        script_pubkey=script_pubkey,
        amount_sat=wanted.amount_sat,
        feerate_sat_per_kw=feerate_sat_per_kw,
        external_id=wanted.external_id,
    )
    spending = _spend(owner, event, source=source, dry_run=wanted.dry_run)
    return {"sent": not wanted.dry_run, **spending}


async def _split(owner: WalletOwner, wanted: _SplitParams) -> SplitCoins:
    priced = await _called_or_priced(owner, wanted)
    if isinstance(priced, CalledPayment):
        return split_before(
            owner.wallet, priced, n_coins=wanted.n_coins, amount_sat=wanted.amount_sat
        )
    feerate_sat_per_kw, source = priced
    event = ev.SplitRequested(
        n_coins=wanted.n_coins,
        amount_sat=wanted.amount_sat,
        feerate_sat_per_kw=feerate_sat_per_kw,
        external_id=wanted.external_id,
    )
    spending = _spend(owner, event, source=source, dry_run=wanted.dry_run)
    return {"split": not wanted.dry_run, "n_coins": wanted.n_coins, **spending}


async def _bump(owner: WalletOwner, wanted: _BumpParams) -> BumpedPayment:
    """Let a payment that waits pay more, at no less than what takes its place in a mempool."""
    txid = _txid(wanted.txid)
    feerate_sat_per_kw, source = await _feerate(owner, wanted)
    try:
        relay = await owner.chain.relay_feerates()
        waits = await owner.chain.mempool_tx(txid)
    except ChainUnavailable as error:
        raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
    event = ev.SpendingBumpRequested(
        txid=txid,
        feerate_sat_per_kw=feerate_sat_per_kw,
        takes_from_amount=wanted.from_amount,
        incremental_sat_per_kw=max(MIN_RELAY_SAT_PER_KW, relay.incremental_sat_per_kw),
        others_sat=0 if waits is None else waits.replaced_fee_sat - waits.fee_sat,
    )
    _payment(owner, txid)
    owner.foresee(event)
    plan = planned_bump(owner.wallet, event, tip_height=owner.height)
    if not wanted.dry_run:
        owner.request(event)
    return {"bumped": not wanted.dry_run, "replaces": str(txid), **_spent(plan, event, source)}


async def _called_or_priced(
    owner: WalletOwner, wanted: _SendParams | _SplitParams
) -> CalledPayment | tuple[int, str]:
    """Return the payment that has this external id; if none has, its feerate, and who says so.

    Raises:
        InvalidParam: If the id is none, or the feerate.
        ApiFailure: If the node says nothing that can be used.
    """
    check_words("external_id", wanted.external_id, size_max=EXTERNAL_ID_SIZE_MAX)
    if (known := owner.wallet.called_now(wanted.external_id)) is not None:
        return known
    priced = await _feerate(owner, wanted)
    return owner.wallet.called_now(wanted.external_id) or priced  # One may have it since then.


async def _feerate(
    owner: WalletOwner, wanted: _SendParams | _SplitParams | _BumpParams
) -> tuple[int, str]:
    return await feerate_of(
        owner.chain,
        wanted.feerate_sat_per_vb,
        fallback_sat_per_kw=owner.fallback_sat_per_kw,
    )


def _spend(
    owner: WalletOwner,
    event: ev.SpendingRequested | ev.SplitRequested,
    *,
    source: str,
    dry_run: bool,
) -> SpentCoins:
    """Ask for a payment, unless it is to be shown only; return it in numbers."""
    try:
        plan = planned(owner.wallet, event, tip_height=owner.height)
    except Rejected as rejected:
        raise refusal(rejected) from rejected
    if not dry_run:
        owner.request(event)
    return _spent(plan, event, source)


def _spent(
    plan: SpendingPlan,
    event: ev.SpendingRequested | ev.SplitRequested | ev.SpendingBumpRequested,
    source: str,
) -> SpentCoins:
    return {
        "txid": str(plan.tx.txid),
        "amount_sat": plan.amount_sat,
        "fee_sat": plan.fee_sat,
        "change_sat": plan.change_sat,
        "feerate_sat_per_vb": sat_per_vb(event.feerate_sat_per_kw),
        "feerate_source": source,
    }


async def _abandon(owner: WalletOwner, wanted: _AbandonParams) -> AbandonedPayment:
    """Give up a payment, if the node refuses it at this moment and no block can have it."""
    txid = _txid(wanted.txid)
    payment = _payment(owner, txid)
    if owner.wallet.is_withheld(payment):
        why = "its coins, or the change of what a block had in its place, are in use since"
        told = f"it came back by a reorganisation, and {why}: the node might take it, and end that"
        raise refusal(Rejected("coins_taken", told))
    reason = await refusal_of(owner.chain, payment, lambda: owner.wallet, remediation=BUMP_IT)
    await _check_is_alone(owner.chain, payment)
    # Blocks may have come and gone meanwhile: with the payment, or without a coin of it.
    tx, coins = _payment(owner, txid), owner.wallet.coins
    freed_sat = sum(
        coin.txout.amount_sat
        for tx_in in tx.inputs
        if (coin := coins.get(tx_in.outpoint)) is not None
    )
    if not wanted.dry_run:
        owner.request(ev.AbandonRequested(txid=txid, reason=reason))
    return {
        "abandoned": not wanted.dry_run,
        "txid": str(txid),
        "reason": reason,
        "freed_sat": freed_sat,
    }


def _txid(given: str) -> Txid:
    try:
        return Txid.from_hex(given)
    except ValueError as error:
        raise InvalidParam("txid", str(error)) from error


async def _check_is_alone(chain: BitcoindChain, tx: Tx) -> None:
    """Check that nothing else waits for the coins of a payment that the node refuses.

    It may be the payment that this one was to replace: its payee would be paid by it, and once more
    by whoever takes the coins to be free.

    Raises:
        ApiFailure: If something does, or the node does not answer.
    """
    try:
        spenders = await chain.spenders([tx_in.outpoint for tx_in in tx.inputs])
    except ChainUnavailable as error:
        raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
    others = sorted(str(txid) for txid in spenders.values() if txid != tx.txid)
    if others:
        raise ApiFailure(
            "coins_wanted",
            f"{others[0]} waits for a block in the node's mempool, and spends coins of {tx.txid}",
            remediation="Wait until a block has it, or let this one pay more: `wallet bump`.",
        )


def _payment(owner: WalletOwner, txid: Txid) -> Tx:
    tx = owner.wallet.payments.get(txid)
    if tx is None:
        raise ApiFailure(
            "payment_not_found",
            f"no payment {txid} waits for a block",
            remediation="`wallet balance` shows the payments that wait.",
            exit_code=EXIT_NOT_FOUND,
        )
    return tx


async def refusal_of(
    chain: BitcoindChain,
    tx: Tx,
    wallet_now: Callable[[], Wallet],
    *,
    remediation: str = "Let it pay more with `lsp factory bump`.",
) -> str:
    """Publish a transaction once more, and return why the node does not take it.

    A coin that neither the node nor the wallet has in a block was taken away by a reorganisation.

    Args:
        chain: Our node.
        tx: The transaction, which spends coins of the wallet alone.
        wallet_now: Returns the wallet as it is then.
        remediation: What helps where the node takes it.

    Raises:
        ApiFailure: If the node takes it, has spent its coins in a block, or does not answer.
    """
    try:
        outpoints = [tx_in.outpoint for tx_in in tx.inputs]
        missing = [outpoint for outpoint in outpoints if await chain.coin(outpoint) is None]
        await chain.broadcast(tx)
    except TxRefused as refused:
        if not any(outpoint in wallet_now().coins for outpoint in missing):
            return refused.reason
        raise ApiFailure(
            "coins_spent",
            f"a block has spent coins of {tx.txid}: soon it is known to be over",
            retryable=True,
        ) from refused
    except ChainUnavailable as error:
        raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
    raise ApiFailure(
        "transaction_accepted",
        f"the node takes {tx.txid} now: it may be in any next block",
        remediation=remediation,
    )


async def feerate_of(
    chain: BitcoindChain, given: str | None, *, fallback_sat_per_kw: int
) -> tuple[int, str]:
    """Return the feerate and where it comes from: given, the node's estimate, or the fallback.

    What is not given is never below what the node's mempool asks for, and where there is no
    estimate, the fallback or twice that: see `OwnFeerate`.

    Raises:
        InvalidParam: If what was given is no feerate.
        ApiFailure: If the node does not answer, or nobody would give what it says.
    """
    if given is not None:
        return given_feerate(given), "given"
    try:
        estimate = await chain.estimate_sat_per_kw(FEERATE_TARGET_BLOCKS)
        relay = await chain.relay_feerates()
    except ChainUnavailable as error:
        raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
    if estimate is not None:
        check_believable(estimate)  # As it was said, and not as what a node would take of it.
    own = OwnFeerate(
        estimate_sat_per_kw=estimate,
        mempool_min_sat_per_kw=relay.mempool_min_sat_per_kw,
        fallback_sat_per_kw=fallback_sat_per_kw,
    )
    check_believable(own.sat_per_kw)
    if estimate is not None and own.sat_per_kw == estimate:
        return estimate, f"estimate for {FEERATE_TARGET_BLOCKS} blocks"
    is_fallback = own.sat_per_kw == fallback_sat_per_kw
    return own.sat_per_kw, "fallback" if is_fallback else "what our node's mempool asks for"


def check_believable(feerate_sat_per_kw: int) -> None:
    """Check that what the node says of feerates is no more than an operator may give.

    Raises:
        ApiFailure: If it is.
    """
    if feerate_sat_per_kw > FEERATE_MAX_SAT_PER_VB * SAT_PER_KW_OF_SAT_PER_VB:
        raise ApiFailure(
            "feerate_too_high",
            f"the node's feerate: expected at most {FEERATE_MAX_SAT_PER_VB} sat/vB, "
            f"received {sat_per_vb(feerate_sat_per_kw)}",
            remediation="Give one with `--feerate`, and look after the node.",
        )


def given_feerate(given: str, param: str = "feerate_sat_per_vb") -> int:
    """Return a feerate in sat per 1000 weight units, rounded up, of a decimal number in sat/vB.

    Args:
        given: The number.
        param: The parameter that said it.

    Raises:
        InvalidParam: If it is no feerate.
    """
    try:
        feerate = Decimal(given)
    except ArithmeticError:
        raise InvalidParam(param, f"expected a number, received {given!r}") from None
    if not feerate.is_finite() or not 0 < feerate <= FEERATE_MAX_SAT_PER_VB:
        raise InvalidParam(
            param,
            f"expected above 0 and at most {FEERATE_MAX_SAT_PER_VB}, received {given}",
        )
    per_kw = feerate * SAT_PER_KW_OF_SAT_PER_VB
    return int(per_kw.to_integral_value(ROUND_UP))
