"""What a close has room for, and who has what is too small for an output."""

import pytest

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, TRUC_VSIZE_MAX
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg
from cromford.factory.close import CannotClose, CloseScope, CloseTx, Payout, build_close
from cromford.factory.key_path import InvalidSignature
from cromford.factory.outputs import SignersOutput
from cromford.regtest.policy import dust_outputs, is_standard_output

LSP_SCRIPT = b"\x51\x20" + b"\x01" * 32
FEERATE = 1_000
ONE_CLIENT_VSIZE = 124  # As a kickoff: one input, one taproot output, the anchor.


def scope_of(n_clients: int, amount_sat: int) -> CloseScope:
    keys = KeyAgg([pubkey_of(bytes(31) + b"\x01"), pubkey_of(bytes(31) + b"\x02")])
    return CloseScope(
        name="kickoff_root",
        outpoint=OutPoint(txid=Txid(b"\x03" * 32), vout=0),
        amount_sat=amount_sat,
        output=SignersOutput(key_agg=keys),
        clients=tuple(range(1, n_clients + 1)),
    )


def payouts(*due_msat: int) -> list[Payout]:
    return [
        Payout(script_pubkey=b"\x51\x20" + n.to_bytes(32, "big"), due_msat=due)
        for n, due in enumerate(due_msat, start=10)
    ]


def close(amount_sat: int, *due_msat: int) -> CloseTx:
    return build_close(
        scope_of(len(due_msat), amount_sat),
        payouts(*due_msat),
        lsp_script=LSP_SCRIPT,
        feerate_sat_per_kw=FEERATE,
    )


def test_229_clients_are_as_many_as_a_version_3_transaction_has_room_for() -> None:
    full = close(1_000_000, *([330_000] * 229))
    assert len(full.tx.outputs) == 231
    assert full.vsize == full.scope.vsize_max <= TRUC_VSIZE_MAX
    assert full.vsize + 43 > TRUC_VSIZE_MAX
    with pytest.raises(CannotClose, match=r"clients: expected at most 229.*received 230"):
        close(1_000_000, *([330_000] * 230))


def test_a_close_is_at_most_as_large_as_a_version_3_transaction_may_be() -> None:
    due = payouts(*([330_000] * 229))
    scope = scope_of(229, 1_000_000)
    spare = TRUC_VSIZE_MAX - scope.vsize_max
    most = LSP_SCRIPT + bytes(spare)
    full = build_close(scope, due, lsp_script=most, feerate_sat_per_kw=FEERATE)
    assert full.vsize == TRUC_VSIZE_MAX
    with pytest.raises(CannotClose, match=r"vsize: expected at most 10000, received 10001"):
        build_close(scope, due, lsp_script=most + b"\x00", feerate_sat_per_kw=FEERATE)


@pytest.mark.parametrize("n_payouts", [1, 3])
def test_a_close_pays_each_client_of_its_scope(n_payouts: int) -> None:
    with pytest.raises(CannotClose, match=rf"payouts: expected 2, received {n_payouts}"):
        build_close(
            scope_of(2, 1_000_000),
            payouts(*([330_000] * n_payouts)),
            lsp_script=LSP_SCRIPT,
            feerate_sat_per_kw=FEERATE,
        )


def test_a_close_is_signed_by_those_who_share_the_output_or_not_at_all() -> None:
    made = close(100_000, 330_000)
    with pytest.raises(InvalidSignature, match="close kickoff_root") as refused:
        made.scope.signed(made.tx, bytes(64))
    assert refused.value.name == made.scope.task(made.tx).name


@pytest.mark.parametrize(("due_msat", "paid_sat"), [(329_999, 0), (330_000, 330), (330_999, 330)])
def test_below_330_sat_there_is_no_output_and_fractions_stay_with_the_lsp(
    due_msat: int, paid_sat: int
) -> None:
    made = close(100_000, due_msat)
    paid = [output.amount_sat for output in made.tx.outputs]
    assert paid == ([paid_sat] if paid_sat else []) + [made.lsp_sat, ANCHOR_DUST_SAT]
    assert made.lsp_sat == 100_000 - paid_sat - ANCHOR_DUST_SAT - made.fee_sat
    assert made.omitted == (() if paid_sat else (1,))


def test_who_is_due_nothing_is_not_listed_as_left_out() -> None:
    assert close(100_000, 0).omitted == ()


@pytest.mark.parametrize(("spare_sat", "lsp_sat"), [(330, 330), (329, 0), (0, 0)])
def test_what_is_left_of_less_than_dust_goes_to_the_fee(spare_sat: int, lsp_sat: int) -> None:
    """With the LSP's output the fee is that of its size; without, of the rest of it."""
    fee_sat = close(100_000, 50_000_000).fee_sat
    made = close(50_000 + ANCHOR_DUST_SAT + fee_sat + spare_sat, 50_000_000)
    assert made.lsp_sat == lsp_sat
    assert made.fee_sat == fee_sat + spare_sat - lsp_sat
    assert len(made.tx.outputs) == (3 if lsp_sat else 2)


@pytest.mark.parametrize(("short_sat", "is_enough"), [(0, True), (1, False)])
def test_the_lsps_part_carries_fee_and_anchor_to_the_satoshi(
    short_sat: int, *, is_enough: bool
) -> None:
    least_sat = 4 * ONE_CLIENT_VSIZE * FEERATE // 1000
    amount_sat = 50_000 + ANCHOR_DUST_SAT + least_sat - short_sat
    if is_enough:
        made = close(amount_sat, 50_000_000)
        assert (made.vsize, made.fee_sat) == (ONE_CLIENT_VSIZE, least_sat)
        return
    with pytest.raises(CannotClose, match=f"fee: expected at least {least_sat} sat"):
        close(amount_sat, 50_000_000)


@pytest.mark.parametrize(
    "script", [b"\x00\x14" + bytes(20), b"\x00\x20" + bytes(32), b"\x51\x20" + bytes(32)]
)
def test_every_kind_of_payout_is_relayed_from_330_sat_on(script: bytes) -> None:
    payout = Payout(script_pubkey=script, due_msat=330_000)
    made = build_close(
        scope_of(1, 100_000), [payout], lsp_script=LSP_SCRIPT, feerate_sat_per_kw=FEERATE
    )
    assert all(is_standard_output(output.script_pubkey) for output in made.tx.outputs)
    assert dust_outputs(made.tx) == []


@pytest.mark.parametrize(
    "script",
    [
        b"\x00\x02\x01\x01",  # Version 0 has programs of 20 and of 32 bytes: no node relays this.
        b"\x52\x28" + bytes(40),  # Below 354 sat this is dust, and so large nothing else is.
        ANCHOR_SCRIPT,
        b"\x6a\x01\x01",
    ],
)
def test_what_one_client_is_paid_to_keeps_no_close_out_of_the_mempools(script: bytes) -> None:
    """Signed by everybody it would freeze all channels, and never be in a block."""
    payouts = [Payout(script_pubkey=script, due_msat=330_000)]
    with pytest.raises(CannotClose, match=f"payout_script.*received {script.hex()}"):
        build_close(
            scope_of(1, 100_000), payouts, lsp_script=LSP_SCRIPT, feerate_sat_per_kw=FEERATE
        )
    unpaid = [Payout(script_pubkey=script, due_msat=329_999)]
    build_close(scope_of(1, 100_000), unpaid, lsp_script=LSP_SCRIPT, feerate_sat_per_kw=FEERATE)
