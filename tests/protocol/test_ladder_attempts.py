"""Of a factory with a fee ladder: which candidate counts, by the chain and by what was ready."""

from dataclasses import replace
from functools import cache

import pytest
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.ladders import funded
from tests.protocol.pump import Pump

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx
from cromford.protocol.journal.client_attempt import Checked, ClientAttempt, Received
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import Aborted, Funded, LspAttempt
from cromford.protocol.policy import LspPolicy

RUNGS = (0, 1, 2)


@cache
def both() -> tuple[ClientAttempt, LspAttempt]:
    """Return a client's side of a factory with three candidates, all signed, and the LSP's."""
    pump = funded(Pump(2, policy=LspPolicy(min_clients=1)))
    return pump.held(pump.client_at(1)), pump.attempt


def chain_of(*txs: Tx, depth: int = 1) -> KnownChain:
    """Return a chain that has transactions in one block, so deep."""
    chain = KnownChain().with_block(BlockRef(height=10, block_hash=txid_of(10)), txs)
    for height in range(11, 10 + depth):
        chain = chain.with_block(BlockRef(height=height, block_hash=txid_of(height)), ())
    return chain


def fundings() -> list[Tx]:
    return [one.funding_tx for one in both()[0].candidates]


def test_both_sides_have_the_same_candidates_in_the_same_order_whichever_is_present() -> None:
    client, lsp = both()
    assert len({tx.txid for tx in fundings()}) == len(RUNGS)
    for rung in RUNGS:
        one, other = client.on_rung(rung), lsp.on_rung(rung)
        assert (one.rung, other.rung) == (rung, rung)
        assert [c.rung for c in one.candidates] == [*RUNGS]
        assert [s.blueprint.rung for s in other.ladder] == [*RUNGS]
        assert [tx.txid for tx in fundings()] == [
            rung.blueprint.funding_tx.txid for rung in other.ladder
        ]
        assert one.funding_tx == fundings()[rung] == other.funding_tx
        assert (len(one.other_stages), len(other.others)) == (2, 2)
        assert one.on_rung(0) == client
        assert other.on_rung(0) == lsp
        assert one.watched_txids == client.watched_txids >= {tx.txid for tx in fundings()}
    assert client.on_rung(0) is client
    assert lsp.on_rung(0) is lsp


def test_each_candidate_gets_its_own_stage() -> None:
    client, lsp = both()
    for rung in RUNGS:
        one = client.on_rung(rung).with_stages(
            [Checked(candidate=candidate) for candidate in client.candidates]
        )
        assert one.stage == Checked(candidate=client.candidates[rung])
        assert [c.rung for c in one.candidates] == [*RUNGS]
        assert (one.rung, len(one.other_stages)) == (rung, 2)
        other = lsp.on_rung(rung).with_stages([Aborted(reason=str(n)) for n in RUNGS])
        assert other.stage == Aborted(reason=str(rung))
        assert [found.stage for found in other.ladder] == [Aborted(reason=str(n)) for n in RUNGS]
        assert len(other.others) == 2
    alone = replace(client, other_stages=())
    assert alone.candidates == (client.candidate,)
    assert alone.with_stages([Received()]).stage == Received()


def test_the_candidate_that_is_in_a_block_is_the_present_one_until_one_is_ready() -> None:
    client, lsp = both()
    for rung, tx in enumerate(fundings()):
        chain = chain_of(tx)
        assert client.rung_in(chain) == lsp.rung_in(chain) == rung
        assert client.on_chain(chain).rung == lsp.on_chain(chain).rung == rung
        back = KnownChain()
        assert client.on_chain(chain).on_chain(back).rung == 0, "the LSP knows which one waits"
        assert replace(lsp, published=1).on_chain(chain).on_chain(back).rung == 1
        ready = replace(client, ready_sent=True)
        assert ready.on_chain(chain) is ready
        pinned = with_ready(lsp)
        assert pinned.on_chain(chain) is pinned
        assert (lsp.is_pinned, pinned.is_pinned) == (False, True)
    assert client.rung_in(KnownChain()) is None
    assert lsp.rung_in(KnownChain()) is None
    unchecked = replace(client, stage=Received(), other_stages=(Received(),))
    assert unchecked.on_chain(chain_of(fundings()[1])) is unchecked
    aborted = lsp.with_stages([Aborted(reason="")] * 3)
    assert aborted.on_chain(chain_of(fundings()[1])) is aborted
    assert not aborted.is_pinned
    alone = replace(client, other_stages=())
    assert alone.on_chain(chain_of(fundings()[0])) is alone


def with_ready(lsp: LspAttempt) -> LspAttempt:
    """Return an LSP's side whose channels are in the present candidate."""
    assert isinstance(lsp.stage, Funded)
    return replace(lsp, stage=replace(lsp.stage, ready_sent=True))


