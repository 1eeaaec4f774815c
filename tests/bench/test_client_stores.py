"""What a client stores grows with its branch, and not with the factory; and it is enough to leave.

One client is the production role; the others are keys and nonces.
"""

import zlib
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pytest
from bench.client_stores import LoneClient, Stored, stored_by
from bench.sizes import BINARY_SHAPE, DEFAULT_SHAPE, Size

from cromford.adapters.memory import MemoryJournal
from cromford.crypto.keys import xonly_of
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver
from cromford.factory.branch import known_branch, known_vertices
from cromford.factory.kinds import VertexKind
from cromford.protocol.client import new_client
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.journal.kept import offer_in
from cromford.protocol.journal.snapshot import CHECKSUM_SIZE

SIZES: Final = (16, 64, 255, 1024)
LARGEST: Final = SIZES[-1]
MOST: Final = 16_000  # bytes of records, and of a checkpoint, together
GROWTH: Final = 1_200  # bytes of both, for four times the clients: O(log N)


@cache
def lone(n_clients: int) -> LoneClient:
    found = LoneClient(Size(n_clients, DEFAULT_SHAPE))
    found.sign_all()
    return found


def all_of(stored: Stored) -> int:
    return stored.journal + stored.snapshot


@pytest.mark.parametrize("n_clients", SIZES)
def test_a_client_stores_a_few_kilobytes_whatever_the_size_of_its_factory(n_clients: int) -> None:
    assert all_of(stored_by(lone(n_clients))) <= MOST


def test_what_a_client_stores_grows_with_its_branch_alone() -> None:
    """Four times the clients: a branch is at most two transactions longer, or wider by some."""
    for few, many in pairwise(SIZES):
        assert many < 5 * few
        smaller, larger = stored_by(lone(few)), stored_by(lone(many))
        assert larger.n_txs - smaller.n_txs <= 2
        assert all_of(larger) - all_of(smaller) <= GROWTH, f"{few} to {many} clients"


@pytest.mark.parametrize("n_clients", SIZES)
def test_no_key_of_a_client_of_another_leaf_is_stored(n_clients: int) -> None:
    """Nor does any capacity list: of the keys only what they add up to is there."""
    found = lone(n_clients)
    snapshot = zlib.decompress(found.checkpoint().snapshot[CHECKSUM_SIZE:])
    near = set(found.attempt.leaf_pubkeys.values())
    far = set(found.factory_pubkeys) - near
    assert len(far) >= n_clients - 2
    for stored in (*found.records, snapshot):
        assert not [pubkey for pubkey in far if xonly_of(pubkey) in stored]
        assert found.terms.encode() not in stored
    assert all(pubkey in snapshot for pubkey in near)


@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_what_is_stored_is_enough_to_leave_alone(
    from_checkpoint: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """From the records, or from a checkpoint without them: the same branch, and every signature."""
    found = lone(LARGEST)
    store = MemoryJournal()
    store.append(found.store.entries)
    if from_checkpoint:
        store.replace_checkpoint(found.checkpoint())
    state = new_client(found.participant.driver.state.config)
    restored: Driver[Any] = Driver(CLIENT_ROLE, state, store, lambda _effect: ())
    (attempt,) = restored.state.attempts.values()
    assert isinstance(attempt, ClientAttempt)
    check_leaves(found, attempt)


def check_leaves(found: LoneClient, attempt: ClientAttempt) -> None:
    """Check that an attempt has the branch that was computed with everybody's keys, all signed."""
    assert [node.tx for node in attempt.branch.nodes] == [node.tx for node in found.branch.nodes]
    signed = attempt.signed_branch.txs
    for node, tx in zip(found.branch.nodes, signed, strict=True):
        (signature,) = tx.inputs[0].witness
        assert node.signed(signature) == tx
    assert attempt.setting.channel_id == found.attempt.setting.channel_id


@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        (Size(2, DEFAULT_SHAPE), (VertexKind.DW,)),
        (Size(8, BINARY_SHAPE), (VertexKind.DW,) * 3),
        (Size(64, DEFAULT_SHAPE), (VertexKind.STATIC, VertexKind.STATIC, VertexKind.DW)),
    ],
    ids=str,
)
def test_what_a_client_goes_on_with_is_what_a_restart_makes_of_what_it_kept(
    size: Size, kinds: tuple[VertexKind, ...]
) -> None:
    """One leaf, kickoffs and states above it, static levels: the same values, and no signers."""
    found = LoneClient(size)
    found.sign_all()
    live = found.attempt.candidate
    again = ClientCandidate(join=live.join, proposal=live.proposal)
    assert "branch" in vars(live)
    assert "branch" not in vars(again)
    assert live.branch == again.branch
    assert live.setting == again.setting
    assert live.branch.kinds == kinds
    for ours, theirs in zip(live.branch.nodes, again.branch.nodes, strict=True):
        assert (ours.name, ours.task, ours.spends) == (theirs.name, theirs.task, theirs.spends)
        assert ours.spends.descriptor == theirs.spends.descriptor
        paid = [[output.signers_output for output in node.outputs] for node in (ours, theirs)]
        assert paid[0] == paid[1]
        scripts = [output.script_pubkey for output in paid[0] if output is not None]
        assert scripts == [output.script_pubkey for output in paid[1] if output is not None]
        assert ours.spends.script_pubkey == theirs.spends.script_pubkey


def test_a_branch_that_was_kept_is_the_branch_that_was_computed() -> None:
    """To the byte; above the leaf without its signers, who are in no transaction."""
    found = lone(LARGEST)
    candidate = found.attempt.candidate
    again = known_branch(
        found.terms.of_branch,
        client=found.client,
        vertices=known_vertices(found.branch),
        leaf_pubkeys=candidate.leaf_pubkeys,
        channel_keys=found.channel_keys,
        funding_outpoint=found.branch.funding_outpoint,
    )
    kept = offer_in(candidate.kept.channel)
    assert kept.funding_pubkey == found.channel_keys.lsp_funding_pubkey
    assert again.funding_output.script_pubkey == found.branch.funding_output.script_pubkey
    assert again.funding_amount_sat == found.branch.funding_amount_sat
    for ours, theirs in zip(again.nodes, found.branch.nodes, strict=True):
        assert (ours.name, ours.tx, ours.fee_sat) == (theirs.name, theirs.tx, theirs.fee_sat)
        assert ours.task.sighash == theirs.task.sighash
        assert ours.signers == theirs.signers
    assert not again.root_node.task.has_signers
    assert again.vertices[-1].last.task == found.branch.vertices[-1].last.task
