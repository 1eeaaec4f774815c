"""The benchmark runs, and its floors count what the code under it does. Nothing here is timed."""

import io
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from bench.op import Op
from bench.operations import measure
from bench.rows import CPU, WALL, repeat
from bench.sizes import BINARY_SHAPE, Size, keychain_of, seckey_of, sizes_of
from rich.console import Console

from bench import (
    blocks,
    ceremony,
    comparing,
    floor,
    history,
    in_process,
    payment_floor,
    payment_processes,
    payments,
    report,
)
from cromford.adapters.memory import MemoryJournal
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import pubkey_of
from cromford.daemon import streams
from cromford.factory.branch import branch_of
from cromford.factory.lifetime import Period
from cromford.factory.outputs import OutputKind
from cromford.factory.tree import Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys

SMALLEST = Size(4, BINARY_SHAPE)
SIGNING = (Op.NONCE_GEN, Op.NONCE_AGG_TWO, Op.PARTIAL_SIGN, Op.PARTIAL_AGG_TWO, Op.SCHNORR_SIGN)
FUNCTIONS = {
    Op.PUBKEY_PARSE: "ec_pubkey_parse",
    Op.PUBKEY_CREATE: "ec_pubkey_create",
    Op.PUBKEY_MUL: "ec_pubkey_tweak_mul",
    Op.PUBKEY_SUM: "ec_pubkey_combine",
    Op.PUBKEY_TWEAK: "ec_pubkey_tweak_add",
    Op.XONLY_TWEAK: "xonly_pubkey_tweak_add",
    Op.SECKEY_TWEAK: "ec_seckey_tweak_add",
    Op.KEYPAIR_CREATE: "keypair_create",
    Op.NONCE_GEN: "musig_nonce_gen",
    Op.PUBNONCE_PARSE: "musig_pubnonce_parse",
    Op.NONCE_AGG_TWO: "musig_nonce_agg",
    Op.SESSION: "musig_nonce_process",
    Op.PARTIAL_SIGN: "musig_partial_sign",
    Op.PARTIAL_SIG_PARSE: "musig_partial_sig_parse",
    Op.PARTIAL_AGG_TWO: "musig_partial_sig_agg",
    Op.SCHNORR_SIGN: "schnorrsig_sign32",
    Op.SCHNORR_VERIFY: "schnorrsig_verify",
}


def agreed(size: Size) -> dict[str, Any]:
    """Return what a tree of this size is built from."""
    return {
        "terms": size.terms(bytes(32)),
        "factory_pubkeys": [pubkey_of(seckey_of("factory", i)) for i in range(size.n_clients + 1)],
        "channels": [
            ChannelFundingPubkeys(
                client_funding_pubkey=pubkey_of(seckey_of("client", i)),
                lsp_funding_pubkey=pubkey_of(seckey_of("lsp", i)),
            )
            for i in range(size.n_clients)
        ],
        "funding_outpoint": OutPoint(txid=Txid(bytes(32)), vout=0),
    }


def tree_of(size: Size) -> Tree:
    return build_tree(**agreed(size))


@pytest.mark.parametrize("size", list(sizes_of((1, 5, 13))), ids=str)
def test_a_tree_that_is_built_in_parts_is_the_same(size: Size) -> None:
    in_parts = in_process.built_in_parts(map, **agreed(size))
    assert [node.tx for node in in_parts.nodes] == [node.tx for node in tree_of(size).nodes]
    assert in_parts == tree_of(size)


@pytest.mark.parametrize(
    ("n_clients", "n_transactions", "n_signer_sessions"),
    [(4, 6, 22), (8, 14, 62), (32, 62, 382), (127, 254, 2032)],
)
def test_a_binary_tree_has_the_transactions_and_sessions_that_others_count(
    n_clients: int, n_transactions: int, n_signer_sessions: int
) -> None:
    size = Size(n_clients, BINARY_SHAPE)
    assert (size.n_transactions, size.n_signer_sessions) == (n_transactions, n_signer_sessions)


