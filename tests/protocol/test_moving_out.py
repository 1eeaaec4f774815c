"""Clients of a factory that dies move themselves, with all that they have."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.protocol.moving_clients import (
    DYING_BLOCKS,
    MOVING,
    POLICY,
    MovingPump,
    factory_with_money,
    links_of,
    mine_to,
    mine_to_dying,
    node_with,
    old_of,
    own_msat,
    told,
)
from tests.protocol.paying_clients import book, open_factory, pay
from tests.protocol.pump import Pump, PumpNode, Tamper

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import LiveHtlc
from cromford.channel.terms import Party
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.channels import lsp as lsp_channels
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.client import is_detour
from cromford.protocol.dying.client import target_of
from cromford.protocol.dying.outlook import outlook_of
from cromford.protocol.exiting.stake import htlcs_at_stake
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.lobby import build as building
from cromford.protocol.lobby import choosing
from cromford.protocol.policy import DyingStep, WhenDying
from cromford.shelf import Shelf
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(7)

ALL_MSAT = (30_000_123, 0, 5_000_000, 330_000)


class StayingPump(Pump):
    """A world whose clients stay in a factory that dies, by their policy."""

    client_kind = node_with(replace(MOVING, when_dying=WhenDying.STAY))


def status_of(client: PumpNode) -> tuple[str, str]:
    """Return where a client stands that moves out of its first factory, and why."""
    outlook = outlook_of(client.state, old_of(client))
    assert outlook is not None
    return outlook.status, outlook.why


def test_everybody_moves_by_itself_with_all_that_it_has() -> None:
    pump = factory_with_money(4, amounts_msat=ALL_MSAT, watches_folds=True)
    mine_to(pump, old_of(pump.clients[0]).lifetime.dying_height - 1)
    assert not any(told(node, dr.PeriodBegan) for node in (pump.lsp, *pump.clients))
    assert all(client.state.wish is None for client in pump.clients)
    mine_to_dying(pump)
    assert len(pump.published) == 2, "the LSP builds the next factory by itself"
    pump.mine()
    for client, amount_msat in zip(pump.clients, ALL_MSAT, strict=True):
        assert own_msat(pump, client) == (0, amount_msat)
        (wish,) = (one for one in told(client, lr.WishMade) if one.moves_from)
        assert wish.capacity_sat == 100_000
        assert len(told(client, dr.MoveStarted)) == (amount_msat > 0)
        assert [one.amount_msat for one in told(client, dr.MoveEnded)] == [amount_msat][
            : amount_msat > 0
        ]
        assert status_of(client) == ("moved", "")
    assert book(pump.lsp).earned_msat == 0, "and it costs nothing"
    n_records = [len(client.store.entries) for client in pump.clients]
    n_joins = [len(told(client, lr.JoinSent)) for client in pump.clients]
    pump.mine(20)
    after = [len(client.store.entries) for client in pump.clients]
    n_new = [b - a for a, b in zip(n_records, after, strict=True)]
    assert n_new == [20 + 2] * 4, "blocks alone; and its keys, handed over and taken, once"
    assert [len(told(client, lr.JoinSent)) for client in pump.clients] == n_joins
    assert len(pump.published) == 2


def test_who_is_away_keeps_all_it_has_and_moves_once_it_is_back() -> None:
    pump = factory_with_money(3, policy=replace(POLICY, min_clients=1))
    alice, bob, carol = pump.clients
    carol_link = links_of(pump, carol)[0]
    pump.disconnect(carol)
    pump.blind.add(carol.name)
    mine_to_dying(pump)
    pump.mine(30)
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert links_of(pump, bob)[0].state.accepter_msat == 0
    lsp_side = book(pump.lsp).links[carol_link.channel_id]
    assert lsp_side.state.accepter_msat == 5_000_000, "nothing of hers changes"
    assert book(carol).links[carol_link.channel_id].signature == carol_link.signature
    pump.blind.clear()
    pump.sync()
    pump.connect(carol)
    pump.run()
    assert [one.period for one in told(carol, dr.PeriodBegan)] == ["dying"]
    assert len(pump.published) == 3, "she is built for as soon as all who are here wait"
    pump.mine()
    assert own_msat(pump, carol) == (0, 5_000_000)


def test_without_a_next_factory_everybody_waits_and_leaves_at_the_deadline() -> None:
    pump = factory_with_money(2, policy=replace(POLICY, min_clients=3))
    alice, bob = pump.clients[:2]
    assert status_of_none(alice)
    mine_to_dying(pump)
    pump.mine(DYING_BLOCKS - 1)
    assert status_of(alice) == ("waiting", "in the lobby, until the LSP builds the next factory")
    assert len(told(alice, lr.JoinSent)) == 2, "one join for each factory, and no more"
    pump.mine()
    (left,) = told(alice, xr.ExitStarted)
    assert left.reason == "the exit deadline"
    assert not told(bob, xr.ExitStarted), "there is nothing to leave for"
    assert alice.state.wish is None
    assert bob.state.wish is None
    assert not pump.lsp.state.house.members
    assert status_of(alice)[0] == "over"


def status_of_none(client: PumpNode) -> bool:
    return outlook_of(client.state, old_of(client)) is None


@pytest.mark.sampled(0)
def test_without_move_in_its_policy_an_lsp_builds_nothing_by_itself() -> None:
    pump = factory_with_money(2, policy=replace(POLICY, dying_policy=(DyingStep.SWEEP,)))
    mine_to_dying(pump)
    pump.mine(DYING_BLOCKS - 2)
    assert len(pump.published) == 1
    assert len(pump.lsp.state.house.members) == 2, "they ask all the same"
    pump.build(min_clients=2)
    pump.run()
    assert len(pump.published) == 2, "and its operator may build"


def test_a_funding_that_leaves_the_chain_in_the_middle_is_waited_for() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    with pump.tampering(lost_adds):
        pump.mine()
        assert own_msat(pump, alice) == (ALL_MSAT[0], 0), "it is on its way"
        undo(pump, 1)
        assert target_of(alice.state, old_of(alice)) is pump.held(alice)
        assert alice.state.wish is None, "no second join"
        pump.mine()
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert len(told(alice, dr.MoveEnded)) == 1
    assert len(pump.published) == 2


def test_one_that_never_comes_back_is_given_up_at_half_of_the_dying_period() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    pump.mine()
    new = pump.held(alice)
    half = old_of(alice).lifetime.share_height(50)
    without = replace(alice.state, chain=replace(alice.state.chain, confirmed=Shelf()))
    for height, is_waited_for in ((half - 1, True), (half, False)):
        tip = replace(without.chain.recent[-1], height=height)
        state = replace(without, chain=replace(without.chain, recent=(tip,)))
        found = target_of(state, old_of(alice))
        assert (found == new) is is_waited_for, height
        assert (found is None) is not is_waited_for


def lost_adds(_sender: PumpNode, _receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
    return () if isinstance(message, m.UpdateAddHtlc | m.CommitmentSigned) else (message,)


def undo(pump: Pump, n_blocks: int) -> None:
    pump.chain.remove_tip(n_blocks)
    for node in (pump.lsp, *pump.clients):
        for _ in range(n_blocks):
            height = (node.state.scan if node is pump.lsp else node.state.chain).height
            pump.handle(node, ev.BlockRemoved(height=height))
    pump.run()


def test_a_join_that_is_refused_is_tried_again_after_six_blocks_and_not_before() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]

    def refused(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.Joined) and receiver is alice:
            return (m.Refused(factory_pubkey=message.factory_pubkey, reason="not today"),)
        return () if receiver is alice and isinstance(message, m.Propose) else (message,)

    n_before = len(told(alice, lr.JoinSent))
    with pump.tampering(refused):
        mine_to_dying(pump)
        why = "the LSP refused: not today; asked again 6 blocks later"
        assert status_of(alice) == ("waiting", why)
        pump.mine(5)
        assert len(told(alice, lr.JoinSent)) == n_before + 1
    pump.deadlines.clear()
    pump.mine()
    assert len(told(alice, lr.JoinSent)) == n_before + 2


def test_whoever_refuses_the_next_factory_says_so_and_spoils_one_in_six_blocks() -> None:
    """Joining again at once, it would end the same ceremony for everybody, as often as it may."""
    pump = factory_with_money(2)
    alice, bob = pump.clients
    alice.client_policy = replace(MOVING, min_depth=(5, 12))
    pump.restart(alice)
    pump.run()
    before = [len(told(client, lr.JoinSent)) for client in pump.clients]
    mine_to_dying(pump)
    why = "min_depth: expected 5..12, received 1"
    refused = f"we refused the next factory: {why}; asked again 6 blocks later"
    assert status_of(alice) == ("waiting", refused)
    pump.mine(5)
    after = [len(told(client, lr.JoinSent)) for client in pump.clients]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 2], "one ceremony"
    pump.disconnect(bob)
    pump.mine()
    waits = f"in the lobby, until the LSP builds the next factory; we refused the last one: {why}"
    assert status_of(alice) == ("waiting", waits)
    alice.client_policy = MOVING
    pump.restart(alice)
    pump.connect(bob)
    pump.run()
    pump.mine()
    assert status_of(alice) == ("moved", "")
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])


def test_a_payment_that_is_refused_is_tried_again_and_arrives_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    with monkeypatch.context() as patched:
        patched.setattr(lsp_channels, "is_dying", lambda *_: False)  # It asks its usual price.
        pump.mine()
        (started,) = told(alice, dr.MoveStarted)
        payment = book(alice).payments[started.payment_hash]
        assert payment.failure == Failure.FEE_INSUFFICIENT.reason
        (ended,) = told(alice, dr.MoveEnded)
        assert not ended.is_moved
        assert book(alice).invoices[started.payment_hash].status == "expired"
    pump.mine(5)
    assert len(told(alice, dr.MoveStarted)) == 1
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert len(told(alice, dr.MoveStarted)) == 2
    assert len(told(alice, cr.InvoicePaid)) == 2, "the LSP's first, and this one"


def test_a_balance_that_a_limit_parts_moves_in_several_payments() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    limit_old_channel(pump, alice, max_in_flight_msat=12_000_000)
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    amounts = [one.amount_msat for one in told(alice, dr.MoveEnded)]
    assert amounts == [12_000_000, 12_000_000, 6_000_123]


def limit_old_channel(pump: Pump, client: PumpNode, **limits: int) -> None:
    """Change the limits of a client's old channel, alike at both of its ends."""
    (channel_id,) = (link.channel_id for link in links_of(pump, client))
    for node in (pump.lsp, client):
        assert node.driver is not None
        state = node.driver.state
        holder = state.factories[0] if node is pump.lsp else state
        link = holder.book.links[channel_id]
        terms = replace(link.state.terms, **limits)
        limited = changed(link, state=changed(link.state, terms=terms))
        held = replace(
            holder, book=changed(holder.book, links=holder.book.links.set(channel_id, limited))
        )
        node.driver.state = state.with_factory(held) if node is pump.lsp else held


