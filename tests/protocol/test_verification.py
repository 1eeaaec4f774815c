"""What a client checks before it signs: one thing changed, one refusal that names it.

Each case takes the proposal that an honest LSP sent to this client, changes exactly one thing,
and says under which name the client must refuse it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

import pytest
from tests.protocol.forge import (
    NOT_A_POINT,
    VICTIM,
    Change,
    Victim,
    candidate_of,
    rebuilt,
    scene,
    stranger,
    with_input,
    with_one_more_input,
    with_one_more_output,
    with_output,
    with_outputs_swapped,
    with_signer,
    with_tx,
    with_vertex,
    without_last_output,
)
from tests.protocol.refusal import (
    Case,
    check,
    check_refused,
    on_tx,
    parametrized,
    with_unknown_parent,
)

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.channel.terms import Party
from cromford.factory.kinds import VertexKind
from cromford.protocol.journal.kept import KeptJoin
from cromford.protocol.journal.proposal import ClaimedCandidate
from cromford.signing.task import SigningTask
from cromford.wire import messages as m

TREE_TXS: Final = ("kickoff_root", "state_root", "kickoff_0", "state_0")
OTHER_SCRIPT: Final = b"\x51\x20" + b"\x07" * 32


def tree_tx(name: str) -> Tx:
    return next(node for node in scene().attempt.tree.nodes if node.name == name).tx


def task_of(victim: Victim, holder: Party) -> SigningTask:
    return victim.attempt.candidate.setting.first_commitment(holder).signing_task


def test_the_unchanged_proposal_is_signed_below_the_root_and_nowhere_else() -> None:
    victim = Victim()
    victim.hear(scene().propose)
    (asked,) = victim.signing
    commitments = [task_of(victim, holder).name for holder in Party]
    asked_for = [request.task.name for request in asked.requests]
    assert asked_for == [*TREE_TXS[1:], *commitments]
    assert [request.task.name for request in asked.bound] == [TREE_TXS[0]], "bound, and not signed"
    assert victim.attempt.aborted is None


def test_a_client_signs_what_it_computed_from_its_own_keys() -> None:
    victim = Victim()
    victim.hear(scene().propose)
    (asked,) = victim.signing
    join, attempt = victim.attempt.join, scene().attempt
    tree = {node.name: node.task for node in attempt.tree.nodes}
    *below, theirs, own = asked.requests
    for request in below:
        assert join.factory_pool.pubkey in request.task.signers
        assert request.task.sighash == tree[request.task.name].sighash
    for holder, request in ((Party.OPENER, theirs), (Party.ACCEPTER, own)):
        assert join.candidates[0].pool.pubkey in request.task.signers
        assert request.pool_id == join.candidates[0].pool.pool_id
        session = attempt.candidate.commitment_sessions[VICTIM, holder]
        assert request.task.sighash == session.task.sighash


# Whose keys


def _own_key_elsewhere(propose: m.Propose) -> m.Propose:
    keys = propose.factory_pubkeys
    return replace(propose, factory_pubkeys=(keys[0], keys[VICTIM], keys[1], *keys[3:]))


def _signers(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Change:
    def changed(propose: m.Propose) -> m.Propose:
        return replace(propose, factory_pubkeys=change(propose.factory_pubkeys))

    return changed


KEYS = [
    Case(
        claim="its own key replaced",
        change=lambda p: with_signer(p, VICTIM, stranger()),
        field="factory_pubkeys[own]",
        expected=scene().attempt.blueprint.factory_pubkeys[VICTIM],
        received=stranger(),
    ),
    Case(
        claim="its own key in the place of another client",
        change=_own_key_elsewhere,
        field="factory_pubkeys[own]",
    ),
    Case(
        claim="a foreign key in the place of its neighbour",
        change=lambda p: with_signer(p, 1, stranger()),
        field="funding_output.script_pubkey",
    ),
    Case(
        claim="a foreign key in the place of a client of another leaf",
        change=lambda p: with_signer(p, 3, stranger()),
        field="funding_output.script_pubkey",
    ),
    Case(
        claim="a foreign key in the place of the LSP",
        change=lambda p: with_signer(p, 0, stranger()),
        field="funding_output.script_pubkey",
    ),
    Case(
        claim="an extra signer",
        change=_signers(lambda keys: (*keys, stranger())),
        field="factory_pubkeys",
        expected=4,
        received=5,
    ),
    Case(
        claim="a signer missing",
        change=_signers(lambda keys: keys[:-1]),
        field="factory_pubkeys",
        expected=4,
        received=3,
    ),
    Case(
        claim="no signer",
        change=_signers(lambda _: ()),
        field="factory_pubkeys",
        expected=4,
        received=0,
    ),
    Case(
        claim="its neighbour and a client of another leaf in each other's place",
        change=_signers(lambda keys: (keys[0], keys[3], keys[2], keys[1])),
        field="state_root.output[0].script_pubkey",
    ),
    Case(
        claim="two participants with one key",
        change=lambda p: with_signer(p, 3, p.factory_pubkeys[VICTIM]),
        field="factory_pubkeys",
        expected="different keys",
    ),
    Case(
        claim="two other participants with one key",
        change=lambda p: with_signer(p, 3, p.factory_pubkeys[1]),
        field="factory_pubkeys",
        expected="different keys",
    ),
    Case(
        claim="a client key that is not a point",
        change=lambda p: with_signer(p, 3, NOT_A_POINT),
        field="factory_pubkeys[3]",
        expected="a pubkey",
        received=NOT_A_POINT,
    ),
    Case(
        claim="an LSP key that is not a point",
        change=lambda p: with_signer(p, 0, NOT_A_POINT),
        field="factory_pubkeys[0]",
        expected="a pubkey",
        received=NOT_A_POINT,
    ),
]


@parametrized(KEYS)
def test_a_client_refuses_a_wrong_set_of_keys(case: Case) -> None:
    check(case)


# Every transaction of the tree


def _version(tx: Tx) -> Tx:
    return replace(tx, version=2)


def _nlocktime(tx: Tx) -> Tx:
    return replace(tx, nlocktime=100)


def _nsequence(tx: Tx) -> Tx:
    return with_input(tx, nsequence=1)


def _outpoint(tx: Tx) -> Tx:
    other = OutPoint(txid=tx.inputs[0].outpoint.txid, vout=tx.inputs[0].outpoint.vout + 1)
    return with_input(tx, outpoint=other)


def _anchor_elsewhere(tx: Tx) -> Tx:
    return replace(tx, outputs=(tx.outputs[-1], *tx.outputs[:-1]))


def _fields_of(name: str) -> Iterator[Case]:
    """Yield the cases of one tree transaction's own fields."""
    tx = tree_tx(name)
    n_outputs = len(tx.outputs)
    # A neighbour's channel is read off the leaf's state before anything else is compared.
    first = f"{name}.output[0]" if name == "state_0" else f"{name}.output[0].script_pubkey"
    for what, change, field, expected, received in (
        ("version 2", _version, "version", 3, 2),
        ("an nLockTime", _nlocktime, "nlocktime", 0, 100),
        ("another nSequence", _nsequence, "nsequence", tx.inputs[0].nsequence, 1),
        ("another output of its parent", _outpoint, "outpoint", tx.inputs[0].outpoint, None),
        ("another parent", with_unknown_parent, "outpoint", tx.inputs[0].outpoint, None),
        ("a second input", with_one_more_input, "inputs", 1, 2),
        ("an extra output", with_one_more_output, "outputs", n_outputs, n_outputs + 1),
        ("its anchor missing", without_last_output, "outputs", n_outputs, n_outputs - 1),
    ):
        yield Case(
            claim=f"{name} with {what}",
            change=on_tx(name, change),
            field=f"{name}.{field}",
            expected=expected,
            received=received,
        )
    yield Case(
        claim=f"{name} with its anchor first", change=on_tx(name, _anchor_elsewhere), field=first
    )
    yield Case(
        claim=f"{name} with a witness",
        change=on_tx(name, lambda tx: with_input(tx, witness=(bytes(64),))),
        field=name,
    )
    yield Case(
        claim=f"{name} with a scriptSig",
        change=on_tx(name, lambda tx: with_input(tx, script_sig=b"\x51")),
        field=name,
    )
    yield Case(
        claim=f"{name} as no transaction",
        change=partial(_as_garbage, name=name),
        field=name,
        expected="a transaction",
    )