@pytest.mark.parametrize("size", list(sizes_of((4, 13))), ids=str)
def test_the_floor_counts_what_is_in_the_tree(size: Size) -> None:
    tree = tree_of(size)
    nodes = list(tree.nodes)
    n_sessions = sum(len(node.task.signers) for node in nodes)
    key_sets = {node.task.signers for node in nodes}
    key_sets |= {
        output.signers_output.signers
        for node in nodes
        for output in node.outputs
        if output.signers_output is not None
    }
    scripts = {node.spends.script_pubkey for node in nodes} | {
        output.script_pubkey
        for node in nodes
        for output in node.outputs
        if output.kind is not OutputKind.ANCHOR
    }

    built = floor.build(size.shape)
    assert built[Op.PUBKEY_PARSE] == len({key for keys in key_sets for key in keys})
    assert built[Op.KEY_AGG_TWO] == len(key_sets)
    assert built[Op.KEY_AGG_NEXT] == sum(len(keys) - 2 for keys in key_sets)
    assert built[Op.TWEAK] == len(scripts)
    assert floor.nonces(size.shape)[Op.NONCE_GEN] == n_sessions
    assert floor.sign(size.shape)[Op.SESSION] == n_sessions
    assert floor.finish(size.shape)[Op.SCHNORR_VERIFY] == len(nodes)
    for client in size.shape.clients:
        branch_nodes = list(branch_of(tree, client).nodes)
        # Beside its branch a client signs both first commitments of its channel.
        assert floor.client(size.shape, client)[Op.SESSION] == len(branch_nodes) + 2
    assert floor.lsp(size.shape)[Op.SESSION] == len(nodes) + 2 * size.n_clients


def test_a_payment_takes_the_operations_of_its_floor_and_no_fewer() -> None:
    """What both sides must sign is exactly that often done; all else may be done too often."""
    world = payments.PayingWorld(0, MemoryJournal, CPU)
    request = world.invoice(world.clients[0])
    calls: Counter[str] = Counter()

    def count(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            calls[function.__name__] += 1

    sys.setprofile(count)
    try:
        world.pay(world.lsp, request)
    finally:
        sys.setprofile(None)

    done = {op: calls[f"secp256k1_{name}"] for op, name in FUNCTIONS.items()}
    assert done.keys() == payment_floor.hop().keys()
    least = payment_floor.in_one_process(payment_floor.hop())
    assert done[Op.PUBNONCE_PARSE] == 0
    assert {op: n for op, n in done.items() if n < least[op]} == {}
    assert {op: done[op] for op in SIGNING} == {op: least[op] for op in SIGNING}


@pytest.mark.sampled(0)
def test_the_smallest_size_runs_and_every_row_has_a_floor(tmp_path: Path) -> None:
    rows = [
        *repeat(SMALLEST, partial(in_process.run_once, SMALLEST), in_process.works(SMALLEST)),
        *repeat(
            SMALLEST,
            partial(in_process.run_in_threads, SMALLEST),
            in_process.works_in_threads(SMALLEST),
            clock=WALL,
        ),
        *repeat(SMALLEST, partial(ceremony.run_once, SMALLEST), ceremony.works(SMALLEST)),
    ]
    for kind in (payments.IN_MEMORY, payments.DURABLE):
        several = payments.Payments(kind, n_payments=1)
        run, appends = several.run_once, several.n_appends
        rows += repeat(payments.SIZE, run, kind.works, clock=kind.clock, n_appends=appends)
    now = datetime.now(UTC)
    results = report.document(rows, measure(), began=now, ended=now, load_before="")
    written = json.loads(report.write(results, tmp_path).read_text())

    assert [row["row"] for row in written["rows"]] == [
        *in_process.works(SMALLEST),
        *in_process.works_in_threads(SMALLEST),
        *ceremony.works(SMALLEST),
        *payments.IN_MEMORY.works,
        *payments.DURABLE.works,
    ]
    assert all(row["floor"] > 0 and row["ratio"] > 0 for row in written["rows"])
    assert {row["signer_sessions"] for row in written["rows"] if row["clients"] == 4} == {22}
    appends = {row["row"]: row["journal_appends"] for row in written["rows"]}
    assert appends[payments.HOP] == appends[payments.HOP_DURABLE] > 0
    assert appends[payments.FORWARDED] == appends[payments.FORWARDED_DURABLE] > 0
    assert written["operations_us"].keys() == {op.value for op in Op}


def report_of(**ratios: float) -> dict[str, Any]:
    rows = [
        {"row": row, "clients": 4, "shape": BINARY_SHAPE, "ratio": ratios[row]} for row in ratios
    ]
    return {"format": report.FORMAT, "rows": rows}


def test_a_row_that_takes_longer_than_in_an_earlier_report_is_told(tmp_path: Path) -> None:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(report_of(same=2.0, faster=2.0, slower=2.0, gone=2.0)))
    earlier = comparing.read(path, report_format=report.FORMAT)
    later = report_of(slower=2.3, same=2.1, new=9.0, faster=1.5)
    both = list(comparing.compared(earlier, later))

    assert [(one.row, one.is_regression) for one in both] == [
        ("slower", True),
        ("same", False),
        ("faster", False),
    ]
    shown = io.StringIO()
    comparing.show(Console(file=shown, width=100), both)
    lines = [line for line in shown.getvalue().splitlines() if "longer" in line]
    assert len(lines) == 1
    assert "+15%" in lines[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "rows": []}'])
