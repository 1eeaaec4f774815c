"""An exit on a copy of the chain: what a client holds brings it out, at any moment.

By consensus alone: fees are nobody's concern here, and every script is the kernel's to judge.
"""

from typing import Any, Final

from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.watch.exit import ChannelOnChain, Publish, WaitForFunding, next_exit_action
from tests.simulation.life_node import LifeNode
from tests.simulation.sim_chain import FREE_RELAY, SimChain

BLOCKS_MAX: Final = 400


def rehearse_exit(chain: SimChain, client: LifeNode) -> int:
    """Let a client leave a copy of the chain by its journal alone; return with how many channels.

    Raises:
        AssertionError: If the chain does not take what it has.
    """
    n_left = 0
    state: Any = client.durable_state()
    for link in state.book.links.values():
        held: ClientAttempt = state.attempts[link.attempt_id]
        if not held.ready_sent or held.is_retired:
            continue
        copied = copy_of(chain)
        if _is_spent_otherwise(copied, held):
            continue
        _bring_on_chain(copied, held)
        n_left += 1
        if link.may_lack_state:
            continue
        own = link.finished_on(link.funding_on(state.chain))
        if own is None or copied.coin(own.tx.inputs[0].outpoint) is None:
            continue
        copied.broadcast(own.tx)
        copied.mine()
        assert own.tx.txid in copied.confirmed, f"{client.name}'s commitment was not taken"
    return n_left


def copy_of(chain: SimChain) -> SimChain:
    """Return a chain that goes on from here, where nothing waits and blocks cost nothing."""
    return SimChain(
        blocks=[*chain.blocks],
        coins=dict(chain.coins),
        confirmed=dict(chain.confirmed),
        n_removed=chain.n_removed,
        relay=FREE_RELAY,
    )


def _is_spent_otherwise(chain: SimChain, held: ClientAttempt) -> bool:
    """Say whether something else is in the place of a client's branch: a close, or a sweep."""
    funding_txid = held.funding_tx.txid
    if funding_txid not in chain.confirmed:
        return True
    outpoint = held.funding_outpoint
    for tx in held.signed_branch.txs:
        outpoint = tx.inputs[0].outpoint
        if tx.txid not in chain.confirmed:
            return chain.coin(outpoint) is None
    return False


def _bring_on_chain(chain: SimChain, held: ClientAttempt) -> None:
    for _ in range(BLOCKS_MAX):
        action = next_exit_action(
            held.signed_branch, confirmed=chain.confirmed, tip_height=chain.height
        )
        if isinstance(action, ChannelOnChain | WaitForFunding):
            return
        if isinstance(action, Publish):
            chain.broadcast(action.step.tx)
        chain.mine()
    raise AssertionError("an exit has no end")
