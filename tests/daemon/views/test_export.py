"""The export of a factory, checked as a stranger would: other software, and the document alone.

Transactions are parsed by wallycore, scripts derived from their descriptors by the factory
room's oracle, and the kernel says what may be published. No value of the tree is looked at.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest
import wallycore
from tests.factory.oracle import script_of_descriptor, spot_of
from tests.protocol.pump import COIN_SAT, WANTED_SAT, Pump

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx, TxOut
from cromford.daemon.views.export import export_factory, export_nodes
from cromford.factory.branch import Branch
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FeePolicy
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.policy import LspPolicy
from cromford.regtest.kernel import ScriptRefused, check_scripts
from cromford.wire import messages as m

# As every block explorer and `getblockhash 0` show it.
REGTEST_GENESIS: Final = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
FEERATE_SAT_PER_KW: Final = 777  # A fee by it is never a whole number by chance.
POLICIES: Final = {
    "endogenous": LspPolicy(min_clients=1, tree_feerate_sat_per_kw=FEERATE_SAT_PER_KW),
    "ephemeral": LspPolicy(
        min_clients=1, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0
    ),
    "static": LspPolicy(
        min_clients=1, tree_feerate_sat_per_kw=FEERATE_SAT_PER_KW, inner_kind=VertexKind.STATIC
    ),
}
STAGES: Final = {"proposed": m.SignBelow, "signing the root": m.SignRoot, "signed": None}
N_CLIENTS: Final = 3  # Two leaves, one of them with neighbours.


@cache
def attempts(policy: str) -> Mapping[str, LspAttempt]:
    """Return one factory at each stage of its ceremony."""
    pump = Pump(N_CLIENTS, policy=POLICIES[policy])
    pump.join()
    pump.build()
    found = {}
    for stage, stops_at in STAGES.items():
        if stops_at is None:
            pump.run()
        else:
            pump.run_to(stops_at)
        found[stage] = pump.attempt
    assert pump.is_funded()
    return found


@cache
def written(policy: str, stage: str) -> str:
    """Return the document as a stranger gets it: as text."""
    attempt = attempts(policy)[stage]
    outputs_sat = sum(out.amount_sat for out in attempt.funding_tx.outputs)
    document = export_factory(
        attempt,
        network=REGTEST,
        status="building",
        confirmations=0,
        funding_fee_sat=COIN_SAT * len(attempt.funding_tx.inputs) - outputs_sat,
    )
    return json.dumps(document)


def read(policy: str, stage: str = "signed") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(written(policy, stage))
    return document


def parsed(tx_hex: str) -> Any:
    return wallycore.tx_from_hex(tx_hex, wallycore.WALLY_TX_FLAG_USE_WITNESS)


def txid_of(tx: Any) -> str:
    """Return a txid in the order people read."""
    return bytes(wallycore.tx_get_txid(tx))[::-1].hex()


def outputs_of(tx: Any) -> list[tuple[int, str]]:
    return [
        (
            wallycore.tx_get_output_satoshi(tx, vout),
            bytes(wallycore.tx_get_output_script(tx, vout)).hex(),
        )
        for vout in range(wallycore.tx_get_num_outputs(tx))
    ]


def spent_by(document: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return the output in the document that a transaction of the tree spends."""
    if row["parent"] is None:
        funding: dict[str, Any] = document["funding"]
        return funding
    (parent,) = (other for other in document["transactions"] if other["name"] == row["parent"])
    output: dict[str, Any] = parent["outputs"][row["parent_vout"]]
    return output


every_policy = pytest.mark.parametrize("policy", POLICIES)
every_stage = pytest.mark.parametrize("stage", STAGES)


