"""Of a factory: which states of its leaves there are, and which one counts by the chain."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from immutables import Map
from tests.factory import oracle
from tests.protocol.advances import advancing_factory, market, sell
from tests.protocol.houses import spend_of, txid_of

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.factory.branch import Branch
from cromford.factory.shape import plan_of
from cromford.protocol.journal.client_attempt import Checked, ClientAttempt, Received, Unchecked
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.leaf_states import (
    AgreedStates,
    SignedPoisons,
    states_after,
    with_poisons,
)
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.wire import messages as m
from cromford.wire.seldom import LeafState
from cromford.wire.selling import AllocatedChannel

N_STATES = 3  # That of the opening, and one for each of two sales.
each_size = pytest.mark.parametrize("n_clients", [2, 3], ids=["the root", "below the root"])


@cache
def sold_twice(n_clients: int) -> tuple[ClientAttempt, LspAttempt]:
    """Return a factory whose first leaf's state was replaced twice: a client's, and the LSP's."""
    pump = advancing_factory(n_clients)
    with market():
        sell(pump, 1)
        sell(pump, 1, amount_sat=10_000)
    return pump.held(pump.client_at(1)), pump.attempt


def chain_of(*txs: Tx) -> KnownChain:
    """Return a chain with these transactions, one a block."""
    chain = KnownChain()
    for height, tx in enumerate(txs, start=10):
        chain = chain.with_block(BlockRef(height=height, block_hash=txid_of(height)), (tx,))
    return chain


def landing(attempt: ClientAttempt, state: Tx) -> KnownChain:
    """Return a chain that has a factory's path down to one state of its first leaf."""
    return chain_of(attempt.funding_tx, *attempt.signed_branch.txs[:-1], state)


def signed_states(attempt: ClientAttempt) -> list[Tx]:
    """Return every state of a client's leaf, signed, the oldest first."""
    known = [
        replace(attempt, leaf_states=attempt.leaf_states[:n]).signed_branch.txs[-1]
        for n in range(N_STATES)
    ]
    assert len({tx.txid for tx in known}) == N_STATES
    return known


def last_txid(branch: Branch) -> bytes:
    return branch.vertices[-1].last.tx.txid


@each_size
def test_the_newest_signed_state_is_what_a_client_leaves_by_and_where_its_channel_is(
    n_clients: int,
) -> None:
    client, _ = sold_twice(n_clients)
    states = signed_states(client)
    assert last_txid(client.branch) == states[-1].txid
    assert client.signed_branch.txs[-1] == states[-1]
    assert [tx.txid for tx in client.signed_branch.txs] == [
        node.tx.txid for node in client.branch.nodes
    ]
    assert client.branch.vertices[:-1] == client.candidate.branch.vertices[:-1]
    assert client.branch.vertices[-1].first == client.candidate.branch.vertices[-1].first
    fundings = client.fundings
    assert [one.outpoint.txid for one in fundings] == [tx.txid for tx in states]
    for one, tx in zip(fundings, states, strict=True):
        paid = tx.outputs[one.outpoint.vout]
        assert (paid.amount_sat, paid.script_pubkey) == (
            one.capacity_sat,
            client.setting.funding.txout.script_pubkey,
        )
    capacities = [one.capacity_sat for one in fundings]
    assert capacities == sorted(set(capacities)), "each sale made it larger"
    assert client.setting.funding == fundings[-1]
    assert {tx.txid for tx in states} <= client.watched_txids
    assert [*client.newer_signatures.values()] == [one.signature for one in client.leaf_states]
    opened = replace(client, leaf_states=())
    assert opened.fundings == fundings[:1]
    assert opened.setting == client.candidate.setting
    assert opened.newer_signatures == {}
    assert opened.branch == client.candidate.branch
    assert states[-1].txid not in opened.watched_txids


