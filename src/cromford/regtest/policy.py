"""Whether one transaction may enter a mempool: consensus without scripts, then relay policy.

Every function is pure and raises `MempoolRefused` with Bitcoin Core's reject reason. The values are
those of Core 31; what an operator may choose is in `options`. What is left out: rules that only a
script's execution shows and that consensus does not have (a non-minimal push, an upgradable NOP),
and limits on bare scripts with thousands of signature checks.
"""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.block import BLOCK_WEIGHT_MAX, COINBASE_MATURITY, NULL_OUTPOINT, is_coinbase
from cromford.bitcoin.script import ANCHOR_SCRIPT, OP_0, is_native_segwit, is_p2tr
from cromford.bitcoin.taproot import TAPLEAF_VERSION
from cromford.bitcoin.timelock import (
    LOCKTIME_THRESHOLD,
    NSEQUENCE_DISABLE_FLAG,
    NSEQUENCE_FINAL,
    NSEQUENCE_TIME_FLAG,
)
from cromford.bitcoin.tx import MAX_MONEY_SAT, TRUC_VERSION, WITNESS_SCALE, Tx, TxOut
from cromford.regtest import scripts
from cromford.regtest.chain import ChainCoin
from cromford.regtest.verdict import MempoolRefused, RefusalKind, money

DUST_RELAY_SAT_PER_KVB: Final = 3000
TX_VERSION_STANDARD_MAX: Final = TRUC_VERSION
TX_WEIGHT_STANDARD_MAX: Final = 400_000
TX_STRIPPED_SIZE_MIN: Final = 65  # 64 bytes could pass for two hashes of a merkle tree.
SCRIPT_SIG_STANDARD_MAX: Final = 1650
DUST_OUTPUTS_MAX: Final = 1
P2SH_SIGOPS_MAX: Final = 15
TX_SIGOPS_COST_MAX: Final = 16_000
WEIGHT_PER_SIGOP: Final = 20
P2WSH_SCRIPT_MAX: Final = 3600
P2WSH_ITEMS_MAX: Final = 100
WITNESS_ITEM_MAX: Final = 80
ANNEX_TAG: Final = 0x50  # BIP 341
LEAF_VERSION_MASK: Final = 0xFE
LOCKTIME_TIME_SHIFT: Final = 9  # BIP 68: units of 512 seconds.
LOCKTIME_MASK: Final = 0xFFFF

SPEND_SIZE_LEGACY: Final = 148
SPEND_SIZE_WITNESS: Final = 67