@every_policy
@every_stage
def test_every_transaction_is_its_bytes_and_spends_its_parent(policy: str, stage: str) -> None:
    document = read(policy, stage)
    txids: dict[str | None, str] = {None: document["funding"]["txid"]}
    for row in document["transactions"]:
        tx = parsed(row["tx_hex"])
        txids[row["name"]] = row["txid"]
        assert row["txid"] == txid_of(tx)
        assert wallycore.tx_get_version(tx) == 3, "BIP 431"
        assert wallycore.tx_get_locktime(tx) == 0
        assert wallycore.tx_get_num_inputs(tx) == 1
        spent_txid = bytes(wallycore.tx_get_input_txhash(tx, 0))[::-1].hex()
        assert spent_txid == txids[row["parent"]], "a parent stands before its children"
        assert wallycore.tx_get_input_index(tx, 0) == row["parent_vout"]
        assert wallycore.tx_get_input_sequence(tx, 0) == row["nsequence"]
        assert outputs_of(tx) == [
            (output["amount_sat"], output["script_pubkey"]) for output in row["outputs"]
        ]
    assert len(set(txids.values())) == len(document["transactions"]) + 1


@every_policy
@every_stage
def test_every_script_follows_from_its_descriptor(policy: str, stage: str) -> None:
    document = read(policy, stage)
    outputs = [output for row in document["transactions"] for output in row["outputs"]]
    for output in [document["funding"], *outputs]:
        assert script_of_descriptor(output["descriptor"]).hex() == output["script_pubkey"]


@every_policy
def test_whoever_signs_is_whose_keys_the_spent_output_has(policy: str) -> None:
    document = read(policy)
    keys = {entry["index"]: entry["factory_pubkey"] for entry in document["participants"]}
    assert [entry["role"] for entry in document["participants"]] == ["lsp"] + ["client"] * 3
    assert list(keys) == list(range(N_CLIENTS + 1))
    for row in document["transactions"]:
        inside = spent_by(document, row)["descriptor"].partition("musig(")[2].partition(")")[0]
        assert set(inside.split(",")) == {keys[index] for index in row["signers"]}


@every_policy
@every_stage
def test_amounts_add_up_and_each_input_is_its_parents_output(policy: str, stage: str) -> None:
    document = read(policy, stage)
    for row in document["transactions"]:
        assert row["input_amount_sat"] == spent_by(document, row)["amount_sat"]
        out_sat = sum(output["amount_sat"] for output in row["outputs"])
        assert out_sat + row["fee_sat"] == row["input_amount_sat"]


@every_policy
def test_the_fee_is_the_feerate_of_the_signed_size_or_nothing(policy: str) -> None:
    document = read(policy)
    feerate_sat_per_kw = document["terms"]["tree_feerate_sat_per_kw"]
    is_paid = document["terms"]["fee_policy"] == "endogenous"
    assert is_paid == (policy != "ephemeral")
    assert feerate_sat_per_kw == (FEERATE_SAT_PER_KW if is_paid else 0)
    for row in document["transactions"]:
        vsize = wallycore.tx_get_vsize(parsed(row["tx_hex"]))
        assert row["vsize"] == vsize
        fee_sat, remainder = divmod(4 * vsize * feerate_sat_per_kw, 1000)
        assert row["fee_sat"] == fee_sat + (remainder > 0)
        anchors_sat = [o["amount_sat"] for o in row["outputs"] if o["kind"] == "anchor"]
        assert anchors_sat == [240 if is_paid else 0]


@every_policy
def test_everything_exported_after_signing_is_valid_for_the_kernel(policy: str) -> None:
    document = read(policy)
    for row in document["transactions"]:
        spent = spent_by(document, row)
        script_pubkey = bytes.fromhex(spent["script_pubkey"])
        prevout = TxOut(amount_sat=spent["amount_sat"], script_pubkey=script_pubkey)
        check_scripts(Tx.parse(bytes.fromhex(row["tx_hex"])), [prevout])
        more = TxOut(amount_sat=spent["amount_sat"] + 1, script_pubkey=script_pubkey)
        with pytest.raises(ScriptRefused):
            check_scripts(Tx.parse(bytes.fromhex(row["tx_hex"])), [more])


@every_policy
@every_stage
def test_what_is_signed_so_far_is_exported_signed_and_nothing_else(policy: str, stage: str) -> None:
    signed = {
        row["name"]
        for row in read(policy, stage)["transactions"]
        if wallycore.tx_get_input_witness_num_items(parsed(row["tx_hex"]), 0)
    }
    rows = read(policy, stage)["transactions"]
    names = {row["name"] for row in rows}
    below = {row["name"] for row in rows if row["parent"] is not None}
    expected = {"proposed": set(), "signing the root": below, "signed": names}
    assert signed == expected[stage]


