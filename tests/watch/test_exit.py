"""Leaving alone: from any half-published state, never too early, always in the end."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.watch.signed_factory import SHAPES, signed_branches

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.factory.branch import SignedBranch
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FactoryTerms
from cromford.regtest.kernel import check_scripts
from cromford.watch.exit import (
    ChannelOnChain,
    ExitAction,
    Publish,
    WaitForFunding,
    WaitForHeight,
    next_exit_action,
    swept_by,
)

DISABLE_FLAG = 1 << 31  # BIP 68
BRANCHES = [(n_clients, client) for n_clients in SHAPES for client in range(1, n_clients + 1)]

branches = st.sampled_from(BRANCHES).map(lambda which: signed_branches(which[0])[which[1] - 1])
waits = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2_000))


def delay_of(tx: Tx) -> int:
    """Read BIP 68's delay in blocks off the transaction itself."""
    nsequence = tx.inputs[0].nsequence
    return 0 if nsequence & DISABLE_FLAG else nsequence & 0xFFFF


@dataclass
class LateChain:
    """A chain that shows one branch: where its transactions confirmed, and the tip."""

    signed: SignedBranch
    tip_height: int
    confirmed: dict[Txid, int] = field(default_factory=dict)

    @property
    def path(self) -> tuple[Tx, ...]:
        return self.signed.txs

    @property
    def n_confirmed(self) -> int:
        return sum(tx.txid in self.confirmed for tx in self.path)

    @property
    def funding_txid(self) -> Txid:
        return self.signed.branch.funding_outpoint.txid

    def earliest(self, tx: Tx) -> int:
        """Return the first block BIP 68 allows a transaction whose parent confirmed."""
        return self.confirmed[tx.inputs[0].outpoint.txid] + delay_of(tx)

    def action(self) -> ExitAction:
        return next_exit_action(self.signed, confirmed=self.confirmed, tip_height=self.tip_height)

    def confirm(self, tx: Tx, blocks_later: int = 1) -> None:
        """Mine a transaction, refusing what consensus would refuse."""
        self.tip_height += blocks_later
        assert self.earliest(tx) <= self.tip_height
        self.confirmed[tx.txid] = self.tip_height

    def reorg(self, n_blocks: int) -> None:
        self.tip_height -= n_blocks
        self.confirmed = {t: h for t, h in self.confirmed.items() if h <= self.tip_height}


@st.composite
def half_published(draw: st.DrawFn) -> LateChain:
    """Draw a chain on which the funding and some first part of a branch confirmed."""
    signed = draw(branches)
    chain = LateChain(signed, tip_height=draw(st.integers(0, 900_000)))
    chain.confirmed[chain.funding_txid] = chain.tip_height
    for tx in chain.path[: draw(st.integers(0, len(chain.path)))]:
        # A kickoff waits for nothing: somebody else may have had it mined with its parent.
        least = max(chain.earliest(tx) - chain.tip_height, 0)
        chain.confirm(tx, least + draw(waits))
    chain.tip_height += draw(waits)
    chain.confirmed[Txid(b"\x99" * 32)] = chain.tip_height
    return chain


def check_action(chain: LateChain) -> None:
    """Compare the answer with BIP 68, read off the transactions."""
    action = chain.action()
    left = [tx for tx in chain.path if tx.txid not in chain.confirmed]
    if not left:
        channel = chain.signed.branch.channel_outpoint
        height = chain.confirmed[chain.path[-1].txid]
        assert action == ChannelOnChain(outpoint=channel, height=height)
        return
    earliest = max(chain.earliest(left[0]), chain.confirmed[left[0].inputs[0].outpoint.txid] + 1)
    if chain.tip_height + 1 >= earliest:
        assert isinstance(action, Publish)
        assert action.step.tx == left[0]
    else:
        assert isinstance(action, WaitForHeight)
        assert (action.step.tx, action.height) == (left[0], earliest)


@given(chain=half_published())
def test_from_any_half_published_state_the_next_transaction_goes_out_when_it_may(
    chain: LateChain,
) -> None:
    check_action(chain)


@given(chain=half_published(), back=st.integers(0, 3_000))
def test_nothing_is_published_before_its_parent_confirmed_or_before_its_time(
    chain: LateChain, back: int
) -> None:
    """At every tip, also one below what already confirmed: a reorg has not been told in full."""
    chain.tip_height = max(chain.tip_height - back, 0)
    action = chain.action()
    if isinstance(action, Publish):
        parent = action.step.tx.inputs[0].outpoint.txid
        assert parent in chain.confirmed
        assert chain.tip_height + 1 > chain.confirmed[parent]
        assert chain.tip_height + 1 >= chain.earliest(action.step.tx)


@settings(max_examples=60)
@given(chain=half_published(), data=st.data())
def test_an_exit_ends_at_the_channel_however_slow_the_miners(
    chain: LateChain, data: st.DataObject
) -> None:
    left = len(chain.path) - chain.n_confirmed
    n_actions = 0
    while not isinstance(action := chain.action(), ChannelOnChain):
        n_actions += 1
        assert n_actions <= 2 * left
        if isinstance(action, Publish):
            chain.confirm(action.step.tx, 1 + data.draw(waits))
        else:
            assert isinstance(action, WaitForHeight)
            assert action.height > chain.tip_height + 1
            chain.tip_height = action.height - 1
            assert isinstance(chain.action(), Publish)
    assert action.outpoint == chain.signed.branch.channel_outpoint
    assert action.height == max(chain.confirmed[tx.txid] for tx in chain.path)


