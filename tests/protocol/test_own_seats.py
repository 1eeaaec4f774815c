"""What an LSP can do with handed-over keys: close what is its own, and nothing to who stayed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.movers import BALANCE_MSAT, World, dying_world

from cromford import effects as fx
from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.tx import Tx
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.daemon.handover import HandedOver
from cromford.factory.close import CloseScope, Payout, build_close, scope_of
from cromford.factory.key_path import InvalidSignature
from cromford.protocol import events as ev
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT, due_msat
from cromford.protocol.channels.seats import link_of, own_seats, seat_keys
from cromford.protocol.journal.close_scopes import channel_scope
from cromford.protocol.journal.factory import Factory
from cromford.signing.keychain import FactoryKey, HandedOverKey
from cromford.signing.nonces import PublicPool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces
from cromford.signing.signer import Signer

pytestmark = pytest.mark.sampled_file(6)

FEERATE: Final = 500
LSP_SCRIPT: Final = p2tr_script(bytes(32))


@cache
def everybody_moved(n_clients: int = 3) -> World:
    """Return a world in which the LSP has all keys; what a test changes of it, it puts back."""
    world = dying_world(n_clients)
    for client in world.pump.clients:
        world.move(client)
    world.pump.mine()
    assert world.factory.held_keys == set(range(1, n_clients + 1))
    return world


def handed_over(world: World) -> tuple[HandedOver, Signer]:
    """Return what the LSP's daemon performs effects with."""
    lsp = world.pump.lsp
    assert lsp.signer is not None
    return HandedOver(lsp.signer, lsp.handed_over_keys), lsp.signer


def _payout(factory: Factory, client: int) -> Payout:
    link = link_of(factory, client)
    assert link is not None
    script = factory.attempt.seats[client - 1].payout_script
    return Payout(script_pubkey=script, due_msat=due_msat(link))


def closed_alone(world: World, scope: CloseScope) -> Tx:
    """Return a signed close of a scope for whose every client the LSP signs."""
    held, signer = handed_over(world)
    factory, attempt = world.factory, world.old.attempt
    clients = own_seats(factory, scope)
    assert clients == scope.clients
    close = build_close(
        scope,
        [_payout(factory, client) for client in clients],
        lsp_script=LSP_SCRIPT,
        feerate_sat_per_kw=FEERATE,
    )
    prepare = fx.PrepareSeats(
        attempt_id=attempt.attempt_id,
        close_id=bytes(32),
        seats=seat_keys(factory, scope, clients),
        pool_size=1,
    )
    (prepared,) = held.perform(prepare)
    assert isinstance(prepared, ev.SeatsPrepared)
    is_channel = scope.outpoint == attempt.setting(clients[0]).funding.outpoint
    name = world.lsp_link(world.pump.by_id[attempt.seats[clients[0] - 1].node_id]).key
    own = signer.make_pool(name if is_channel else FactoryKey(attempt=attempt.key_attempt), 1)
    task = scope.task(close.tx)
    pubnonces = {pool.pubkey: pool.pubnonces[0] for pool in (own, *prepared.pools)}
    aggnonce = aggregate_nonces(pubnonces)
    (signed,) = held.perform(_sign(scope, (close.tx,), (aggnonce,), prepared.pools))
    assert isinstance(signed, ev.SeatsSigned)
    session = SigningSession(task=task, pubnonces=pubnonces, aggnonce=aggnonce)
    parts = {own.pubkey: signer.partial_sign(own.pool_id, 0, task, aggnonce)}
    for pool, (partial_sig,) in zip(prepared.pools, signed.partial_sigs, strict=True):
        parts[pool.pubkey] = partial_sig
    return scope.signed(close.tx, _collected(task.name, session, parts))


def _sign(
    scope: CloseScope,
    txs: tuple[Tx, ...],
    aggnonces: tuple[bytes, ...],
    pools: Sequence[PublicPool],
) -> fx.SignForSeats:
    return fx.SignForSeats(
        attempt_id=bytes(32),
        close_id=bytes(32),
        scope=scope,
        txs=txs,
        aggnonces=aggnonces,
        pool_ids=tuple(pool.pool_id for pool in pools),
    )


