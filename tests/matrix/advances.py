"""A leaf of which one client bought, and what cheaters do with the state that was replaced.

The purchase goes through the same rooms as everybody's: a quote, the advance, the rebase. Before it
and after it money moves, so that there are revoked commitments on both outputs of each channel, and
what the buyer owns in the end did not fit into its channel before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.factory.branch import SignedBranch, signed_branch_of
from cromford.factory.leaf import Leaf
from cromford.factory.tree import SignedTree
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.coverage import coverage_in
from cromford.protocol.journal.leaf_states import poisons_of
from cromford.watch.poisons import signed_poisons
from cromford.wire import messages as m
from tests.matrix.histories import anybody, neighbours_of, spend_through_htlcs
from tests.matrix.thief import Thief, worth_sat
from tests.matrix.world import Held, MatrixNode, MatrixWorld
from tests.protocol.paying_clients import book
from tests.simulation.sim_chain import SimRefused

FIRST_MSAT: Final = 40_000_000
AWAY_MSAT: Final = 8_000_000
BOUGHT_SAT: Final = 60_000
LATE_BLOCKS: Final = 34  # After the old state, for whoever slept too long.
WAY_BLOCKS_MAX: Final = 400


@dataclass(frozen=True, kw_only=True)
class Parties:
    """Whose leaf it is: the client that buys, and its neighbour in the leaf."""

    buyer: MatrixNode
    mate: MatrixNode


def parties(world: MatrixWorld) -> Parties:
    """Return who buys and who is its neighbour, by the world's dice."""
    buyer = anybody(world)
    mate = world.node(neighbours_of(world, buyer)[0].name)
    return Parties(buyer=buyer, mate=mate)


# Before, and how it is bought