def test_what_no_channel_can_carry_is_said_once_and_tried_at_each_block() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cromford.protocol.channels.payments.check_offer", refuses)
        pump.mine(4)
    (hindered,) = told(alice, dr.MoveHindered)
    assert hindered.reason == "cltv_expiry"
    assert status_of(alice) == ("waiting", "a channel cannot carry it now: cltv_expiry")
    assert not told(alice, dr.MoveStarted)
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert status_of(alice) == ("moved", "")


def refuses(_link: Link, cltv_expiry: int, *, chain: object, height: int) -> None:
    del chain
    raise UpdateRefused("cltv_expiry", expected=f"at most {height}", received=cltv_expiry)


def test_whoever_has_two_factories_that_die_moves_out_of_both() -> None:
    pump = factory_with_money(2, amounts_msat=(60_000_000, 0))
    open_factory(pump)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, 50_000_000).status == "paid"
    assert own_msat(pump, alice) == (60_000_000, 50_000_000)
    second = list(alice.state.attempts.values())[1]
    mine_to(pump, second.lifetime.dying_height)
    moved_msat = own_msat(pump, alice)
    assert sum(moved_msat) == 110_000_000
    assert moved_msat[1] > 90_000_000, "first into the one that lives longer, as far as it goes"
    pump.mine()
    assert own_msat(pump, alice) == (0, 0, 110_000_000)
    assert links_of(pump, alice)[2].state.capacity_sat == 110_000 + 2_638, "and the reserve"
    assert book(pump.lsp).earned_msat == 0