def _collected(name: str, session: SigningSession, parts: Mapping[bytes, bytes]) -> bytes:
    signing_round = SigningRound(sessions={name: session})
    for pubkey, partial_sig in parts.items():
        signing_round = signing_round.with_contribution(pubkey, {name: partial_sig})
    return signing_round.signatures()[name]


def test_with_all_clients_gone_the_lsp_closes_the_whole_factory_alone() -> None:
    world = everybody_moved()
    tx = closed_alone(world, scope_of(world.old.attempt.tree.root_node))
    world.pump.chain.broadcast(tx)
    assert tx.txid in world.pump.chain.mempool
    del world.pump.chain.mempool[tx.txid]
    # One output besides the anchor: nobody else is due anything.
    assert len(tx.outputs) == 2
    assert tx.outputs[0].amount_sat > world.old.attempt.tree.funding_amount_sat - 1_000


def test_a_channel_on_chain_is_closed_with_its_funding_key() -> None:
    world = everybody_moved(2)
    client = world.pump.clients[0]
    scope = channel_scope(world.old.attempt.setting(world.seat(client)).funding, world.seat(client))
    (key,) = seat_keys(world.factory, scope, scope.clients)
    assert key.name == HandedOverKey(
        attempt=world.old.number, client=world.seat(client), is_funding=True
    )
    tx = closed_alone(world, scope)
    assert tx.inputs[0].outpoint == world.link(client).setting.funding.outpoint


def test_a_part_of_the_tree_is_closed_likewise() -> None:
    world = everybody_moved(4)
    node = next(
        node for node in world.old.attempt.tree.nodes_below_root if node.shape.path and node.signers
    )
    tx = closed_alone(world, scope_of(node))
    assert tx.inputs[0].outpoint == node.tx.inputs[0].outpoint


# For whom it signs


def with_link(world: World, client: Any, **changes: Any) -> Factory:
    link = replace(world.lsp_link(client), **changes)
    book = world.factory.book
    return replace(world.factory, book=replace(book, links=book.links.set(link.channel_id, link)))


@pytest.mark.parametrize(
    ("left_msat", "is_own"), [(0, True), (LEFT_BEHIND_MSAT - 1, True), (LEFT_BEHIND_MSAT, False)]
)
def test_keys_that_are_held_count_only_while_the_client_is_due_nothing(
    left_msat: int,
    is_own: bool,  # noqa: FBT001 - a case's column
) -> None:
    """What was checked when they came is checked at each use."""
    world = everybody_moved(2)
    client, other = world.pump.clients
    scope = scope_of(world.old.attempt.tree.root_node)
    state = replace(world.lsp_link(client).state, accepter_msat=left_msat)
    factory = with_link(world, client, state=state)
    assert own_seats(factory, scope) == ((1, 2) if is_own else (world.seat(other),))
    assert (_payout(factory, world.seat(client)).amount_sat == 0) is is_own


def test_a_channel_that_is_not_at_rest_or_lost_state_has_a_client() -> None:
    world = everybody_moved(2)
    client, other = world.pump.clients
    scope = scope_of(world.old.attempt.tree.root_node)
    link = world.lsp_link(client)
    before = link.state.content(Party.ACCEPTER, Edition.SIGNED)
    for changes in (
        {"is_behind": True},
        {"peer_is_behind": True},
        {"peer_unrevoked": before},
        {"state": replace(link.state, own_signed=link.state.own_signed + 1)},
    ):
        assert own_seats(with_link(world, client, **changes), scope) == (world.seat(other),)


def test_who_gave_no_keys_is_no_seat_of_the_lsps_and_keeps_a_say() -> None:
    world = dying_world(2)
    mover, stayer = world.pump.clients
    world.move(mover)
    world.pump.mine()
    scope = scope_of(world.old.attempt.tree.root_node)
    assert own_seats(world.factory, scope) == (world.seat(mover),)
    assert (
        own_seats(
            world.factory,
            channel_scope(
                world.old.attempt.setting(world.seat(stayer)).funding, world.seat(stayer)
            ),
        )
        == ()
    )


