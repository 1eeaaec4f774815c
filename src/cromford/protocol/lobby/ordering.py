"""From fresh keys to an order: the house hands a new factory all that it is computed from."""

from collections.abc import Sequence

from cromford import effects as fx
from cromford import told
from cromford.bitcoin.tx import TxOut
from cromford.factory.funding import funding_tx_of
from cromford.factory.lifetime import lifetime_of
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.vertices import funding_output_of
from cromford.protocol import events as ev
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal.encoding import encoded_join, encoded_pool
from cromford.protocol.journal.first_commitments import offer_of
from cromford.protocol.journal.gathered import Build, Member
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.build import terms_of
from cromford.protocol.lobby.ladder import select_ladder
from cromford.protocol.lobby.lsp import await_rejoin
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.turn import Turn
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import InsufficientCoins
from cromford.wire import messages as m
from cromford.wire.fields import encode_fields


def on_attempt_prepared(turn: Turn[House], event: ev.AttemptPrepared) -> None:
    """Order a factory with everybody's fresh keys, out of coins that are reserved for it."""
    house, build = turn.state, turn.state.build
    channels = (event.channels, *event.higher)
    pools = (event.factory_pool, *(pool for of_one in channels for _, pool in of_one))
    drop = fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools))
    if build is None or build.attempt != event.asked.attempt:
        turn.ask(drop)
        return
    n_candidates = event.asked.n_candidates
    missing = [
        node_id
        for node_id, capacity_sat in zip(build.node_ids, build.capacity_sat, strict=True)
        if not _is_as_taken(house.members.get(node_id), capacity_sat, n_candidates)
    ]
    if missing:
        # Nothing was proposed, so nobody has to make fresh keys; those who stayed still wait.
        reason = f"{told.counted(len(missing), 'client')} left before the proposal"
        turn.remember(lr.BuildDropped(reason=reason))
        turn.ask(drop)
        await_rejoin(turn, build, without=())
        return
    try:
        ordered = _order(house, build, event)
    except InsufficientCoins as error:
        turn.remember(lr.BuildDropped(reason=str(error)))
        turn.ask(drop)
        await_rejoin(turn, build, without=())
        return
    turn.remember(ordered)


def _is_as_taken(member: Member | None, capacity_sat: int, n_candidates: int) -> bool:
    """Say whether a client still waits with what it was taken with.

    It may have left, and joined again with another wish, or with keys of fewer candidates.
    """
    if member is None or len(member.join.candidates) < n_candidates:
        return False
    return member.join.capacity_least_sat <= capacity_sat <= member.join.capacity_sat


def _order(house: House, build: Build, event: ev.AttemptPrepared) -> lr.FactoryOrdered:
    joins = [house.members[node_id].join for node_id in build.node_ids]
    shape, inner = shape_by_policy(house.config.policy, len(joins))
    terms = terms_of(
        house,
        build.capacity_sat,
        shape,
        inner,
        attempt_id=event.attempt_id,
        candidates=event.asked.n_candidates,
    )
    pubkeys = [event.factory_pool.pubkey, *(join.factory_pool.pubkey for join in joins)]
    amount_sat = plan_of(terms).input_sat
    ladder = select_ladder(house, amount_sat, build.feerates_sat_per_kw)
    funding_tx, *higher = (
        funding_tx_of(
            inputs=[coin.outpoint for coin in ladder.coins],
            factory_output=TxOut(
                amount_sat=amount_sat, script_pubkey=funding_output_of(pubkeys, terms).script_pubkey
            ),
            change_output=TxOut(
                amount_sat=rung.change_sat, script_pubkey=house.wallet.next_script(CHANGE)
            ),
        )
        for rung in ladder.rungs
    )
    coin_of = {coin.outpoint: coin for coin in ladder.coins}
    order = mail.Ordered(
        attempt_id=event.attempt_id,
        attempt=event.asked.attempt,
        terms=terms.encode(),
        seats=_seats(build, joins),
        lsp_factory_pool=encoded_pool(event.factory_pool),
        lsp_channels=tuple(encode_fields(offer_of(keys)) for keys, _ in event.channels),
        lsp_channel_pools=tuple(encoded_pool(pool) for _, pool in event.channels),
        funding_tx=funding_tx.serialize(),
        coins=tuple(mail.coin_of(coin_of[tx_in.outpoint]) for tx_in in funding_tx.inputs),
        higher=tuple(
            mail.OrderedRung(
                lsp_channels=tuple(encode_fields(offer_of(keys)) for keys, _ in channels),
                lsp_channel_pools=tuple(encoded_pool(pool) for _, pool in channels),
                funding_tx=tx.serialize(),
            )
            for tx, channels in zip(higher, event.higher, strict=True)
        ),
    )
    return lr.FactoryOrdered(
        order=order,
        factory_pubkeys=tuple(pubkeys[1:]),
        dying_heights=tuple(_dying_height(terms, n) for n in range(1, len(joins) + 1)),
    )


def _seats(build: Build, joins: Sequence[m.Join]) -> tuple[mail.Seat, ...]:
    return tuple(
        mail.Seat(node_id=node_id, join=encoded_join(join), reason=reason)
        for node_id, join, reason in zip(build.node_ids, joins, build.reasons, strict=True)
    )


def _dying_height(terms: FactoryTerms, client: int) -> int:
    kinds = plan_of(terms).shape.kinds_to(client)
    return lifetime_of(terms, kinds).dying_height