def test_whoever_has_a_factory_that_lasts_and_is_too_small_moves_on_to_a_third() -> None:
    """What fits goes into the second, and all the rest waits for no exit on chain."""
    pump = factory_with_money(
        2, amounts_msat=(60_000_000, 0), policy=replace(POLICY, min_clients=1)
    )
    mine_to(pump, old_of(pump.clients[0]).lifetime.dying_height - 5)
    open_factory(pump)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, 80_000_000).status == "paid"
    mine_to(pump, old_of(alice).lifetime.share_height(50) - 1)
    assert status_of(alice) == ("waiting", "the new channel cannot receive 330 sat or more of it")
    assert alice.state.wish is None
    pump.mine()
    left_msat, in_second_msat = own_msat(pump, alice)
    assert left_msat > 40_000_000
    assert left_msat + in_second_msat == 140_000_000
    (wish,) = (one for one in told(alice, lr.WishMade) if one.moves_from)
    assert wish.capacity_least_sat > left_msat // 1_000
    assert alice.state.joining is not None
    status, why = status_of(alice)
    assert (status, why) == ("waiting", "in the lobby, until the LSP builds the next factory")
    pump.mine(2)
    assert len([one for one in told(alice, lr.WishMade) if one.moves_from]) == 1
    pump.build()
    pump.run()
    pump.mine(2)
    assert own_msat(pump, alice) == (0, in_second_msat, left_msat)
    assert status_of(alice) == ("moved", "")
    assert alice.state.wish is None