@each_size
@pytest.mark.parametrize("index", range(N_STATES))
def test_the_state_that_is_in_a_block_counts_whichever_it_is(n_clients: int, index: int) -> None:
    client, lsp = sold_twice(n_clients)
    state = signed_states(client)[index]
    chain = landing(client, state)
    for _ in range(2):  # It is asked at every block.
        assert client.state_index_on(chain) == index
        assert last_txid(client.branch_on(chain)) == state.txid
        assert client.signed_branch_on(chain).txs == (*client.signed_branch.txs[:-1], state)
        assert client.signed_branch_on(chain).branch == client.branch_on(chain)
        assert last_txid(lsp.branch_on(1, chain)) == state.txid
        assert lsp.signed_branch_on(1, chain).txs[-1] == state
    assert client.state_index_on(KnownChain()) == N_STATES - 1
    assert lsp.tree_on(KnownChain()) == lsp.tree


@each_size
def test_the_newest_signed_state_is_what_an_lsp_leaves_by_and_what_it_replaced_is_known(
    n_clients: int,
) -> None:
    client, lsp = sold_twice(n_clients)
    states = signed_states(client)
    assert last_txid(lsp.branch(1)) == states[-1].txid
    assert [one.outpoint.txid for one in lsp.fundings(1)] == [tx.txid for tx in states]
    assert lsp.setting(1).funding == lsp.fundings(1)[-1] == client.setting.funding
    for seat in lsp.leaf(1).clients:
        script = lsp.blueprint.setting(seat).funding.txout.script_pubkey
        for one, tx in zip(lsp.fundings(seat), states, strict=True):
            paid = tx.outputs[one.outpoint.vout]
            assert (paid.amount_sat, paid.script_pubkey) == (one.capacity_sat, script)
    leaves = lsp.blueprint.leaf_vertices
    assert set(leaves) == {lsp.leaf_name(seat) for seat in range(1, n_clients + 1)}
    assert [one.first.shape.children for one in leaves.values()] == [()] * len(leaves)
    assert lsp.setting(1) is lsp.setting(1)
    assert len(lsp.leaf(1).states) == N_STATES
    assert {tx.txid for tx in states} <= lsp.watched_txids
    names = [state.name for state in lsp.leaf(1).states]
    assert [lsp.signed_txs[name] for name in names] == states
    assert [lsp.signatures[name] for name in names[1:]] == [
        one.signature for one in client.leaf_states
    ]
    assert [state.tx.txid for _, state in lsp.superseded_states()] == [
        tx.txid for tx in states[:-1]
    ]
    without_poisons = {
        name: tuple(replace(one, poisons=None) for one in leaf) for name, leaf in lsp.leaves.items()
    }
    held = replace(lsp, leaves=lsp.leaves.update(without_poisons))
    assert [*held.superseded_states()] == [], "no client holds a poison"
    if n_clients > 2:
        last = n_clients
        assert lsp.leaf_name(last) != lsp.leaf_name(1)
        assert lsp.fundings(last) == (lsp.blueprint.setting(last).funding,)
        assert lsp.setting(last) == lsp.blueprint.setting(last)
        assert len(lsp.leaf(last).states) == 1
    opened = replace(lsp, leaves=type(lsp.leaves)())
    assert opened.tree is opened.blueprint.tree
    assert opened.setting(1).funding == client.fundings[0]


# A store that was put back


def lacking(
    attempt: ClientAttempt, lsp: LspAttempt, n_known: int
) -> tuple[ClientAttempt, LspAttempt]:
    """Return both stores as they know only some of the states that replaced the opening one."""
    fewer = {name: states[:n_known] for name, states in lsp.leaves.items()}
    leaves = lsp.leaves.update(fewer) if n_known else type(lsp.leaves)()
    return replace(attempt, leaf_states=attempt.leaf_states[:n_known]), replace(lsp, leaves=leaves)


@each_size
@pytest.mark.parametrize("n_known", [0, 1])
def test_a_state_that_a_restored_store_lacks_is_left_by_once_it_is_in_a_block(
    n_clients: int, n_known: int
) -> None:
    whole, whole_lsp = sold_twice(n_clients)
    client, lsp = lacking(whole, whole_lsp, n_known)
    newest = signed_states(whole)[-1]
    chain = landing(client, newest)
    for _ in range(2):
        assert last_txid(client.branch_on(chain)) == newest.txid
        assert client.signed_branch_on(chain).txs == whole.signed_branch.txs
        assert last_txid(lsp.branch_on(1, chain)) == newest.txid
        assert lsp.signed_branch_on(1, chain).txs == whole.signed_branch.txs
    known = signed_states(whole)[n_known]
    for before in (KnownChain(), chain_of(client.funding_tx)):
        assert last_txid(client.branch_on(before)) == known.txid
        assert last_txid(lsp.branch_on(1, before)) == known.txid
        assert client.signed_branch_on(before).txs[-1] == known
        assert lsp.signed_branch_on(1, before).txs[-1] == known
    if n_clients > 2:
        other = n_clients
        assert lsp.branch_on(other, chain) == lsp.branch(other), "its leaf is another"