def _as_garbage(propose: m.Propose, name: str) -> m.Propose:
    kind, _, place = name.partition("_")
    return with_vertex(propose, 0 if place == "root" else 1, **{f"{kind}_tx": b"\x00" * 9})


# What leads to others: the other leaf, and the neighbour's channel. See below.
GIVEN: Final = {("state_root", 1), ("state_0", 0)}


def _outputs_of(name: str) -> Iterator[Case]:
    """Yield, for each output, another script, and one satoshi more or less."""
    for vout, output in enumerate(tree_tx(name).outputs):
        field = f"{name}.output[{vout}]"
        if (name, vout) not in GIVEN:
            yield Case(
                claim=f"{field} with another script",
                change=on_tx(name, partial(with_output, vout=vout, script_pubkey=OTHER_SCRIPT)),
                field=f"{field}.script_pubkey",
                expected=output.script_pubkey,
                received=OTHER_SCRIPT,
            )
        for delta in (-1, 1):
            amount_sat = output.amount_sat + delta
            yield Case(
                claim=f"{field} with {delta:+} sat",
                change=on_tx(name, partial(with_output, vout=vout, amount_sat=amount_sat)),
                field=f"{field}.amount_sat",
                expected=output.amount_sat,
                received=amount_sat,
            )


@parametrized([case for name in TREE_TXS for case in _fields_of(name)])
def test_a_client_refuses_a_tree_transaction_of_another_form(case: Case) -> None:
    check(case)