def test_what_is_no_report_of_this_format_is_compared_with_nothing(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected a report"):
        comparing.read(path, report_format=report.FORMAT)


def test_a_store_is_what_it_was_after_payments_and_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "TAIL_SIZE_MIN", 5_000)
    rows = list(history.rows(6))
    assert [row.name for row in rows] == list(history.NAMES)
    assert all(0 <= row.n_folded < row.n_records for row in rows)
    assert all(row.size_mb > 0 and row.snapshot_mb > 0 for row in rows)
    now = datetime.now(UTC)
    results = report.document([], measure(), began=now, ended=now, load_before="", stores=rows)
    shown = io.StringIO()
    report.show(Console(file=shown, width=100), results)
    assert "Stores after 6 payments" in shown.getvalue()


def test_a_block_asks_a_factory_that_is_left_and_none_that_dies(tmp_path: Path) -> None:
    blocks.write(tmp_path, 8, 1, Period.DYING)
    seen = blocks.measure(tmp_path, blocks.SIZE.new_lsp(keychain_of(blocks.SIZE, 0, "LSP")))
    assert seen.keys() == {blocks.AWAY, blocks.HERE}
    assert {one["n_asked"] for one in seen.values()} == {1}


@pytest.mark.sampled(0)
def test_the_rows_of_blocks_are_told_with_whom_they_asked() -> None:
    rows = blocks.rows((8, 24), exits=(2,))
    assert [(row.n_channels, row.period, row.clients) for row in rows] == [
        (n_channels, period, clients)
        for n_channels in (8, 24)
        for period in ("active", "dying")
        for clients in (blocks.AWAY, blocks.HERE)
    ]
    assert {row.n_asked for row in rows} == {2}
    assert all(row.first_ms > 0 and row.block_ms > 0 for row in rows)
    assert min(row.ratio for row in rows) == 1
    now = datetime.now(UTC)
    results = report.document([], measure(), began=now, ended=now, load_before="", blocks=rows)
    shown = io.StringIO()
    report.show(Console(file=shown, width=100), results)
    assert "A block of an LSP" in shown.getvalue()
    assert [row["n_asked"] for row in results["blocks"]] == [2] * len(rows)


@pytest.mark.sampled(0)
def test_processes_open_a_factory_and_pay_one_another() -> None:
    size = payment_processes.size_by((1,))
    with payment_processes.running(size, n_payments=1) as run_once:
        spent_ms = run_once(0)
    assert spent_ms.keys() == payment_processes.works().keys()
    assert min(spent_ms.values()) > 0