def live(world: MatrixWorld, both: Parties, *, has_htlcs: bool = False) -> None:
    """Let everybody have money, and the two pay each other: each has worth revoking."""
    for client in world.members:
        world.give(client, FIRST_MSAT)
    if has_htlcs:
        spend_through_htlcs(world, both.buyer)
    world.pay(both.buyer, both.mate, AWAY_MSAT)
    world.pay(both.mate, both.buyer, AWAY_MSAT // 2)


def quote(
    world: MatrixWorld, buyer: MatrixNode, amount_sat: int = BOUGHT_SAT
) -> m.Quote | m.QuoteRefused:
    """Let a client ask for a price; return what it believes that it was answered."""
    attempt_id = world.attempt.attempt_id
    world.handle(buyer, ev.QuoteRequested(attempt_id=attempt_id, amount_sat=amount_sat))
    world.run()
    answer = answer_to(buyer.state.quotes[attempt_id])
    assert answer is not None
    return answer


def order(world: MatrixWorld, buyer: MatrixNode, quoted: m.Quote) -> None:
    """Let a client buy by a quote, whether poisons cover all of it or not.

    Nothing is delivered yet.
    """
    asked = ev.PurchaseRequested(
        attempt_id=quoted.attempt_id,
        quote_id=quoted.quote_id,
        price_max_msat=quoted.price_msat,
        beyond_coverage=True,
    )
    world.handle(buyer, asked)


def buy(world: MatrixWorld, buyer: MatrixNode, amount_sat: int = BOUGHT_SAT) -> None:
    """Let a client buy, all there is for 0, and everybody do its part."""
    n_states = len(leaf_of(world, buyer).states)
    quoted = quote(world, buyer, amount_sat)
    assert isinstance(quoted, m.Quote), quoted
    order(world, buyer, quoted)
    world.run()
    link = world.link_of(buyer)
    assert len(leaf_of(world, buyer).states) == n_states + 1
    assert link.present.capacity_sat == quoted.capacity_sat
    assert len(link.superseded) == n_states


def use(world: MatrixWorld, both: Parties) -> None:
    """Let the buyer receive all that it may, pay, and receive again; its neighbour pay, too."""
    capacity_sat = world.link_of(both.buyer).superseded[0].capacity_sat
    receive(world, both.buyer)
    assert world.link_of(both.buyer).state.accepter_msat > capacity_sat * MSAT_PER_SAT
    world.pay(both.buyer, both.mate, AWAY_MSAT)
    world.pay(both.mate, both.buyer, AWAY_MSAT // 2)
    receive(world, both.buyer)


def receive(world: MatrixWorld, client: MatrixNode) -> None:
    """Let a client receive as much as its channel can hold, or as poisons cover."""
    link = world.link_of(client)
    amount_msat = balance_of(link).receivable_msat
    covered_sat = coverage_in(client.state, link)
    if covered_sat is not None:
        amount_msat = min(amount_msat, covered_sat * MSAT_PER_SAT - link.state.accepter_msat)
    amount_msat -= amount_msat % MSAT_PER_SAT
    assert amount_msat > 0
    payment_hash = world.pay(world.lsp, client, amount_msat)
    world.pass_holds()
    assert book(world.lsp).payments[payment_hash].status == "paid"


# What there is of it


def leaf_of(world: MatrixWorld, client: MatrixNode) -> Leaf:
    """Return a client's leaf with every state, as the LSP has it now, or had it last."""
    return world.newest_attempt.leaf(place_of(world, client))


def place_of(world: MatrixWorld, client: MatrixNode) -> int:
    """Return a client's place in the factory."""
    place = world.newest_attempt.client_of(client.node_id)
    assert place is not None
    return place


def newest_branch(world: MatrixWorld, client: MatrixNode) -> SignedBranch:
    """Return a client's branch down to the newest state of its leaf."""
    attempt = world.newest_attempt
    signed = SignedTree(tree=attempt.tree, txs=attempt.signed_txs)
    return signed_branch_of(signed, place_of(world, client))


def branch_at(world: MatrixWorld, client: MatrixNode, state_index: int) -> SignedBranch:
    """Return a client's branch down to one of the states of its leaf, as the client has it."""
    return world.last_attempt(client)._signed_branch_at(state_index)


def latest_on(
    world: MatrixWorld, node: MatrixNode, client: MatrixNode, state_index: int
) -> Held | None:
    """Return what a participant could rightly publish of a channel in a state of its leaf."""
    ends = {end.me: end for end in world.ends[client.name]}
    end = ends[Party.OPENER if node is world.lsp else Party.ACCEPTER]
    txid = leaf_of(world, client).states[state_index].tx.txid
    for funding in end.fundings:
        finished = end.finished_on(funding)
        if funding.outpoint.txid == txid and finished is not None:
            return Held(node=node, link=end, finished=finished, own_point=end.own_point)
    return None


def revoked_on(
    world: MatrixWorld,
    node: MatrixNode,
    client: MatrixNode,
    state_index: int,
    *,
    has_htlcs: bool = False,
) -> Held:
    """Return the revoked commitment that is worth most to its holder, in a state of the leaf."""
    ends = {end.me: end for end in world.ends[client.name]}
    end = ends.pop(Party.OPENER if node is world.lsp else Party.ACCEPTER)
    (peer,) = ends.values()
    txid = leaf_of(world, client).states[state_index].tx.txid
    found = [
        held
        for held in world.kept.values()
        if held.funding.outpoint.txid == txid
        and (held.link.channel_id, held.party) == (end.channel_id, end.me)
        and held.number < peer.state.peer_revoked
        and not (has_htlcs and not held.finished.commitment.content.htlcs)
    ]
    assert found, "nothing was revoked there"
    return max(found, key=lambda held: (worth_sat(held), -held.number))


def own_in_leaf_sat(world: MatrixWorld, client: MatrixNode) -> int:
    """Return what is the LSP's in a client's leaf: all but what its clients own."""
    leaf = leaf_of(world, client)
    clients = [
        one for one in world.members if world.newest_attempt.client_of(one.node_id) in leaf.clients
    ]
    owed_msat = sum(
        min(end.finished.commitment.content.accepter_msat for end in world.ends[one.name])
        for one in clients
    )
    after = leaf.allocation
    return sum(after.capacities_sat) + after.lstock_sat - owed_msat // MSAT_PER_SAT


# Who sleeps, and what is published


def started(world: MatrixWorld, client: MatrixNode) -> None:
    """Let time pass until a leaf's kickoff is published, as the thieves do it."""
    kickoff = leaf_of(world, client).kickoff.tx
    assert world.mine_until(lambda: world.is_on_its_way(kickoff), most=WAY_BLOCKS_MAX)


def sleep_too_long(world: MatrixWorld, *nodes: MatrixNode, state_index: int = 0) -> None:
    """Let participants sleep while an old state comes into its block, and for some time after."""
    terms = world.newest_attempt.terms
    old_blocks = terms.step_blocks * (terms.states_per_layer - 1 - state_index)
    for node in nodes:
        if node.driver is not None:
            world.sleep(node, old_blocks + LATE_BLOCKS)


def sleep_as_allowed(world: MatrixWorld, *nodes: MatrixNode) -> None:
    """Let participants look away at the worst moment, for as long as they may."""
    for node in nodes:
        if node.driver is not None:
            world.sleep(node, world.absence_blocks(node))


def publish_together(thief: Thief, old: SignedBranch, held: Held) -> None:
    """Publish the old state and a commitment below it in one package, as soon as one may.

    Where that pays less than what strangers pay, a miner takes it.
    """
    world = thief.world
    chain, state = world.chain, old.txs[-1]
    kickoff_height = chain.confirmed.get(state.inputs[0].outpoint.txid)
    if kickoff_height is None or state.inputs[0].outpoint in chain.spends:
        return
    delay_blocks = old.branch.vertices[-1].last.delay_blocks
    if chain.height + 1 < kickoff_height + delay_blocks:
        return
    if world.market.filled_at_sat_per_vb:
        chain.mine_these([state, held.finished.tx])
        return
    try:
        chain.broadcast_package(state, held.finished.tx)
    except SimRefused as refused:
        thief.refusals["package"] = str(refused)


def leave_but_state(thief: Thief, old: SignedBranch) -> None:
    """Publish what comes next of the way to a leaf's old state, and not that."""
    if old.txs[-2].txid not in thief.world.chain.confirmed:
        thief.leave(old)


def take_poisons(thief: Thief, client: MatrixNode, *, but_channel: bool = False) -> None:
    """Let a cheating client publish its poisons as soon as the old state is in a block."""
    held = thief.world.last_attempt(client)
    chain = thief.world.chain
    landed = [
        index for index, state in enumerate(held.leaf.states) if state.tx.txid in chain.confirmed
    ]
    signatures = poisons_of(held.leaf_states, landed[0]) if landed else None
    if signatures is None:
        return
    place = held.client
    channel = None if but_channel else signatures.channels.get(place)
    poisons = signed_poisons(held.leaf, landed[0], place, channel=channel, stock=signatures.stock)
    for one in poisons:
        if one.spends not in chain.spends:
            thief.publish(one.name, one.tx)


# What has to be


def expect_state(thief: Thief, client: MatrixNode, state_index: int) -> None:
    """Expect a state of a leaf in a block, and its outputs taken as agreed, if it is an old one."""
    thief.expectations.append(partial(_wrong_state, thief.world, client, state_index))


def _wrong_state(world: MatrixWorld, client: MatrixNode, state_index: int) -> Iterator[str]:
    leaf = leaf_of(world, client)
    spender = world.chain.spends.get(leaf.kickoff.tx.outpoint(0))
    if spender is None:
        yield f"no state of {leaf.kickoff.name} landed"
    elif spender.txid != leaf.states[state_index].tx.txid:
        names = {state.tx.txid: state.name for state in leaf.states}
        landed = names.get(spender.txid, "something else")
        yield f"{landed} landed, not {leaf.states[state_index].name}"


def expect_poisons(
    thief: Thief, client: MatrixNode, *, channels: bool, state_index: int = 0
) -> None:
    """Expect that poisons took an old state's L-stock, and a client's channel or not."""
    thief.expectations.append(
        partial(_wrong_poisons, thief.world, client, state_index, channels=channels)
    )


def _wrong_poisons(
    world: MatrixWorld, client: MatrixNode, state_index: int, *, channels: bool
) -> Iterator[str]:
    leaf, confirmed = leaf_of(world, client), world.chain.confirmed
    wanted = (
        (leaf.stock_poison(state_index), True),
        (leaf.channel_poison(state_index, place_of(world, client)), channels),
    )
    for poison, is_wanted in wanted:
        if (poison.tx.txid in confirmed) is not is_wanted:
            yield f"{poison.name} was {'' if is_wanted else 'not '}to confirm"


def expect_no_poison(thief: Thief) -> None:
    """Expect that no poison of any state is in a block."""
    thief.expectations.append(partial(_poisoned, thief.world))


def _poisoned(world: MatrixWorld) -> Iterator[str]:
    for leaf in world.newest_attempt.advanced_leaves.values():
        for state_index in range(len(leaf.states) - 1):
            for poison in leaf.poisons(state_index):
                if poison.tx.txid in world.chain.confirmed:
                    yield f"{poison.name} confirmed"