# What the keys are good for


def test_a_pool_of_a_handed_over_key_signs_closes_and_nothing_else() -> None:
    """Not a kickoff, a state or a commitment, though the caller asks for it."""
    world = everybody_moved(2)
    held, _ = handed_over(world)
    attempt = world.old.attempt
    (client, *_) = world.pump.clients
    for node in attempt.tree.nodes:
        scope = scope_of(node)
        _check_refused(world, held, scope, node.tx)
    scope = channel_scope(world.old.attempt.setting(world.seat(client)).funding, world.seat(client))
    for commitment in (world.link(client).finished, world.lsp_link(client).finished):
        _check_refused(world, held, scope, commitment.commitment.tx)
    root = scope_of(attempt.tree.root_node)
    payouts = [Payout(script_pubkey=LSP_SCRIPT, due_msat=0)] * 2
    close = build_close(root, payouts, lsp_script=LSP_SCRIPT, feerate_sat_per_kw=FEERATE).tx
    (tx_in,) = close.inputs
    for other in (
        replace(close, version=2),
        replace(close, nlocktime=1),
        replace(close, inputs=(tx_in, tx_in)),
        replace(close, inputs=(replace(tx_in, nsequence=0xFFFFFFFF),)),
        replace(close, inputs=(replace(tx_in, outpoint=scope.outpoint),)),
    ):
        _check_refused(world, held, root, other)


def _check_refused(world: World, held: HandedOver, scope: CloseScope, tx: Tx) -> None:
    keys = seat_keys(world.factory, scope, own_seats(world.factory, scope))
    prepare = fx.PrepareSeats(attempt_id=bytes(32), close_id=bytes(32), seats=keys, pool_size=1)
    (prepared,) = held.perform(prepare)
    assert isinstance(prepared, ev.SeatsPrepared)
    aggnonce = aggregate_nonces({pool.pubkey: pool.pubnonces[0] for pool in prepared.pools})
    (failed,) = held.perform(_sign(scope, (tx,), (aggnonce,), prepared.pools))
    assert isinstance(failed, ev.SeatsFailed)
    assert failed.reason.split(":")[0] in {"version", "inputs", "nsequence", "nlocktime"}


def test_keys_that_are_gone_are_named_and_no_pool_is_left() -> None:
    world = everybody_moved(3)
    held, signer = handed_over(world)
    n_before = len(signer._clients_pools)
    scope = scope_of(world.old.attempt.tree.root_node)
    seats = seat_keys(world.factory, scope, scope.clients)
    kept = world.pump.lsp.handed_over_keys.entries.pop((world.old.number, 2))
    prepare = fx.PrepareSeats(attempt_id=bytes(32), close_id=bytes(32), seats=seats, pool_size=1)
    assert held.perform(prepare) == (
        ev.SeatsLacking(asked=prepare, problems=((2, "not there any more"),)),
    )
    assert len(signer._clients_pools) == n_before
    world.pump.lsp.handed_over_keys.put(kept)


# Who stayed


@pytest.mark.parametrize("n_clients", [2, 5])
def test_whatever_is_above_the_channel_of_who_stayed_needs_its_own_key(n_clients: int) -> None:
    """With every other key in one hand: an n-of-n stays one as long as one of them is not."""
    world = dying_world(n_clients)
    *movers, stayer = world.pump.clients
    for mover in movers:
        world.move(mover)
    world.pump.mine()
    attempt, seat = world.old.attempt, world.seat(stayer)
    assert world.factory.held_keys == set(range(1, n_clients + 1)) - {seat}
    own = attempt.seats[seat - 1]
    branch = attempt.branch(seat)
    assert branch.root_node.tx.inputs[0].outpoint == attempt.funding_outpoint
    for node in branch.nodes:
        assert own.factory_pubkey in node.spends.signers
        leaf = node.spends.tapleaf
        # Beside the key path there is at most the LSP's own, from the expiry on: as before.
        assert leaf is None or attempt.terms.expiry_height.to_bytes(3, "little").rstrip(
            b"\0"
        ) in leaf.script.rstrip(b"\0")
    assert own.channel.funding_pubkey in world.link(stayer).setting.funding.pubkeys
    assert world.link(stayer).state.accepter_msat == BALANCE_MSAT