def test_whoever_has_more_than_the_largest_channel_moves_what_fits_and_then_the_rest() -> None:
    """A channel grows by what is bought for it. Nothing would move, and all be left on chain."""
    pump = factory_with_money(
        2, amounts_msat=(60_000_000, 0), policy=replace(POLICY, min_clients=1)
    )
    alice = pump.clients[0]
    largest_sat = 40_000
    with largest_channel(pump, largest_sat):
        mine_to_dying(pump)
        (wish,) = (one for one in told(alice, lr.WishMade) if one.moves_from)
        assert (wish.capacity_sat, wish.capacity_least_sat) == (largest_sat, largest_sat)
        pump.mine(2)
        left_msat, moved_msat = own_msat(pump, alice)
        assert links_of(pump, alice)[1].state.capacity_sat == largest_sat
        assert left_msat + moved_msat == 60_000_000
        assert moved_msat > 35_000_000
        mine_to(pump, old_of(alice).lifetime.share_height(50))
        pump.build()
        pump.run()
        pump.mine(2)
        assert own_msat(pump, alice) == (0, moved_msat, left_msat)
    assert status_of(alice) == ("moved", "")


@contextmanager
def largest_channel(pump: Pump, capacity_sat: int) -> Iterator[None]:
    """Let the LSP offer channels of this capacity at most, and the clients know it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choosing, "capacity_ceiling_sat", lambda _policy: capacity_sat)
        patched.setattr(building, "capacity_ceiling_sat", lambda _policy: capacity_sat)
        for client in pump.clients:
            pump.disconnect(client)
            pump.connect(client)
        pump.run()
        yield


# The operator's word


def test_whoever_leaves_the_lobby_stays_until_it_says_otherwise() -> None:
    pump = factory_with_money(2, policy=replace(POLICY, min_clients=2))
    alice, bob = pump.clients
    pump.disconnect(bob)
    mine_to_dying(pump)
    assert status_of(alice)[0] == "waiting"
    pump.handle(alice, ev.LeaveRequested())
    pump.run()
    assert not pump.lsp.state.house.members
    assert status_of(alice) == ("staying", "its operator says so")
    pump.mine(12)
    assert alice.state.wish is None
    with pytest.raises(Rejected, match="not waiting in the lobby"):
        client_role.decide(alice.state, ev.LeaveRequested())
    pump.connect(bob)
    pump.handle(alice, ev.MoveRequested(attempt_id=old_of(alice).attempt_id))
    pump.run()
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])


def test_by_policy_a_client_stays_until_its_operator_says_otherwise() -> None:
    pump = factory_with_money(2, kind=StayingPump, policy=replace(POLICY, min_clients=1))
    alice = pump.clients[0]
    attempt_id = old_of(alice).attempt_id
    with pytest.raises(Rejected) as early:
        client_role.decide(alice.state, ev.MoveRequested(attempt_id=attempt_id))
    assert early.value.code == "not_dying"
    mine_to_dying(pump)
    pump.mine(30)
    assert status_of(alice) == ("staying", "by its policy")
    assert alice.state.wish is None
    pump.handle(alice, ev.MoveRequested(attempt_id=attempt_id))
    pump.run()
    late = old_of(alice).lifetime.share_height(25)
    mine_to(pump, late - 1)
    assert len(pump.published) == 1, "the other one is connected, and does not come"
    pump.mine()
    assert len(pump.published) == 2
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    with pytest.raises(Rejected) as unknown:
        client_role.decide(alice.state, ev.MoveRequested(attempt_id=bytes(32)))
    assert unknown.value.code == "factory_not_found"


def test_the_operators_wish_goes_before_one_of_its_own() -> None:
    pump = factory_with_money(2)
    alice = pump.clients[0]
    pump.disconnect(pump.clients[1])
    mine_to_dying(pump)
    assert alice.state.wish.moves_from
    assert alice.state.joining.is_accepted
    pump.handle(alice, ev.JoinRequested(capacity_sat=200_000, capacity_least_sat=150_000))
    pump.run()
    wish = alice.state.wish
    assert (wish.capacity_sat, wish.moves_from) == (200_000, b"")
    pump.connect(pump.clients[1])
    pump.run()
    pump.mine()
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert links_of(pump, alice)[1].state.capacity_sat == 200_000


def test_a_configured_capacity_is_asked_for_and_never_less_than_the_balance_needs() -> None:
    for wanted_sat, asked_sat in ((20_000, 32_639), (70_000, 70_000)):
        policy = replace(MOVING, moving_capacity_sat=wanted_sat)
        kind = type("WantingPump", (MovingPump,), {"client_kind": node_with(policy)})
        pump = factory_with_money(2, kind=kind)
        mine_to_dying(pump)
        (wish,) = (one for one in told(pump.clients[0], lr.WishMade) if one.moves_from)
        assert (wish.capacity_sat, wish.capacity_least_sat) == (asked_sat, 32_639)


# Nobody is paid in its own place


def test_what_was_offered_to_move_is_at_stake_until_its_preimage_was_shown() -> None:
    """From there on it is the LSP's, and nobody leaves the old channel for it."""
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)

    def without(*lost: type[m.Message]) -> Tamper:
        def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
            del by
            (old, *_) = links_of(pump, alice)
            new_loses = to is alice and isinstance(message, lost)
            in_old = getattr(message, "channel_id", None) == old.channel_id
            return () if new_loses and in_old else (message,)

        return tamper

    with pump.tampering(without(m.UpdateFulfillHtlc)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("cromford.protocol.channels.client.is_detour", lambda *_: True)
            pump.mine()
            assert not told(alice, dr.MoveEnded), "it is given back, and that waits for its hold"
            old, _ = links_of(pump, alice)
            (htlc,) = htlcs_at_stake(book(alice), old)
            assert htlc.amount_msat == ALL_MSAT[0]
        pump.mine(7)
        old, new = links_of(pump, alice)
        assert balance_of(new).own_msat == ALL_MSAT[0]
        assert [live.htlc.amount_msat for live in old.state.htlcs] == [ALL_MSAT[0]]
        assert not htlcs_at_stake(book(alice), old)


def test_what_comes_back_in_a_channel_that_dies_is_not_taken() -> None:
    """It would move nothing, and the client would begin again and again."""
    pump = factory_with_money(2)
    alice = pump.clients[0]
    mine_to_dying(pump)
    pump.mine()
    old, new = links_of(pump, alice)
    (started,) = told(alice, dr.MoveStarted)
    htlc = Htlc(
        offered_by=Party.OPENER,
        htlc_id=7,
        amount_msat=started.amount_msat,
        payment_hash=started.payment_hash,
        cltv_expiry=5_000,
    )
    mine, theirs = (LiveHtlc(htlc=one) for one in (htlc, replace(htlc, payment_hash=bytes(32))))
    for link, live, is_one in (
        (old, mine, True),
        (new, mine, False),
        (old, theirs, False),
        (new, theirs, False),
    ):
        assert is_detour(alice.state, link, live) is is_one


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("killed", "first"), [("client", 1), ("client", 2), ("lsp", 3)])
def test_a_process_killed_at_any_step_of_a_move_delays_it_only(killed: str, first: int) -> None:
    """Sampled: some steps of a whole move, from the first block of the dying period on."""
    n_deaths = 0
    for fuse in range(first, 120, 40):
        pump = factory_with_money(2, policy=replace(POLICY, active_blocks=144, ready_min_blocks=9))
        alice = pump.clients[0]
        mine_to(pump, old_of(alice).lifetime.dying_height - 1)
        node = pump.lsp if killed == "lsp" else alice
        node.fuse = fuse
        pump.mine()
        node_died = node.n_deaths
        pump.mine(8)
        for client in pump.clients:
            pump.disconnect(client)
            pump.connect(client)
        pump.run()
        pump.mine(7)
        assert own_msat(pump, alice)[0] == 0, fuse
        assert sum(own_msat(pump, alice)) == ALL_MSAT[0], fuse
        assert book(pump.lsp).earned_msat == 0, fuse
        paid = [one for one in told(alice, dr.MoveEnded) if one.is_moved]
        assert sum(one.amount_msat for one in paid) == ALL_MSAT[0], fuse
        n_deaths += node_died
    assert n_deaths > 0