def fee_sat_at(rate_sat_per_kvb: int, vsize: int) -> int:
    """Return the fee of a size at a rate, rounded up to a whole satoshi."""
    return -(-rate_sat_per_kvb * vsize // 1000)


def check_transaction(tx: Tx) -> None:
    """Check what consensus demands of a transaction by itself.

    Raises:
        MempoolRefused: With the reason.
    """
    if not tx.outputs:
        raise MempoolRefused("bad-txns-vout-empty")
    if len(tx.stripped) * WITNESS_SCALE > BLOCK_WEIGHT_MAX:
        raise MempoolRefused("bad-txns-oversize")
    _check_amounts(tx)
    outpoints = [tx_in.outpoint for tx_in in tx.inputs]
    if len(set(outpoints)) != len(outpoints):
        raise MempoolRefused("bad-txns-inputs-duplicate")
    if is_coinbase(tx):
        if not 2 <= len(tx.inputs[0].script_sig) <= 100:
            raise MempoolRefused("bad-cb-length")
        raise MempoolRefused("coinbase")
    if NULL_OUTPOINT in outpoints:
        raise MempoolRefused("bad-txns-prevout-null")


def _check_amounts(tx: Tx) -> None:
    total_sat = 0
    for txout in tx.outputs:
        if txout.amount_sat >= 1 << 63:
            raise MempoolRefused("bad-txns-vout-negative")
        if txout.amount_sat > MAX_MONEY_SAT:
            raise MempoolRefused("bad-txns-vout-toolarge")
        total_sat += txout.amount_sat
        if total_sat > MAX_MONEY_SAT:
            raise MempoolRefused("bad-txns-txouttotal-toolarge")


def check_standard(tx: Tx, *, datacarrier_size_max: int) -> None:
    """Check that a transaction is of a form that nodes relay, its OP_RETURN outputs not too large.

    Raises:
        MempoolRefused: With the reason.
    """
    if not 1 <= tx.version <= TX_VERSION_STANDARD_MAX:
        raise MempoolRefused("version")
    if tx.weight > TX_WEIGHT_STANDARD_MAX:
        raise MempoolRefused("tx-size")
    for tx_in in tx.inputs:
        if len(tx_in.script_sig) > SCRIPT_SIG_STANDARD_MAX:
            raise MempoolRefused("scriptsig-size")
        if not scripts.is_push_only(tx_in.script_sig):
            raise MempoolRefused("scriptsig-not-pushonly")
    _check_outputs_standard(tx, datacarrier_size_max)
    if len(tx.stripped) < TX_STRIPPED_SIZE_MIN:
        raise MempoolRefused("tx-size-small")


def _check_outputs_standard(tx: Tx, datacarrier_size_max: int) -> None:
    datacarrier_left = datacarrier_size_max
    for txout in tx.outputs:
        if not is_standard_output(txout.script_pubkey):
            raise MempoolRefused("scriptpubkey")
        if scripts.script_type(txout.script_pubkey) == "nulldata":
            datacarrier_left -= len(txout.script_pubkey)
            if datacarrier_left < 0:
                raise MempoolRefused("datacarrier")
    if len(dust_outputs(tx)) > DUST_OUTPUTS_MAX:
        raise MempoolRefused("dust")


def is_standard_output(script_pubkey: bytes) -> bool:
    """Say whether nodes relay a transaction that pays to this script."""
    multisig = scripts.multisig_of(script_pubkey)
    if multisig is not None:
        return len(multisig[1]) <= scripts.MULTISIG_KEYS_STANDARD_MAX
    return scripts.script_type(script_pubkey) != "nonstandard"


def dust_threshold_sat(txout: TxOut) -> int:
    """Return the amount below which an output costs more to spend than it is worth."""
    if scripts.is_unspendable(txout.script_pubkey):
        return 0
    is_witness = is_native_segwit(txout.script_pubkey)
    spend_size = SPEND_SIZE_WITNESS if is_witness else SPEND_SIZE_LEGACY
    return fee_sat_at(DUST_RELAY_SAT_PER_KVB, len(txout.serialize()) + spend_size)


def dust_outputs(tx: Tx) -> list[int]:
    """Return the indices of the outputs that are dust."""
    return [
        vout
        for vout, txout in enumerate(tx.outputs)
        if txout.amount_sat < dust_threshold_sat(txout)
    ]


def check_final(tx: Tx, *, height: int, median_time: int) -> None:
    """Check nLockTime for a block at `height` after a block of `median_time` (BIP 113).

    Raises:
        MempoolRefused: `non-final`.
    """
    now = height if tx.nlocktime < LOCKTIME_THRESHOLD else median_time
    is_ahead = tx.nlocktime >= now and tx.nlocktime != 0
    if is_ahead and any(tx_in.nsequence != NSEQUENCE_FINAL for tx_in in tx.inputs):
        raise MempoolRefused("non-final")


def check_sequence_locks(
    tx: Tx,
    coins: Sequence[ChainCoin],
    coin_times: Sequence[int],
    *,
    height: int,
    median_time: int,
) -> None:
    """Check the relative timelocks for a block at `height` (BIP 68).

    Args:
        tx: The transaction.
        coins: What each input spends.
        coin_times: For each, the median time of the block before its own.
        height: Of the block that would hold it.
        median_time: Of the block before that one.

    Raises:
        MempoolRefused: `non-BIP68-final`.
    """
    if tx.version < 2:
        return
    for tx_in, coin, coin_time in zip(tx.inputs, coins, coin_times, strict=True):
        if tx_in.nsequence & NSEQUENCE_DISABLE_FLAG:
            continue
        units = tx_in.nsequence & LOCKTIME_MASK
        if tx_in.nsequence & NSEQUENCE_TIME_FLAG:
            is_locked = coin_time + (units << LOCKTIME_TIME_SHIFT) > median_time
        else:
            is_locked = coin.height + units > height
        if is_locked:
            raise MempoolRefused("non-BIP68-final")


def fee_of(tx: Tx, coins: Sequence[ChainCoin], *, height: int) -> int:
    """Return the fee in satoshi of a transaction for a block at `height`.

    Raises:
        MempoolRefused: If it spends a young coinbase, or more than it has.
    """
    input_sat = 0
    for coin in coins:
        depth = height - coin.height
        if coin.is_coinbase and depth < COINBASE_MATURITY:
            raise MempoolRefused(
                "bad-txns-premature-spend-of-coinbase", f"tried to spend coinbase at depth {depth}"
            )
        input_sat += coin.txout.amount_sat
    output_sat = sum(txout.amount_sat for txout in tx.outputs)
    if input_sat < output_sat:
        raise MempoolRefused(
            "bad-txns-in-belowout",
            f"value in ({money(input_sat)}) < value out ({money(output_sat)})",
        )
    return input_sat - output_sat


def check_inputs_standard(tx: Tx, prevouts: Sequence[TxOut]) -> None:
    """Check that everything spent is of a known form.

    Raises:
        MempoolRefused: `bad-txns-nonstandard-inputs`.
    """
    reason = "bad-txns-nonstandard-inputs"
    for index, (tx_in, prevout) in enumerate(zip(tx.inputs, prevouts, strict=True)):
        match scripts.script_type(prevout.script_pubkey):
            case "nonstandard":
                raise MempoolRefused(reason, f"input {index} script unknown")
            case "witness_unknown":
                raise MempoolRefused(reason, f"input {index} witness program is undefined")
            case "scripthash":
                redeem = scripts.last_push(tx_in.script_sig)
                if redeem is None:
                    raise MempoolRefused(reason, f"input {index} P2SH redeemscript missing")
                if scripts.legacy_sigops(redeem, accurate=True) > P2SH_SIGOPS_MAX:
                    raise MempoolRefused(reason, "p2sh redeemscript sigops exceed limit")


def check_witness_standard(tx: Tx, prevouts: Sequence[TxOut]) -> None:
    """Check that no witness is larger or stranger than policy knows.

    Raises:
        MempoolRefused: `bad-witness-nonstandard`.
    """
    for tx_in, prevout in zip(tx.inputs, prevouts, strict=True):
        if tx_in.witness and not _is_standard_witness(
            tx_in.witness, prevout.script_pubkey, tx_in.script_sig
        ):
            raise MempoolRefused("bad-witness-nonstandard")


def _is_standard_witness(
    witness: tuple[bytes, ...], script_pubkey: bytes, script_sig: bytes
) -> bool:
    if script_pubkey == ANCHOR_SCRIPT:
        return False
    is_p2sh = scripts.script_type(script_pubkey) == "scripthash"
    program = (scripts.last_push(script_sig) or b"") if is_p2sh else script_pubkey
    if not is_native_segwit(program):
        return False
    if program[0] == OP_0 and len(program) == 34:
        items = witness[:-1]
        return (
            len(witness[-1]) <= P2WSH_SCRIPT_MAX
            and len(items) <= P2WSH_ITEMS_MAX
            and all(len(item) <= WITNESS_ITEM_MAX for item in items)
        )
    return is_p2sh or not is_p2tr(program) or _is_standard_taproot_witness(witness)


def _is_standard_taproot_witness(witness: tuple[bytes, ...]) -> bool:
    if len(witness) == 1:
        return True
    if witness[-1][:1] in {bytes((ANNEX_TAG,)), b""}:
        return False
    if witness[-1][0] & LEAF_VERSION_MASK != TAPLEAF_VERSION:
        return True
    return all(len(item) <= WITNESS_ITEM_MAX for item in witness[:-2])


def check_no_reserved_scripts(tx: Tx, prevouts: Sequence[TxOut]) -> None:
    """Refuse tapleaves that consensus lets anyone spend until a later rule gives them meaning.

    Raises:
        MempoolRefused: `mempool-script-verify-flag-failed`.
    """
    for tx_in, prevout in zip(tx.inputs, prevouts, strict=True):
        if not is_p2tr(prevout.script_pubkey) or len(tx_in.witness) < 2:
            continue
        tapscript, control_block = tx_in.witness[-2:]
        reason = "mempool-script-verify-flag-failed"
        if control_block[0] & LEAF_VERSION_MASK != TAPLEAF_VERSION:
            raise MempoolRefused(f"{reason} (Taproot version reserved for soft-fork upgrades)")
        if scripts.has_op_success(tapscript):
            raise MempoolRefused(f"{reason} (OP_SUCCESSx reserved for soft-fork upgrades)")


def sigops_cost(tx: Tx, prevouts: Sequence[TxOut]) -> int:
    """Return what a transaction's signature checks cost a block (BIP 141); none of taproot's."""
    written = [tx_in.script_sig for tx_in in tx.inputs]
    written += [txout.script_pubkey for txout in tx.outputs]
    cost = sum(scripts.legacy_sigops(script, accurate=False) for script in written) * WITNESS_SCALE
    for tx_in, prevout in zip(tx.inputs, prevouts, strict=True):
        program = prevout.script_pubkey
        if scripts.script_type(program) == "scripthash":
            program = scripts.last_push(tx_in.script_sig) or b""
            cost += scripts.legacy_sigops(program, accurate=True) * WITNESS_SCALE
        if is_native_segwit(program) and program[0] == OP_0:
            if len(program) == 22:
                cost += 1
            elif tx_in.witness:
                cost += scripts.legacy_sigops(tx_in.witness[-1], accurate=True)
    return cost


def adjusted_weight(tx: Tx, sigops: int) -> int:
    """Return the weight that fees are reckoned with.

    Raises:
        MempoolRefused: If the signature checks are too many.
    """
    if sigops > TX_SIGOPS_COST_MAX:
        raise MempoolRefused("bad-txns-too-many-sigops", str(sigops))
    return max(tx.weight, sigops * WEIGHT_PER_SIGOP)


def check_dust_pays_no_fee(tx: Tx, fee_sat: int) -> None:
    """Check that a transaction with ephemeral dust gives nobody a reason to mine it alone.

    Raises:
        MempoolRefused: `dust`.
    """
    if fee_sat and dust_outputs(tx):
        raise MempoolRefused("dust", "tx with dust output must be 0-fee")


def check_feerate(
    *, vsize: int, fee_sat: int, rolling_sat_per_kvb: int, min_relay_sat_per_kvb: int
) -> None:
    """Check the minimum feerates: of a mempool that was full, and of relay.

    Raises:
        MempoolRefused: `mempool min fee not met` or `min relay fee not met`; a package may still
            carry it.
    """
    for name, rate_sat_per_kvb in (
        ("mempool min fee", rolling_sat_per_kvb),
        ("min relay fee", min_relay_sat_per_kvb),
    ):
        least_sat = fee_sat_at(rate_sat_per_kvb, vsize)
        if fee_sat < least_sat:
            raise MempoolRefused(
                f"{name} not met", f"{fee_sat} < {least_sat}", kind=RefusalKind.FEE
            )