def test_who_stayed_leaves_alone_while_all_others_are_gone() -> None:
    world = dying_world(3)
    *movers, stayer = world.pump.clients
    for mover in movers:
        world.move(mover)
    world.pump.mine()
    world.pump.handle(stayer, ev.ExitRequested(attempt_id=world.old_id))
    world.pump.mine(world.attempt(stayer).branch.exit_blocks + 20)
    script = world.attempt(stayer).join.payout_script
    (coin,) = [
        out
        for _, txs in world.pump.chain.blocks
        for tx in txs
        for out in tx.outputs
        if out.script_pubkey == script
    ]
    assert coin.amount_sat > BALANCE_MSAT // 1000 - 1_000


def test_a_client_that_kept_copies_is_punished_for_an_old_commitment_as_ever() -> None:
    """All it can sign with them needs the LSP's key, too; what it holds signed is its old state."""
    world = dying_world(2)
    mover, stayer = world.pump.clients
    rich = world.link(mover).finished.tx
    world.move(mover)
    world.pump.mine()
    assert world.factory.held_keys == {world.seat(mover)}
    world.pump.handle(stayer, ev.ExitRequested(attempt_id=world.old_id))
    world.pump.mine(20)
    channel = world.old.attempt.setting(world.seat(mover)).funding.outpoint
    assert channel.txid in world.pump.chain.confirmed
    world.pump.chain.broadcast(rich)
    world.pump.mine(3)
    outputs = [rich.outpoint(vout) for vout, out in enumerate(rich.outputs) if out.amount_sat > 330]
    takers = [
        tx
        for _, txs in world.pump.chain.blocks
        for tx in txs
        for tx_in in tx.inputs
        if tx_in.outpoint in outputs
    ]
    assert takers
    wallet = world.pump.lsp.state.wallet
    ours = {coin.txout.script_pubkey for coin in wallet.coins.values()}
    assert all(
        out.script_pubkey in ours for tx in takers for out in tx.outputs if out.amount_sat > 330
    )
    assert sum(out.amount_sat for tx in takers for out in tx.outputs) > BALANCE_MSAT // 1000


def test_all_keys_but_one_steal_nothing_from_who_stayed() -> None:
    """An LSP that signs whatever it can, by its own door: no output above the stayer's channel."""
    world = dying_world(3)
    *movers, stayer = world.pump.clients
    for mover in movers:
        world.move(mover)
    world.pump.mine()
    seat = world.seat(stayer)
    held, signer = handed_over(world)
    for node in world.old.attempt.branch(seat).nodes:
        scope = scope_of(node)
        payouts = [Payout(script_pubkey=LSP_SCRIPT, due_msat=0) for _ in scope.clients]
        theft = build_close(scope, payouts, lsp_script=LSP_SCRIPT, feerate_sat_per_kw=FEERATE).tx
        clients = own_seats(world.factory, scope)
        assert set(clients) == set(scope.clients) - {seat}
        own = signer.make_pool(FactoryKey(attempt=world.old.attempt.key_attempt), 1)
        keys = seat_keys(world.factory, scope, clients)
        prepare = fx.PrepareSeats(attempt_id=bytes(32), close_id=bytes(32), seats=keys, pool_size=1)
        (prepared,) = held.perform(prepare)
        assert isinstance(prepared, ev.SeatsPrepared)
        pools = (own, *prepared.pools)
        aggnonce = aggregate_nonces({pool.pubkey: pool.pubnonces[0] for pool in pools})
        (signed,) = held.perform(_sign(scope, (theft,), (aggnonce,), prepared.pools))
        assert isinstance(signed, ev.SeatsSigned)
        task = scope.task(theft)
        parts = [signer.partial_sign(own.pool_id, 0, task, aggnonce)]
        parts += [partial_sig for (partial_sig,) in signed.partial_sigs]
        signature = task.session(aggnonce).partial_sig_agg(parts)
        with pytest.raises(InvalidSignature):
            scope.signed(theft, signature)