def strangers(attempt: ClientAttempt) -> Iterator[Tx]:
    """Yield what spends a client's kickoff, and is no state of its leaf."""
    spent = attempt.branch.vertices[-1].last.tx.inputs[0].outpoint
    yield spend_of(spent)
    yield Tx(
        version=3,
        inputs=(TxIn(outpoint=spent, nsequence=0),),
        outputs=tuple(TxOut(amount_sat=1_000, script_pubkey=b"\x51") for _ in range(4)),
    )


@each_size
def test_what_spends_a_kickoff_and_is_no_state_of_the_leaf_changes_no_branch(
    n_clients: int,
) -> None:
    """After the expiry the LSP sweeps it: then nothing below is there to be left by."""
    client, lsp = lacking(*sold_twice(n_clients), 1)
    for tx in strangers(client):
        chain = landing(client, tx)
        assert client.branch_on(chain) == client.branch
        assert client.signed_branch_on(chain) == client.signed_branch
        assert lsp.tree_on(chain) == lsp.tree
        assert lsp.signed_branch_on(1, chain).txs == client.signed_branch.txs


@cache
def sold_in_two_leaves() -> tuple[ClientAttempt, ClientAttempt, LspAttempt]:
    """Return a factory whose two leaves were advanced once each: a client's of each, the LSP's."""
    pump = advancing_factory(3)
    with market():
        sell(pump, 1)
        sell(pump, 3, price_msat=100_000)
    return pump.held(pump.client_at(1)), pump.held(pump.client_at(3)), pump.attempt


def test_of_two_leaves_each_is_left_by_its_own_state_whatever_the_store_lacks_of_the_other() -> (
    None
):
    first, second, lsp = sold_in_two_leaves()
    paths = dict.fromkeys((*first.signed_branch.txs[:-1], *second.signed_branch.txs[:-1]))
    chain = chain_of(
        first.funding_tx, *paths, first.signed_branch.txs[-1], second.signed_branch.txs[-1]
    )
    for lacks in ((), (1,), (3,), (1, 3)):
        leaves = lsp.leaves
        for client in lacks:
            leaves = leaves.delete(lsp.leaf_name(client))
        restored = replace(lsp, leaves=leaves)
        for client, whole in ((1, first), (3, second)):
            assert restored.signed_branch_on(client, chain).txs == whole.signed_branch.txs, lacks


def as_told(attempt: ClientAttempt, *, n_states: int = 2, has_poisons: bool = True) -> m.LeafStates:
    """Return what an LSP tells a client of its leaf's states."""
    told = []
    for agreed in attempt.leaf_states[:n_states]:
        poisons = agreed.poisons
        assert poisons is not None
        channels = tuple(
            AllocatedChannel(capacity_sat=capacity_sat)
            for capacity_sat in agreed.allocation.capacities_sat
        )
        told.append(
            LeafState(
                channels=channels,
                lstock_sat=agreed.allocation.lstock_sat,
                signature=agreed.signature,
                stock_poison=poisons.stock if has_poisons else b"",
                channel_poison=poisons.channels[attempt.client] if has_poisons else b"",
            )
        )
    return m.LeafStates(attempt_id=attempt.attempt_id, states=tuple(told))