@given(chain=half_published(), data=st.data())
def test_what_a_reorg_unconfirms_is_published_again(chain: LateChain, data: st.DataObject) -> None:
    if chain.n_confirmed == 0:
        return
    last = chain.path[chain.n_confirmed - 1]
    height = chain.confirmed[last.txid]
    parent_height = chain.confirmed[last.inputs[0].outpoint.txid]
    if parent_height == height:
        return  # The same reorg takes its parent too, which is the next test's.
    chain.reorg(chain.tip_height - height + 1)
    assert last.txid not in chain.confirmed
    action = chain.action()
    assert isinstance(action, Publish)
    assert action.step.tx == last
    chain.confirm(last, 1 + data.draw(waits))
    check_action(chain)


@given(chain=half_published(), data=st.data())
def test_after_a_reorg_of_any_depth_the_exit_goes_on_where_the_chain_is(
    chain: LateChain, data: st.DataObject
) -> None:
    chain.reorg(data.draw(st.integers(0, chain.tip_height)))
    if chain.funding_txid not in chain.confirmed:
        assert chain.action() == WaitForFunding()
        return
    check_action(chain)


@pytest.mark.parametrize(("n_clients", "client"), BRANCHES)
def test_without_the_funding_there_is_nothing_to_leave_from(n_clients: int, client: int) -> None:
    signed = signed_branches(n_clients)[client - 1]
    for confirmed in ({}, {tx.txid: 5 for tx in signed.txs}):
        action = next_exit_action(signed, confirmed=confirmed, tip_height=10)
        assert action == WaitForFunding()


@pytest.mark.parametrize(("n_clients", "client"), BRANCHES)
def test_the_shortest_exit_takes_exactly_the_delays(n_clients: int, client: int) -> None:
    """Block by block: each transaction is told once, in the block BIP 68 first allows."""
    signed = signed_branches(n_clients)[client - 1]
    chain = LateChain(signed, tip_height=100)
    chain.confirmed[chain.funding_txid] = 100
    published: list[tuple[int, Tx]] = []
    while not isinstance(action := chain.action(), ChannelOnChain):
        chain.tip_height += 1
        if isinstance(action, Publish):
            published.append((chain.tip_height, action.step.tx))
            chain.confirmed[action.step.tx.txid] = chain.tip_height
    assert [tx for _, tx in published] == list(signed.txs)
    expected, height = [], 100
    for tx in signed.txs:
        height += max(delay_of(tx), 1)
        expected.append(height)
    assert [height for height, _ in published] == expected
    kinds = signed.branch.kinds
    without_delay = len(signed.txs) - kinds.count(VertexKind.DW)
    assert action.height - 100 == signed.branch.terms.exit_delay_blocks(kinds) + without_delay


@pytest.mark.parametrize(("n_clients", "client"), BRANCHES)
def test_the_kernel_accepts_every_transaction_that_is_published(
    n_clients: int, client: int
) -> None:
    """What is told spends what came before it, with amounts and signatures that hold."""
    signed = signed_branches(n_clients)[client - 1]
    branch = signed.branch
    assert isinstance(branch.terms, FactoryTerms)
    coins: dict[OutPoint, TxOut] = {
        branch.funding_outpoint: TxOut(
            amount_sat=branch.funding_amount_sat, script_pubkey=branch.funding_output.script_pubkey
        )
    }
    chain = LateChain(signed, tip_height=100)
    chain.confirmed[chain.funding_txid] = 100
    while not isinstance(action := chain.action(), ChannelOnChain):
        if isinstance(action, WaitForHeight):
            chain.tip_height = action.height - 1
            continue
        assert isinstance(action, Publish)
        tx = action.step.tx
        spent = coins.pop(tx.inputs[0].outpoint)
        check_scripts(tx, [spent])
        assert spent.amount_sat - sum(out.amount_sat for out in tx.outputs) == action.step.fee_sat
        coins |= {tx.outpoint(vout): out for vout, out in enumerate(tx.outputs)}
        chain.confirm(tx)
    assert coins[action.outpoint].amount_sat == branch.terms.capacity_sat[client - 1]
    assert coins[action.outpoint] == branch.channel.txout


@pytest.mark.parametrize(("n_clients", "client"), [(1, 1), (5, 3)])
def test_a_path_is_swept_by_whatever_spent_what_it_would_have(n_clients: int, client: int) -> None:
    nodes = tuple(signed_branches(n_clients)[client - 1].branch.nodes)
    own = {node.tx.inputs[0].outpoint: node.tx for node in nodes}
    assert swept_by(nodes, {}) is None
    assert swept_by(nodes, own) is None
    for node in nodes:
        other = replace(node.tx, nlocktime=node.tx.nlocktime + 1)
        outpoint = node.tx.inputs[0].outpoint
        assert swept_by(nodes, {outpoint: other}) == other
        assert swept_by(nodes, own | {outpoint: other}) == other
