"""The benchmark runs, and its floors count what the code under it does. Nothing here is timed."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from bench.operations import Op, measure
from bench.rows import repeat
from bench.sizes import BINARY_SHAPE, Size, seckey_of, sizes_of

from bench import ceremony, floor, in_process, report
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import pubkey_of
from cromford.factory.branch import branch_of
from cromford.factory.outputs import OutputKind
from cromford.factory.tree import ChannelKeys, Tree, build_tree

SMALLEST = Size(4, BINARY_SHAPE)


def tree_of(size: Size) -> Tree:
    return build_tree(
        size.terms(bytes(32)),
        factory_pubkeys=[pubkey_of(seckey_of("factory", i)) for i in range(size.n_clients + 1)],
        channels=[
            ChannelKeys(
                client_funding_pubkey=pubkey_of(seckey_of("client", i)),
                lsp_funding_pubkey=pubkey_of(seckey_of("lsp", i)),
            )
            for i in range(size.n_clients)
        ],
        funding_outpoint=OutPoint(txid=Txid(bytes(32)), vout=0),
    )


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
        output.signers_output.key_agg.pubkeys
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
        assert floor.client(size.shape, client)[Op.SESSION] == len(branch_nodes)


def test_the_smallest_size_runs_and_every_row_has_a_floor(tmp_path: Path) -> None:
    rows = [
        *repeat(SMALLEST, partial(in_process.run_once, SMALLEST), in_process.works(SMALLEST)),
        *repeat(SMALLEST, partial(ceremony.run_once, SMALLEST), ceremony.works(SMALLEST)),
    ]
    now = datetime.now(UTC)
    results = report.document(rows, measure(), began=now, ended=now, load_before="")
    written = json.loads(report.write(results, tmp_path).read_text())

    assert [row["row"] for row in written["rows"]] == [
        *in_process.works(SMALLEST),
        *ceremony.works(SMALLEST),
    ]
    assert all(row["floor"] > 0 and row["ratio"] > 0 for row in written["rows"])
    assert all(row["signer_sessions"] == 22 for row in written["rows"])
    assert written["operations_us"].keys() == {op.value for op in Op}