@parametrized([case for name in TREE_TXS for case in _outputs_of(name)])
def test_a_client_refuses_a_tree_transaction_with_another_output(case: Case) -> None:
    check(case)


def test_a_static_vertex_is_signed_without_a_kickoff_and_refused_with_one() -> None:
    honest = rebuilt(inner_kinds=(VertexKind.STATIC,))
    victim = Victim()
    victim.hear(honest)
    assert victim.attempt.aborted is None
    assert len(victim.signing) == 1
    kickoff_tx = candidate_of(honest).vertices[1].kickoff_tx
    check_refused(
        with_vertex(honest, 0, kickoff_tx=kickoff_tx),
        "kickoff_root",
        expected=b"",
    )


@pytest.mark.parametrize("name", ["state_root", "state_0"])
def test_a_client_refuses_outputs_in_another_order(name: str) -> None:
    propose = with_tx(scene().propose, name, with_outputs_swapped)
    check_refused(
        propose,
        f"{name}.output[0].script_pubkey"
        if name == "state_root"
        else "state_0.output[1].script_pubkey",
    )


def test_a_client_refuses_a_fee_that_is_not_feerate_times_vsize() -> None:
    """The L-stock takes one satoshi of the state's fee; inputs and outputs still agree."""
    lstock = tree_tx("state_0").outputs[2]
    propose = with_tx(
        scene().propose,
        "state_0",
        partial(with_output, vout=2, amount_sat=lstock.amount_sat + 1),
    )
    check_refused(propose, "state_0.output[2].amount_sat", expected=lstock.amount_sat)


def test_every_tree_transaction_has_its_anchor_last() -> None:
    for name in TREE_TXS:
        assert tree_tx(name).outputs[-1] == TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT)


@pytest.mark.parametrize(
    "script", [b"", b"\x6a", b"\x00\x14" + bytes(20), b"\x51\x21" + bytes(33), b"\x51" * 34]
)
def test_a_neighbours_channel_that_is_not_taproot_is_refused(script: bytes) -> None:
    """An unspendable or non-standard output there could keep the whole leaf out of a mempool."""
    propose = with_tx(
        scene().propose, "state_0", partial(with_output, vout=0, script_pubkey=script)
    )
    check_refused(
        propose,
        "state_0.output[0]",
        expected="a taproot output",
        received=script.hex() or "none",
    )


