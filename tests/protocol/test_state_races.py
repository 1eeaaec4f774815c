"""What an LSP offers so that a state of its tree is in a block in time: out of what is its own."""

from dataclasses import replace
from functools import cache
from typing import Final

from immutables import Map
from tests.protocol.closes import closable_factory
from tests.protocol.left_factories import ALICE, channel, on, path, seeing
from tests.protocol.old_states import STEP_BLOCKS, sold
from tests.protocol.seen_blocks import spending, up_to
from tests.protocol.test_confirming import CHANGE, coin

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.factory.vertices import TreeNode
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.exiting.lsp_race import of_state
from cromford.protocol.journal.factory import Factory
from cromford.wallet.coins import Purse
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees

FEES: Final = OwnFees(estimates=((1, 8_000), (100, 1_000)))
DAY: Final = 1_000


@cache
def branching() -> Factory:
    """Return a factory whose four clients have money, in more than one leaf."""
    factory = closable_factory(4).factory
    assert len(factory.attempt.terms.lstock_sat) > 1
    return factory


@cache
def advanced() -> Factory:
    """Return a factory whose only leaf has a newer state."""
    return sold()[0].factory


def states(factory: Factory) -> list[TreeNode]:
    """Return the states on Alice's path, the outermost first."""
    return [*factory.attempt.branch(ALICE).nodes][1::2]


def offered(factory: Factory, node: TreeNode) -> Bumping | None:
    return of_state(factory, node, factory.attempt.signed_txs[node.name], FEES)


def own_sat(factory: Factory, node: TreeNode) -> int:
    """Return what the LSP would lose below a state: balances, whole satoshi, and L-stocks."""
    clients = list(node.shape.clients)
    msat = sum(balance_of(channel(factory, one)).own_msat for one in clients)
    leaves = factory.attempt.tree.root.shape.leaves()
    stocks = zip(leaves, factory.attempt.terms.lstock_sat, strict=True)
    return msat // 1000 + sum(sat for leaf, sat in stocks if leaf.clients[0] in clients)


def test_from_the_expiry_on_half_of_what_is_below_a_state_may_go_for_it() -> None:
    """What is below it is the LSP's to take then; nothing else would bring it on chain."""
    factory = branching()
    outer, inner = states(factory)
    there = seeing(factory, *path(factory, ALICE)[:3])
    expiry = factory.attempt.terms.expiry_height
    for node in (outer, inner):
        assert offered(on(factory, up_to(factory.chain, expiry)), node) is None, "no kickoff of it"
        assert offered(on(there, up_to(there.chain, expiry - 1)), node) is None
        found = offered(on(there, up_to(there.chain, expiry)), node)
        assert found is not None
        assert found.budget_sat == own_sat(factory, node) // 2
        assert (found.feerate_sat_per_kw, found.fee_sat) == (DAY, node.fee_sat)
    assert own_sat(factory, inner) < own_sat(factory, outer)


def test_before_an_older_state_could_come_all_but_dust_may_go_for_the_newest() -> None:
    factory = advanced()
    (node,) = states(factory)
    assert offered(factory, node) is None, "nobody started its clock"
    there = seeing(factory, path(factory, ALICE)[0])
    deadline = there.chain.height + node.delay_blocks + STEP_BLOCKS - 6
    whole_sat = sum(balance_of(link).own_msat for link in factory.book.links.values()) // 1000
    whole_sat += sum(output.amount_sat for output in node.outputs if output.kind.name == "LSTOCK")
    for height, budget_sat in (
        (deadline - 1, whole_sat // 2),
        (deadline, whole_sat - P2TR_DUST_SAT),
        (deadline + 1, whole_sat - P2TR_DUST_SAT),
    ):
        found = offered(on(there, up_to(there.chain, height)), node)
        assert found is not None
        assert found.budget_sat == budget_sat


def test_a_race_is_run_with_the_coins_that_are_still_there_and_dearer_the_longer_it_lasts() -> None:
    factory = advanced()
    (node,) = states(factory)
    there = seeing(factory, path(factory, ALICE)[0])
    outpoint, height = node.tx.inputs[0].outpoint, there.chain.height
    held = Purse(coins=(coin(1, 5_000), coin(2, 6_000)), change_script=CHANGE)
    rich = replace(there, purses=Map({outpoint: held}), published=Map({outpoint: height}))
    found = offered(rich, node)
    assert found is not None
    assert found.purse == held
    spent = offered(seeing(rich, spending(coin(1, 5_000).outpoint)), node)
    assert spent is not None
    assert spent.purse == replace(held, coins=held.coins[1:])
    late = offered(on(rich, up_to(rich.chain, height + node.delay_blocks)), node)
    assert late is not None
    assert late.feerate_sat_per_kw > 8_000
    fresh = replace(on(rich, up_to(rich.chain, height + node.delay_blocks)), published=Map())
    first = offered(fresh, node)
    assert first is not None
    assert first.feerate_sat_per_kw == 8_000, "it is published for the first time"
