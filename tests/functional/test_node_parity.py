"""One table of verdicts on single transactions, for the embedded node and a real Bitcoin Core."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.functional.node_world import (
    ACCEPTED,
    FINAL,
    KEY_SCRIPT,
    LOCKTIME_COUNTS,
    NODES,
    OPEN_SCRIPT,
    OPEN_WITNESS,
    TRUE_SCRIPT,
    Coin,
    World,
    coin_of,
    hex_of,
    pay,
    signed,
)

from cromford.bitcoin.script import (
    ANCHOR_SCRIPT,
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSEQUENCEVERIFY,
    push_number,
)
from cromford.bitcoin.taproot import taproot_output
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, var_bytes
from cromford.crypto.keys import TaggedHash, pubkey_of, xonly_of

INTERNAL_KEY = xonly_of(pubkey_of(bytes(31) + b"\x08"))


def tapscript_coin(world: World, script: bytes, *items: bytes, leaf_version: int = 0xC0) -> Coin:
    """Return a confirmed coin with one tapleaf, and the witness that spends it."""
    leaf_hash = TaggedHash("TapLeaf")(bytes((leaf_version,)) + var_bytes(script))
    output = taproot_output(INTERNAL_KEY, leaf_hash)
    control = bytes((output.parity | leaf_version,)) + output.internal_key
    return world.confirmed(output.script_pubkey, 100_000, (*items, script, control))


def a_plain_spend(world: World) -> str:
    return world.send(pay([world.coin()]))


def an_unknown_input(world: World) -> str:
    return world.send(pay([Coin(OutPoint(txid=Txid(b"\x01" * 32), vout=0), 50_000)]))


def a_spent_input(world: World) -> str:
    coin = world.coin()
    world.call("sendrawtransaction", hex_of(pay([coin])))
    world.mine()
    return world.send(pay([coin], fee_sat=5_000))


def a_key_path_signature(world: World) -> str:
    coin = world.confirmed(KEY_SCRIPT, 100_000, ())
    return world.send(signed(pay([coin]), [coin]))


def a_wrong_signature(world: World) -> str:
    coin = world.confirmed(KEY_SCRIPT, 100_000, ())
    tx = signed(pay([coin]), [coin])
    wrong = bytearray(tx.inputs[0].witness[0])
    wrong[40] ^= 1
    return world.send(tx.with_witnesses((bytes(wrong),)))


def a_wrong_witness_script(world: World) -> str:
    return world.send(pay([replace(world.coin(), witness=(b"\x52",))]))


def a_missing_witness(world: World) -> str:
    return world.send(pay([replace(world.coin(), witness=())]))


def a_height_lock_of_the_next_block(world: World) -> str:
    height = world.call("getblockcount")
    return world.send(pay([world.coin()], nlocktime=height, nsequence=LOCKTIME_COUNTS))


def a_height_lock_one_too_late(world: World) -> str:
    height = world.call("getblockcount")
    return world.send(pay([world.coin()], nlocktime=height + 1, nsequence=LOCKTIME_COUNTS))


def a_height_lock_that_does_not_count(world: World) -> str:
    height = world.call("getblockcount")
    return world.send(pay([world.coin()], nlocktime=height + 1, nsequence=FINAL))


def a_time_lock_at_the_median(world: World) -> str:
    median = world.call("getblockchaininfo")["mediantime"]
    return world.send(pay([world.coin()], nlocktime=median, nsequence=LOCKTIME_COUNTS))


def a_time_lock_before_the_median(world: World) -> str:
    median = world.call("getblockchaininfo")["mediantime"]
    return world.send(pay([world.coin()], nlocktime=median - 1, nsequence=LOCKTIME_COUNTS))


def a_relative_lock_one_too_early(world: World) -> str:
    coin = world.confirmed(OPEN_SCRIPT, 100_000, OPEN_WITNESS)
    world.mine(3)
    return world.send(pay([coin], nsequence=5))


def a_relative_lock_that_has_passed(world: World) -> str:
    coin = world.confirmed(OPEN_SCRIPT, 100_000, OPEN_WITNESS)
    world.mine(3)
    return world.send(pay([coin], nsequence=4))


def a_relative_lock_in_version_1(world: World) -> str:
    coin = world.confirmed(OPEN_SCRIPT, 100_000, OPEN_WITNESS)
    return world.send(pay([coin], nsequence=100, version=1))


def a_relative_lock_on_an_unconfirmed_coin(world: World) -> str:
    parent = pay([world.coin()])
    world.call("sendrawtransaction", hex_of(parent))
    return world.send(pay([coin_of(parent, 0)], nsequence=1))


def a_relative_time_lock(world: World) -> str:
    coin = world.confirmed(OPEN_SCRIPT, 100_000, OPEN_WITNESS)
    return world.send(pay([coin], nsequence=1 << 22 | 1000))


def a_relative_time_lock_of_zero(world: World) -> str:
    coin = world.confirmed(OPEN_SCRIPT, 100_000, OPEN_WITNESS)
    return world.send(pay([coin], nsequence=1 << 22))


def a_script_that_demands_a_later_height(world: World) -> str:
    script = push_number(400_000) + bytes((OP_CHECKLOCKTIMEVERIFY,))
    return world.send(pay([tapscript_coin(world, script)], nsequence=LOCKTIME_COUNTS))


def a_script_that_demands_a_longer_delay(world: World) -> str:
    script = push_number(9) + bytes((OP_CHECKSEQUENCEVERIFY,))
    return world.send(pay([tapscript_coin(world, script)], nsequence=0))


def a_script_whose_delay_has_passed(world: World) -> str:
    script = push_number(2) + bytes((OP_CHECKSEQUENCEVERIFY,))
    coin = tapscript_coin(world, script)
    world.mine()
    return world.send(pay([coin], nsequence=2))


def a_young_coinbase(world: World) -> str:
    tip = world.call("getblockcount")
    return world.send(pay([world.coinbase_coin(tip - 98)]))


def a_coinbase_just_mature(world: World) -> str:
    tip = world.call("getblockcount")
    return world.send(pay([world.coinbase_coin(tip - 99)]))


def just_the_least_feerate(world: World) -> str:
    coin = world.coin()
    return world.send(pay([coin], fee_sat=-(-pay([coin]).vsize // 10)))


def less_than_the_least_feerate(world: World) -> str:
    coin = world.coin()
    return world.send(pay([coin], fee_sat=-(-pay([coin]).vsize // 10) - 1))


def a_taproot_output_at_the_dust_limit(world: World) -> str:
    return world.send(pay([world.coin()], (330, KEY_SCRIPT)))


def a_taproot_output_below_the_dust_limit(world: World) -> str:
    return world.send(pay([world.coin()], (329, KEY_SCRIPT)))


def an_anchor_at_the_dust_limit(world: World) -> str:
    return world.send(pay([world.coin()], (240, ANCHOR_SCRIPT)))


def an_anchor_below_the_dust_limit(world: World) -> str:
    return world.send(pay([world.coin()], (239, ANCHOR_SCRIPT)))


def two_dust_outputs_without_a_fee(world: World) -> str:
    tx = pay([world.coin()], (0, ANCHOR_SCRIPT), (0, ANCHOR_SCRIPT), fee_sat=0, version=3)
    return world.send(tx)


def version_0(world: World) -> str:
    return world.send(pay([world.coin()], version=0))


def version_4(world: World) -> str:
    return world.send(pay([world.coin()], version=4))


def an_output_of_no_known_form(world: World) -> str:
    return world.send(pay([world.coin()], (10_000, b"\x51\x51")))


def an_output_of_a_future_witness_version(world: World) -> str:
    return world.send(pay([world.coin()], (10_000, b"\x60\x20" + bytes(32))))


def a_bare_multisig_of_four(world: World) -> str:
    keys = b"".join(b"\x21" + pubkey_of(bytes(31) + bytes((n,))) for n in range(1, 5))
    return world.send(pay([world.coin()], (10_000, b"\x51" + keys + b"\x54\xae")))


def a_data_output(world: World) -> str:
    return world.send(pay([world.coin()], (0, b"\x6a\x04abcd")))


def more_out_than_in(world: World) -> str:
    return world.send(pay([world.coin()], (60 * 100_000_000, OPEN_SCRIPT)))


def an_output_above_all_money(world: World) -> str:
    return world.send(pay([world.coin()], (21_000_001 * 100_000_000, OPEN_SCRIPT)))


def a_negative_output(world: World) -> str:
    coin = world.coin()
    tx = pay([coin])
    negative = TxOut(amount_sat=(1 << 64) - 1, script_pubkey=OPEN_SCRIPT)
    return world.send(Tx(version=2, inputs=tx.inputs, outputs=(negative,)))


def one_coin_twice(world: World) -> str:
    coin = world.coin()
    return world.send(pay([coin, coin]))


def no_outputs(world: World) -> str:
    return world.send(Tx(version=2, inputs=pay([world.coin()]).inputs, outputs=()))


def a_coinbase_of_our_own(world: World) -> str:
    nothing = OutPoint(txid=Txid(bytes(32)), vout=0xFFFF_FFFF)
    tx_in = TxIn(outpoint=nothing, nsequence=FINAL, script_sig=b"\x51\x51")
    output = TxOut(amount_sat=1, script_pubkey=OPEN_SCRIPT)
    return world.send(Tx(version=2, inputs=(tx_in,), outputs=(output,)))


def a_null_input_among_others(world: World) -> str:
    nothing = Coin(OutPoint(txid=Txid(bytes(32)), vout=0xFFFF_FFFF), 0)
    return world.send(pay([world.coin(), nothing]))


def sixty_four_bytes_or_less(world: World) -> str:
    tx = pay([world.coin()])
    output = TxOut(amount_sat=0, script_pubkey=b"\x6a\x02ab")
    return world.send(Tx(version=2, inputs=tx.inputs, outputs=(output,)))


def a_script_sig_that_computes(world: World) -> str:
    tx = pay([world.coin()])
    tx_in = replace(tx.inputs[0], script_sig=b"\x51\x93")
    return world.send(replace(tx, inputs=(tx_in,)))


def a_coin_of_no_known_form(world: World) -> str:
    return world.send(pay([world.confirmed(b"\x51", 100_000, ())]))


def a_coin_of_a_future_witness_version(world: World) -> str:
    return world.send(pay([world.confirmed(b"\x60\x20" + bytes(32), 100_000, (b"x",))]))


def an_anchor_spent(world: World) -> str:
    return world.send(pay([world.confirmed(ANCHOR_SCRIPT, 100_000, ())]))


def an_anchor_spent_with_a_witness(world: World) -> str:
    return world.send(pay([world.confirmed(ANCHOR_SCRIPT, 100_000, (b"x",))]))


def a_large_witness_item(world: World) -> str:
    coin = tapscript_coin(world, b"\x75\x51", b"x" * 81)  # OP_DROP OP_1
    return world.send(pay([coin]))


def an_annex(world: World) -> str:
    coin = tapscript_coin(world, TRUE_SCRIPT)
    return world.send(pay([replace(coin, witness=(*coin.witness, b"\x50annex"))]))


def a_tapscript(world: World) -> str:
    return world.send(pay([tapscript_coin(world, TRUE_SCRIPT)]))


def a_tapscript_that_fails(world: World) -> str:
    return world.send(pay([tapscript_coin(world, b"\x00")]))


def a_reserved_opcode(world: World) -> str:
    return world.send(pay([tapscript_coin(world, b"\x50")]))


def a_reserved_leaf_version(world: World) -> str:
    return world.send(pay([tapscript_coin(world, TRUE_SCRIPT, leaf_version=0xC2)]))


SCRIPT_FAILED = "mempool-script-verify-flag-failed"
CASES: dict[Callable[[World], str], str] = {
    a_plain_spend: ACCEPTED,
    an_unknown_input: "bad-txns-inputs-missingorspent",
    a_spent_input: "bad-txns-inputs-missingorspent",
    a_key_path_signature: ACCEPTED,
    a_wrong_signature: SCRIPT_FAILED,
    a_wrong_witness_script: SCRIPT_FAILED,
    a_missing_witness: SCRIPT_FAILED,
    a_height_lock_of_the_next_block: ACCEPTED,
    a_height_lock_one_too_late: "non-final",
    a_height_lock_that_does_not_count: ACCEPTED,
    a_time_lock_at_the_median: "non-final",
    a_time_lock_before_the_median: ACCEPTED,
    a_relative_lock_one_too_early: "non-BIP68-final",
    a_relative_lock_that_has_passed: ACCEPTED,
    a_relative_lock_in_version_1: ACCEPTED,
    a_relative_lock_on_an_unconfirmed_coin: "non-BIP68-final",
    a_relative_time_lock: "non-BIP68-final",
    a_relative_time_lock_of_zero: ACCEPTED,
    a_script_that_demands_a_later_height: SCRIPT_FAILED,
    a_script_that_demands_a_longer_delay: SCRIPT_FAILED,
    a_script_whose_delay_has_passed: ACCEPTED,
    a_young_coinbase: "bad-txns-premature-spend-of-coinbase",
    a_coinbase_just_mature: ACCEPTED,
    just_the_least_feerate: ACCEPTED,
    less_than_the_least_feerate: "min",
    a_taproot_output_at_the_dust_limit: ACCEPTED,
    a_taproot_output_below_the_dust_limit: "dust",
    an_anchor_at_the_dust_limit: ACCEPTED,
    an_anchor_below_the_dust_limit: "dust",
    two_dust_outputs_without_a_fee: "dust",
    version_0: "version",
    version_4: "version",
    an_output_of_no_known_form: "scriptpubkey",
    an_output_of_a_future_witness_version: ACCEPTED,
    a_bare_multisig_of_four: "scriptpubkey",
    a_data_output: ACCEPTED,
    more_out_than_in: "bad-txns-in-belowout",
    an_output_above_all_money: "bad-txns-vout-toolarge",
    a_negative_output: "bad-txns-vout-negative",
    one_coin_twice: "bad-txns-inputs-duplicate",
    no_outputs: "bad-txns-vout-empty",
    a_coinbase_of_our_own: "coinbase",
    a_null_input_among_others: "bad-txns-prevout-null",
    sixty_four_bytes_or_less: "tx-size-small",
    a_script_sig_that_computes: "scriptsig-not-pushonly",
    a_coin_of_no_known_form: "bad-txns-nonstandard-inputs",
    a_coin_of_a_future_witness_version: "bad-txns-nonstandard-inputs",
    an_anchor_spent: ACCEPTED,
    an_anchor_spent_with_a_witness: "bad-witness-nonstandard",
    a_large_witness_item: "bad-witness-nonstandard",
    an_annex: "bad-witness-nonstandard",
    a_tapscript: ACCEPTED,
    a_tapscript_that_fails: SCRIPT_FAILED,
    a_reserved_opcode: SCRIPT_FAILED,
    a_reserved_leaf_version: SCRIPT_FAILED,
}


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_nodes_give_the_verdict_of_the_table(
    world: World, case: Callable[[World], str]
) -> None:
    assert case(world) == CASES[case]