@pytest.mark.parametrize("script", [b"", b"\x6a", b"\x00\x14" + bytes(20), b"\x51" * 34])
def test_a_way_to_others_that_is_not_taproot_is_refused(script: bytes) -> None:
    propose = with_tx(
        scene().propose, "state_root", partial(with_output, vout=1, script_pubkey=script)
    )
    check_refused(
        propose,
        "state_root.output[1]",
        expected="a taproot output",
        received=script.hex() or "none",
    )


def test_a_way_to_others_that_is_missing_is_refused() -> None:
    def with_one_output(tx: Tx) -> Tx:
        return replace(tx, outputs=tx.outputs[:1])

    propose = with_tx(scene().propose, "state_root", with_one_output)
    check_refused(propose, "state_root.output[1]", expected="a taproot output", received="none")


def _instead(new: Tx, _old: Tx) -> Tx:
    return new


def with_whole_branch(propose: m.Propose, join: KeptJoin) -> m.Propose:
    """Return a proposal whose transactions follow from those of its root vertex."""
    branch = ClaimedCandidate(join=join, propose=propose).branch
    for vertex in branch.vertices:
        for node in vertex.nodes:
            propose = with_tx(propose, node.name, partial(_instead, node.tx))
    return propose


def test_another_taproot_way_to_others_is_taken_as_given() -> None:
    """It can only harm those below it, who check it in turn; and the client signs what it says."""
    victim = Victim()
    joining = victim.state.joining
    assert joining is not None
    changed = partial(with_output, vout=1, script_pubkey=OTHER_SCRIPT)
    propose = with_whole_branch(with_tx(scene().propose, "state_root", changed), joining.join)
    victim.hear(propose)
    (asked,) = victim.signing
    branch = victim.attempt.branch
    assert branch.vertices[0].last.outputs[1].script_pubkey == OTHER_SCRIPT
    signed = {request.task.name: request.task.sighash for request in asked.requests}
    for node in branch.nodes_below_root:
        assert signed[node.name] == node.task.sighash
    assert branch.vertices[0].last.tx.outputs[0] == tree_tx("state_root").outputs[0]
    honest = {
        one.task.name: one.task.sighash for one in scene().attempt.candidate.sessions.values()
    }
    for name in ("state_root", "kickoff_0", "state_0"):
        assert signed[name] != honest[name], "nobody else signs this: it never gets complete"


def test_a_leaf_without_the_neighbours_output_is_refused() -> None:
    def emptied(tx: Tx) -> Tx:
        return replace(tx, outputs=())

    check_refused(with_tx(scene().propose, "state_0", emptied), "state_0.output[0]")


def test_a_neighbours_other_taproot_script_is_taken_as_given() -> None:
    """It can only harm its owner, who checks it in turn; and the client signs what it says."""
    victim = Victim()
    changed = partial(with_output, vout=0, script_pubkey=OTHER_SCRIPT)
    victim.hear(with_tx(scene().propose, "state_0", changed))
    (asked,) = victim.signing
    assert victim.attempt.branch.vertices[-1].last.outputs[0].script_pubkey == OTHER_SCRIPT
    leaf = victim.attempt.branch.vertices[-1].last
    assert asked.requests[-3].task == leaf.task
    for holder in Party:
        assert (
            victim.attempt.candidate.setting.first_commitment(holder).tx.inputs[0].outpoint.txid
            == leaf.tx.txid
        )
        assert asked.requests[holder - 2].task == task_of(victim, holder)


def test_a_refusal_shows_both_values_however_long_they_are() -> None:
    """A reason has 400 bytes: a long value is shown by its beginning and its hash."""
    changed = on_tx("state_0", lambda tx: with_input(tx, script_sig=b"\x51"))(scene().propose)
    victim = Victim()
    victim.hear(changed)
    reason = victim.attempt.aborted
    assert reason is not None
    assert re.fullmatch(
        r"refused: state_0: expected (\w{90}… \(\d+ characters, SHA-256 \w{16}\)), "
        r"received (?!\1)\w{90}… \(\d+ characters, SHA-256 \w{16}\)",
        reason,
    ), reason