@every_policy
def test_signing_changes_no_id_no_size_and_no_amount(policy: str) -> None:
    before, after = read(policy, "proposed"), read(policy, "signed")
    for document in (before, after):
        del document["funding"]["tx_hex"]
        for row in document["transactions"]:
            del row["tx_hex"]
    assert before == after


@every_policy
@every_stage
def test_the_funding_is_its_bytes_signed_as_soon_as_the_lsp_signed_it(
    policy: str, stage: str
) -> None:
    funding = read(policy, stage)["funding"]
    tx = parsed(funding["tx_hex"])
    assert funding["txid"] == txid_of(tx)
    expected = (funding["amount_sat"], funding["script_pubkey"])
    assert outputs_of(tx)[funding["vout"]] == expected
    witnesses = [
        wallycore.tx_get_input_witness_num_items(tx, place)
        for place in range(wallycore.tx_get_num_inputs(tx))
    ]
    assert {bool(n_items) for n_items in witnesses} == {stage == "signed"}


@every_policy
def test_the_tree_has_the_shape_of_its_terms(policy: str) -> None:
    document = read(policy)
    spots = list(spot_of(attempts(policy)["signed"].terms).depth_first())
    rows = document["transactions"]
    kinds_of = {False: ("kickoff", "state"), True: ("static",)}
    named = [(kind, spot) for spot in spots for kind in kinds_of[spot.is_static]]
    assert [row["name"] for row in rows] == [f"{kind}_{spot.name}" for kind, spot in named]
    assert any(spot.is_static for spot in spots) == (policy == "static")
    assert document["terms"]["inner_kinds"] == ["static" if policy == "static" else "dw"]
    delay_max_blocks = document["terms"]["step_blocks"] * (
        document["terms"]["states_per_layer"] - 1
    )
    for row, (kind, spot) in zip(rows, named, strict=True):
        is_state = kind == "state"
        assert row["kind"] == kind
        assert row["layer"] == len(spot.path)
        assert row["signers"] == [0, *spot.clients]
        assert row["state_index"] == (0 if is_state else None)
        assert row["nsequence"] == (delay_max_blocks if is_state else 0xFFFFFFFF)


@every_policy
def test_each_client_has_one_channel_of_the_agreed_capacity(policy: str) -> None:
    document = read(policy)
    outputs = [output for row in document["transactions"] for output in row["outputs"]]
    channels = {o["client"]: o["amount_sat"] for o in outputs if o["kind"] == "channel"}
    assert channels == dict(enumerate(document["terms"]["capacity_sat"], start=1))
    assert list(channels.values()) == [WANTED_SAT] * N_CLIENTS
    assert all(o["client"] is None for o in outputs if o["kind"] != "channel")
    assert [o["amount_sat"] for o in outputs if o["kind"] == "lstock"] == [
        amount_sat for amount_sat in document["terms"]["lstock_sat"] if amount_sat
    ]