@pytest.mark.parametrize("n_known", range(N_STATES))
def test_a_client_knows_again_what_its_lsp_tells_and_keeps_what_it_has(n_known: int) -> None:
    client, _ = sold_twice(3)
    known = client.leaf_states[:n_known]

    def after(told: m.LeafStates, states: AgreedStates = known) -> AgreedStates:
        return states_after(states, told, client=client.client, leaf=client.leaf)

    assert after(as_told(client)) == client.leaf_states
    assert after(as_told(client, n_states=0)) == known
    bare = tuple(replace(one, poisons=None) for one in client.leaf_states)
    without = as_told(client, has_poisons=False)
    assert after(without) == (*known, *bare[n_known:])
    assert after(as_told(client), bare[:n_known]) == client.leaf_states, "poisons are added"
    other = replace(client.leaf_states[0], signature=bytes(64))
    assert after(as_told(client), (other,))[0] == other, "what it has is not replaced"
    poisoned = SignedPoisons(stock=bytes(64), channels=Map({client.client: bytes(64)}))
    held = replace(client.leaf_states[0], poisons=poisoned)
    assert after(as_told(client), (held,))[0] == held


def test_poisons_belong_to_the_state_of_their_advance() -> None:
    client, _ = sold_twice(3)
    bare = tuple(replace(one, poisons=None) for one in client.leaf_states)
    poisons = client.leaf_states[1].poisons
    assert poisons is not None
    after = with_poisons(bare, bare[1].advance_id, poisons)
    assert [one.poisons for one in after] == [None, poisons]
    with pytest.raises(AssertionError, match=r"no state of advance \w+ was signed"):
        with_poisons(bare, b"another", poisons)


def test_what_an_lsp_looked_for_in_one_chain_says_nothing_of_another() -> None:
    whole, whole_lsp = sold_twice(3)
    client, lsp = lacking(whole, whole_lsp, 1)
    states = signed_states(whole)
    for _ in range(2):
        for index, chain in enumerate(landing(client, state) for state in states):
            assert last_txid(lsp.branch_on(1, chain)) == states[index].txid
        assert last_txid(lsp.branch_on(1, KnownChain())) == states[1].txid


def test_a_store_may_lack_states_as_long_as_its_leaf_can_have_more() -> None:
    client, _ = sold_twice(3)
    (one, *_) = client.leaf_states
    assert client.terms.states_per_layer == 4
    for n, may_lack in ((0, True), (2, True), (3, False)):
        assert replace(client, leaf_states=(one,) * n).may_lack_states is may_lack


def test_nothing_follows_from_a_proposal_that_was_never_accepted() -> None:
    client = replace(sold_twice(3)[0], stage=Received(), leaf_states=())
    assert not client.is_checked
    assert client.rung == 0
    for name in ("candidate", "terms", "branch", "funding_tx", "watched_txids", "lifetime"):
        with pytest.raises(Unchecked, match="the proposal was never accepted"):
            getattr(client, name)
    assert replace(client, stage=sold_twice(3)[0].stage).is_checked


def test_what_is_not_complete_cannot_be_left_by() -> None:
    client, lsp = sold_twice(3)
    early = replace(client, stage=Checked(candidate=client.candidate))
    with pytest.raises(ValueError, match="is not complete"):
        _ = early.signed_branch
    with pytest.raises(ValueError, match="its ceremony is over"):
        _ = lsp.candidate


def test_what_confirmed_at_a_height_is_named_in_the_order_of_the_path() -> None:
    client, _ = sold_twice(3)
    chain = landing(client, client.signed_branch.txs[-1])
    nodes = [*client.branch.nodes]
    for height, node in enumerate(nodes, start=11):
        assert chain.names_at(nodes, height) == (node.name,)
    assert chain.names_at(nodes, 10) == (), "the funding is none of them"


def test_coins_of_nobody_are_no_rivals() -> None:
    client, _ = sold_twice(3)
    stranger = spend_of(OutPoint(txid=txid_of(3), vout=0))
    assert client.overtaken_depth(chain_of(stranger)) == 0
    assert not client.is_overtaken(chain_of(stranger))


def test_a_factory_is_ready_in_time_for_one_client_at_least_whose_way_out_is_the_shortest() -> None:
    """Of five clients three are a layer deeper than the other two."""
    _, lsp = sold_twice(3)
    terms = oracle.terms_of([50_000] * 5, [0] * 3, inner_arities=[2, 2])
    blueprint = replace(lsp.blueprint, terms=terms)
    shape = plan_of(terms).shape
    last = [terms.ready_height_max(shape.kinds_to(client)) for client in range(1, 6)]
    assert len(set(last)) == 2
    assert blueprint.ready_height_max == max(last)
