"""An advance that is cut short anywhere, and a state of its leaf that lands: who gets what.

By the table "Crash or silence" nobody honest loses, whichever step was the last, and whichever of
the states that are signed then is in a block while nobody looks.
"""

import itertools
import random
from typing import Final

from cromford.bitcoin.tx import Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.leaf import Leaf
from cromford.protocol import events as ev
from cromford.protocol.journal.advance_records import AdvanceProposed
from cromford.protocol.journal.advances import LspAdvance
from tests.protocol import paying_clients
from tests.protocol.advanced import kickoff_of
from tests.protocol.old_states import (
    POLICY,
    look_again,
    look_away,
    mine_blindly,
)
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.shoppers import ask_price, buy_what_is_quoted
from tests.protocol.test_leaving import wallet_sat
from tests.simulation.outcomes import remembered
from tests.simulation.sim_node import SimNode

N_LETTERS_MAX: Final = 32  # More than an advance of two clients has, with both rebases.
N_CLIENTS: Final = 2
SWEEP_SAT: Final = 600  # More than what it costs to take two outputs.
CLAIM_SAT: Final = 2_500  # More than what a channel on chain costs the LSP.
REST_BLOCKS: Final = 50


def run_cut_short(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    paying_clients._numbers = itertools.count(1)
    dice = random.Random(f"cut short {seed}")
    pump = live_factory(N_CLIENTS, policy=POLICY, order=seed, watches_folds=True)
    for client in pump.clients:
        pay(pump, pump.lsp, client, dice.randrange(20_000_000, 40_000_000))
    buyer = dice.choice(pump.clients)
    cut_after = seed % N_LETTERS_MAX
    _begin(pump, buyer, dice.randrange(10_000, 60_000))
    left = iter(range(cut_after))
    pump.run(until=lambda: next(left, None) is None)
    crashed = dice.sample([pump.lsp, *pump.clients], dice.randint(0, 3))
    _cut(pump, crashed)
    states = _signed_states(pump)
    landed = dice.randrange(len(states))
    told = _land(pump, states[landed])
    claims = {client.name: _due_sat(pump, client, states[landed]) for client in pump.clients}
    lsp_sat = wallet_sat(pump.lsp)
    may_be_poisoned = landed < len(states) - 1 and _has_poisons(pump)
    is_back = dice.random() < 0.5
    if is_back:
        _come_back(pump)
    for client in pump.clients:
        pump.handle(client, ev.ExitRequested(attempt_id=newest_link(client).attempt_id))
    pump.run()
    pump.mine(REST_BLOCKS)
    for client in pump.clients:
        least_sat, most_sat = claims[client.name]
        if landed and client is buyer:
            least_sat -= _price_sat(pump)  # Its commitment may say it already, or not yet.
        got_sat = wallet_sat(client)
        assert least_sat - SWEEP_SAT < got_sat <= most_sat, f"{client.name}: {got_sat}"
    if not may_be_poisoned:
        paid_sat = sum(states[landed].outputs[vout].amount_sat for vout in range(N_CLIENTS + 1))
        theirs_sat = sum(most_sat for _, most_sat in claims.values())
        due_sat = paid_sat - theirs_sat - N_CLIENTS * CLAIM_SAT
        assert wallet_sat(pump.lsp) - lsp_sat >= due_sat, "the LSP lost something"
    return (
        f"cut after {cut_after} letters, {[node.name for node in crashed]} crashed, "
        f"state {landed} of {len(states)} landed{told}, back: {is_back}, "
        f"poisoned: {may_be_poisoned}"
    )


def _begin(pump: Pump, buyer: PumpNode, amount_sat: int) -> None:
    def handle(node: SimNode, event: ev.Event) -> None:
        assert isinstance(node, PumpNode)
        pump.handle(node, event)

    ask_price(handle, buyer, amount_sat)
    pump.run()
    assert buy_what_is_quoted(handle, buyer)


def _cut(pump: Pump, crashed: list[PumpNode]) -> None:
    """Let all connections break, and these processes start anew; nothing arrives from here on."""
    pump.tamper = lambda _sender, _receiver, _message: ()
    for client in pump.clients:
        pump.disconnect(client)
    for node in crashed:
        pump.restart(node)
    pump.run()
    for client in pump.clients:
        pump.disconnect(client)


def _come_back(pump: Pump) -> None:
    pump.tamper = lambda _sender, _receiver, message: (message,)
    for client in pump.clients:
        pump.connect(client)
    pump.run()


def _signed_states(pump: Pump) -> list[Tx]:
    """Return the signed states of the leaf; only the LSP ever finishes one first."""
    leaf: Leaf = pump.attempt.leaf(1)
    signed = pump.attempt.signed_txs
    return [signed[state.name] for state in leaf.states]


def _has_poisons(pump: Pump) -> bool:
    advances: list[LspAdvance] = list(pump.factory.advances.values())
    return not advances or advances[0].has_poisons


def _price_sat(pump: Pump) -> int:
    return max(-(-one.price_msat // MSAT_PER_SAT) for one in remembered(pump.lsp, AdvanceProposed))


def _land(pump: Pump, state: Tx) -> str:
    """Confirm the kickoff and a state as soon as it may be, while nobody looks."""
    leaf: Leaf = pump.attempt.leaf(1)
    (delay_blocks,) = (one.delay_blocks for one in leaf.states if one.tx.txid == state.txid)
    look_away(pump)
    mine_blindly(pump, 1, [kickoff_of(pump)])
    mine_blindly(pump, max(1, delay_blocks), [state])
    assert state.txid in pump.chain.confirmed
    look_again(pump)
    return f" after {delay_blocks} blocks"


def _due_sat(pump: Pump, client: PumpNode, state: Tx) -> tuple[int, int]:
    """Return the least and the most that a client is to get of a landed state.

    By its own claim or, where the state is poisoned, by that. Until the rebase revokes it, the
    LSP's own claim may come before the poison of the channel: it pays no less than the client's.
    """
    link, held = newest_link(client), pump.held(client)
    landed = [n for n, one in enumerate(held.leaf.states) if one.tx.txid == state.txid]
    newer = held.leaf_states[landed[0] :] if landed else ()
    (funding,) = (one for one in link.fundings if one.outpoint.txid == state.txid)
    own = link.finished_on(funding)
    claim_sat = 0 if own is None else own.commitment.content.accepter_msat // MSAT_PER_SAT
    if not newer or newer[0].poisons is None:
        assert own is not None, f"{client.name} has no claim on what landed"
        return claim_sat, claim_sat
    shares = dict(zip(held.leaf.clients, held.leaf.shares_sat(landed[0]), strict=True))
    channel_sat = held.leaf.channel_poison(landed[0], link.client).shares_sat[link.client]
    stock_sat, is_over = shares[link.client], funding in link.superseded
    return (channel_sat if is_over else claim_sat) + stock_sat, channel_sat + stock_sat