def test_another_candidate_takes_its_place_only_once_channels_are_in_this_one() -> None:
    client, lsp = both()
    depth = client.terms.min_depth
    assert depth > 1
    rival = spend_of(fundings()[0].inputs[0].outpoint)
    for n, is_over in ((depth - 1, False), (depth, True), (depth + 1, True)):
        sibling, stranger = chain_of(fundings()[1], depth=n), chain_of(rival, depth=n)
        for one in (client, lsp):
            assert (one.overtaken_depth(sibling), one.is_overtaken(sibling)) == (0, False)
            assert (one.overtaken_depth(stranger), one.is_overtaken(stranger)) == (n, is_over)
        for one in (replace(client, ready_sent=True), with_ready(lsp)):
            assert (one.overtaken_depth(sibling), one.is_overtaken(sibling)) == (n, is_over)
            assert (one.overtaken_depth(stranger), one.is_overtaken(stranger)) == (n, is_over)


def test_what_ended_the_funding_ends_every_candidate_of_it() -> None:
    _, lsp = both()
    assert isinstance(lsp.stage, Funded)
    over = replace(lsp, stage=replace(lsp.stage, replacement=fundings()[2], is_dead=True))
    other = over.on_rung(1).stage
    assert isinstance(other, Funded)
    assert (other.replacement, other.is_dead) == (fundings()[2], True)
    assert other.funding_tx.txid == fundings()[1].txid
    aborted = replace(lsp, stage=Aborted(reason="why"))
    kept = aborted.on_rung(1).stage
    assert isinstance(kept, Funded)
    assert (kept.replacement, kept.is_dead) == (None, False)


def test_a_sibling_is_the_tree_of_another_candidate_as_it_was_opened() -> None:
    _, lsp = both()
    for rung in (1, 2):
        sibling = lsp.sibling(rung)
        assert sibling is lsp.sibling(rung), "its tree is made once"
        assert (sibling.rung, sibling.is_pinned, sibling.leaves) == (rung, True, type(lsp.leaves)())
        assert sibling.funding_tx == fundings()[rung]
        root = next(iter(sibling.tree.nodes))
        assert root.tx.inputs[0].outpoint.txid == fundings()[rung].txid
    aborted = lsp.with_stages([Aborted(reason="")] * 3)
    with pytest.raises(AssertionError, match="is not funded"):
        aborted.sibling(1)


@pytest.mark.parametrize(
    ("changes", "is_ready"),
    [
        ({}, False),
        ({"ready_sent": True}, False),
        ({"ready_received": True}, False),
        ({"ready_sent": True, "ready_received": True}, True),
        ({"ready_sent": True, "ready_received": True, "ready_rung": 1}, False),
    ],
    ids=str,
)
def test_a_channel_is_ready_once_both_sides_found_the_same_candidate_ready(
    changes: dict[str, object],
    is_ready: bool,  # noqa: FBT001 - a table
) -> None:
    client = replace(both()[0], ready_sent=False, ready_received=False)
    changed = replace(client, **changes)  # type: ignore[arg-type]  # by name
    assert changed.is_ready_on_both_sides is is_ready
    assert replace(changed.on_rung(1), ready_rung=1).is_ready_on_both_sides is (
        changed.ready_sent and changed.ready_received
    )


@pytest.mark.parametrize(
    ("changes", "is_open", "may_be_used"),
    [
        ({}, True, True),
        ({"aborted": "why"}, False, True),
        ({"given_up": True}, False, True),
        ({"ready_sent": True}, False, False),
        ({"is_exiting": True}, True, False),
    ],
    ids=str,
)
def test_an_attempt_is_open_until_it_is_ready_or_over_and_may_be_used_until_it_is_left(
    changes: dict[str, object],
    is_open: bool,  # noqa: FBT001 - a table
    may_be_used: bool,  # noqa: FBT001 - a table
) -> None:
    attempt = replace(both()[0], **changes)  # type: ignore[arg-type]  # by name
    assert (attempt.is_open, attempt.may_be_used) == (is_open, may_be_used)


def test_what_a_stage_of_the_ceremony_says_is_told_by_its_kind() -> None:
    _, lsp = both()
    assert not lsp.is_open
    assert (lsp.aborted, lsp.has_holdouts, lsp.holdouts) == (None, False, ())
    assert lsp.signed is not None
    assert {*lsp.signatures} >= {"kickoff_root", "state_root"}
    assert [one.signed is not None for one in lsp.ladder] == [True] * 3
    over = replace(lsp, stage=Aborted(reason="why"))
    assert (over.aborted, over.signed, over.signatures) == ("why", None, {})
    assert not over.is_open
    assert over.ladder[0].signed is None
    with pytest.raises(ValueError, match="is not completely signed"):
        _ = over.signed_txs