@every_policy
def test_the_ledger_is_every_satoshi_that_left_the_lsps_wallet(policy: str) -> None:
    document = read(policy)
    ledger = {entry["item"]: entry["amount_sat"] for entry in document["ledger"]}
    assert {entry["payer"] for entry in document["ledger"]} == {"lsp"}
    tx = parsed(document["funding"]["tx_hex"])
    change_sat = sum(
        amount_sat
        for vout, (amount_sat, _) in enumerate(outputs_of(tx))
        if vout != document["funding"]["vout"]
    )
    assert sum(ledger.values()) + change_sat == COIN_SAT * wallycore.tx_get_num_inputs(tx)
    vsize = wallycore.tx_get_vsize(tx)
    feerate = POLICIES[policy].funding_feerate_sat_per_kw
    assert ledger["funding_fee"] == -(-4 * vsize * feerate // 1000)
    rows = document["transactions"]
    assert ledger["tree_fees"] == sum(row["fee_sat"] for row in rows)
    assert ledger["channel_capacities"] == N_CLIENTS * WANTED_SAT
    (never,) = (entry for entry in document["ledger"] if entry["recovered"] == "never")
    assert never["item"] == "funding_fee", "all else comes back when a factory ends well"


@every_policy
def test_the_terms_stand_under_their_own_names_as_people_read_them(policy: str) -> None:
    document, attempt = read(policy), attempts(policy)["signed"]
    exported = document["terms"]
    assert document["network"] == "regtest"
    assert exported["network"] == REGTEST_GENESIS
    assert exported["fee_policy"] == ("ephemeral" if policy == "ephemeral" else "endogenous")
    assert exported["inner_kinds"] == ["static" if policy == "static" else "dw"]
    assert exported["attempt_id"] == document["factory_id"] == attempt.attempt_id.hex()
    assert exported["capacity_sat"] == [WANTED_SAT] * N_CLIENTS
    converted = {"network", "fee_policy", "attempt_id", "inner_kinds"}
    for name in set(type(attempt.terms).__dataclass_fields__) - converted:
        value = getattr(attempt.terms, name)
        assert exported[name] == (list(value) if isinstance(value, tuple) else value), name
    assert set(exported) == set(type(attempt.terms).__dataclass_fields__)


def test_a_client_exports_its_branch_as_the_lsp_does_but_for_its_neighbours_keys() -> None:
    """It knows the scripts that lead to others, and above its leaf what the keys add up to."""
    pump = Pump(N_CLIENTS)
    pump.join()
    pump.build()
    pump.run()
    attempt = pump.attempt
    by_name = {row["name"]: row for row in export_nodes(list(attempt.tree.nodes), {})}
    for client in range(1, N_CLIENTS + 1):
        rows = export_nodes(list(pump.held(pump.client_at(client)).branch.nodes), {})
        unknown = [o for row in rows for o in row["outputs"] if o["descriptor"] is None]
        neighbours = [o["client"] for o in unknown if o["kind"] == "channel"]
        assert neighbours == [index for index in rows[-1]["signers"] if index not in {0, client}]
        assert {o["kind"] for o in unknown} <= {"channel", "child"}
        for row in rows:
            for own, whole in zip(row["outputs"], by_name[row["name"]]["outputs"], strict=True):
                is_whole = own["descriptor"] is not None and "musig" in own["descriptor"]
                if not is_whole and own["kind"] != "anchor":
                    own["descriptor"] = whole["descriptor"]
            assert row == by_name[row["name"]]


def descriptors_of(branch: Branch, client: int) -> dict[str, set[str]]:
    """Return, for each kind of output of a client's branch, which form its descriptors have."""
    rows = export_nodes(list(branch.nodes), {})
    below = {(row["parent"], row["parent_vout"]): row["name"] for row in rows}
    leaf = branch.vertices[-1]
    found: dict[str, set[str]] = {"funding": {form_of(branch.funding_output.descriptor)}}
    for row in rows:
        for vout, output in enumerate(row["outputs"]):
            kind: str = output["kind"]
            if kind == "channel" and output["client"] != client:
                kind = "neighbour"
            elif kind == "child":
                name = below.get((row["name"], vout))
                in_leaf = name in {leaf.first.name, leaf.last.name}
                kind = "sibling" if name is None else "leaf" if in_leaf else "inner"
            found.setdefault(kind, set()).add(form_of(output["descriptor"]))
    return found


def form_of(descriptor: str | None) -> str:
    if descriptor is None:
        return "none"
    return re.sub(r"[0-9a-f]{64}", "KEY", re.split(r"[(,)]", descriptor)[1])


def test_a_client_has_the_descriptors_that_the_documentation_says() -> None:
    """Of its own leaf all keys, above it what they add up to, of others nothing but the script."""
    pump = Pump(N_CLIENTS)
    pump.join()
    pump.build()
    pump.run()
    found: dict[str, set[str]] = {}
    for client in range(1, N_CLIENTS + 1):
        branch = pump.held(pump.client_at(client)).branch
        for kind, forms in descriptors_of(branch, client).items():
            found.setdefault(kind, set()).update(forms)
    assert found == {
        "funding": {"KEY"},
        "inner": {"KEY"},
        "sibling": {"none"},
        "neighbour": {"none"},
        "leaf": {"musig"},
        "channel": {"musig"},
        "lstock": {"musig"},
        "anchor": {"51024e73"},
    }
