"""A state that was replaced is in a block: the client takes it apart by its poisons.

They are published at once, whoever leaves or stays, again after a reorganisation, and at each
start.
"""

from collections.abc import Iterator

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.factory.poison import PoisonKind
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.leaf_states import poisons_of
from cromford.signing.keychain import FactoryKey
from cromford.watch.bumping import Bumping, OwnOutput
from cromford.watch.feerates import OwnFees
from cromford.watch.poisons import (
    SignedPoison,
    arriving_sat,
    signed_poisons,
    sweep_of,
    to_publish,
)
from cromford.watch.schedule import MARGIN_BLOCKS, scheduled_budget_sat, scheduled_sat_per_kw


def held_poisons(attempt: ClientAttempt, chain: KnownChain) -> tuple[SignedPoison, ...]:
    """Return the poisons of the state of our leaf that is in a block; none of a live one."""
    if not attempt.leaf_states or not isinstance(attempt.stage, Complete):
        return ()
    return poisons_held_of(attempt, attempt.state_index_on(chain))


def poisons_held_of(attempt: ClientAttempt, state_index: int) -> tuple[SignedPoison, ...]:
    """Return the poisons of one state of our leaf that we hold, if it was replaced.

    Raises:
        Unchecked: If the proposal was never accepted.
    """
    signatures = poisons_of(attempt.leaf_states, state_index)
    if signatures is None:
        return ()
    client = attempt.client
    return signed_poisons(
        attempt.leaf,
        state_index,
        client,
        channel=signatures.channels.get(client),
        stock=signatures.stock,
    )


def poison_effects(
    state: ClientState, attempt: ClientAttempt, fees: OwnFees
) -> Iterator[fx.Effect]:
    """Yield the poisons to be published now, and what takes our outputs of those in blocks."""
    chain = state.chain
    held = held_poisons(attempt, chain)
    if not held:
        return
    for one in to_publish(held, chain.spends):
        bumping = _bumping(state, attempt, one, fees)
        # One that pays nothing itself goes with a child of our own output, or not at all.
        if bumping is not None or one.poison.fee_sat:
            yield fx.Broadcast(name=one.name, tx=one.tx, bumping=bumping)
    sweep = sweep_of(
        held,
        spends=chain.spends,
        heights=chain.confirmed,
        payout_script=attempt.join.payout_script,
        fees=fees,
    )
    if sweep is not None:
        yield fx.SignPayouts(attempt_id=attempt.attempt_id, key=_key_of(attempt), spend=sweep)


def _bumping(
    state: ClientState, attempt: ClientAttempt, one: SignedPoison, fees: OwnFees
) -> Bumping | None:
    """Return what may be done for a poison: a child of our own output, if it has one.

    Only the L-stock hurries: after its delay the LSP may take it alone. A channel is nobody else's
    without a signature of ours: what else spends it pays our balance, or is punished. To outbid it
    where it is large would cost more than it takes from us.
    """
    chain = state.chain
    if one.own_vout is None:
        return None
    is_stock = one.poison.kind is PoisonKind.STOCK
    landed_height = chain.confirmed.get(one.spends.txid, chain.height)
    ends_height = landed_height + attempt.terms.lstock_csv_blocks - MARGIN_BLOCKS
    deadline_height = ends_height if is_stock else None
    return Bumping(
        fee_sat=one.poison.fee_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=deadline_height,
            first_height=state.published.get(one.spends, chain.height),
            height=chain.height,
        ),
        budget_sat=scheduled_budget_sat(
            one.own_sat, fees, deadline_height=deadline_height, height=chain.height
        ),
        fees=fees,
        gives_way=not is_stock,
        own=OwnOutput(
            vout=one.own_vout,
            key=_key_of(attempt),
            payout_script=attempt.join.payout_script,
        ),
    )


def _key_of(attempt: ClientAttempt) -> FactoryKey:
    return FactoryKey(attempt=attempt.key_attempt)


def poisons_arriving_sat(attempt: ClientAttempt, chain: KnownChain) -> int:
    """Return what poisons of the state in a block still bring us, before our own fees."""
    return arriving_sat(held_poisons(attempt, chain), chain.spends)


def poison_outpoints(attempt: ClientAttempt, chain: KnownChain) -> frozenset[OutPoint]:
    """Return what poisons of the state in a block take and pay us: spends of these are news."""
    held = held_poisons(attempt, chain)
    paid = (one.own_outpoint for one in held)
    return frozenset((*(one.spends for one in held), *(one for one in paid if one is not None)))
