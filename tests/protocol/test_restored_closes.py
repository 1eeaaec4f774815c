"""Closes with restored stores: who says what is owed, who takes it, and what liars gain by it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.closes import (
    changing,
    check_all_is_paid,
    check_nobody_is_stuck,
    close,
    ended,
    finished,
    losing,
    mine_until_on_chain,
)
from tests.protocol.paying_clients import balance, live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import (
    FIRST_MSAT,
    QUICK,
    backup_of,
    begin_payment_to_absent,
    coins_sat,
    is_marked_at,
    link_of,
    live_through,
    restore,
)
from tests.protocol.test_closing import kicked_off, rejected
from tests.protocol.test_marked_channels import (
    SIDES,
    UPDATES_MSAT,
    backups,
    side_of,
    used_factory,
)
from tests.protocol.unanswered import mine_to

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import stands_still
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.closing import restored as rs
from cromford.protocol.closing.rules import NOT_NOW
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.policy import DyingStep
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(9)

# Alice's balance after each update is about 40, 43, 37 and 40 million msat, less what her payment
# costs. So a store that lacks one update knows less than she has, one that lacks two or three more.


def paid_to(pump: Pump, client: PumpNode) -> list[int]:
    """Return what each transaction of the finished close pays a client, in sat."""
    (record,) = finished(pump.lsp)
    script = pump.held(client).join.payout_script
    return [
        sum(output.amount_sat for output in tx.outputs if output.script_pubkey == script)
        for tx in map(Tx.parse, record.txs)
    ]


def check_closed_at(pump: Pump, alice_msat: int) -> None:
    """Check that a close pays Alice this, is in the next block, and that she is owed no more."""
    alice, bob = pump.clients
    bob_sat = newest_link(bob).state.accepter_msat // 1000
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    assert set(paid_to(pump, alice)) == {alice_msat // 1000}
    assert set(paid_to(pump, bob)) == {bob_sat}
    pump.mine(1)
    (record,) = finished(pump.lsp)
    spender = pump.factory.chain.spends[OutPoint.parse(record.outpoint)]
    assert spender.serialize() in record.txs
    assert coins_sat(alice) == alice_msat // 1000
    for node in (pump.lsp, *pump.clients):
        confirmed = [one for one in node.store.remembered if isinstance(one, cl.CloseConfirmed)]
        assert [one.txid for one in confirmed] == [spender.txid]
    pump.mine(6)
    for node in (alice, pump.lsp):
        pump.restart(node)
    pump.run()
    pump.mine(1)
    assert coins_sat(alice) == alice_msat // 1000
    confirmed = [one for one in pump.lsp.store.remembered if isinstance(one, cl.CloseConfirmed)]
    assert len(confirmed) == 1, "nothing is owed any more, and the mark does not matter"


def balances_named(pump: Pump, client: PumpNode) -> list[int]:
    return [message.balance_msat for message in pump.sent(client, m.CloseAgree)]


# A restored client


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_lost", [0, 1])
def test_a_restored_client_names_no_balance_and_is_paid_what_its_whole_lsp_says(
    n_lost: int,
) -> None:
    pump, past = used_factory(watches_folds=True)
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1 - n_lost]))
    assert least_close_msat(newest_link(alice)) == past.alice_msat[-1 - n_lost]
    close(pump)
    assert balances_named(pump, alice) == [m.NO_BALANCE]
    check_closed_at(pump, past.alice_msat[-1])


@pytest.mark.parametrize("n_lost", [2, 3])
def test_a_restored_client_that_knew_of_more_refuses_and_tells_nobody_of_how_much(
    n_lost: int,
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1 - n_lost]))
    assert past.alice_msat[-1 - n_lost] > past.alice_msat[-1]
    close(pump)
    assert not finished(pump.lsp)
    (reason,) = [one.reason for one in ended(pump.lsp)]
    assert "payout_sat: expected what our restored store says or more" in reason
    assert str(past.alice_msat[-1 - n_lost] // 1000) not in reason
    assert newest_link(alice).closes == (), "nothing was signed"
    check_nobody_is_stuck(pump)
    assert is_marked_at(pump, alice)
    assert newest_link(pump.clients[1]).is_open, "others go on"


def proposing(pump: Pump, alice: PumpNode, paid_sat: int) -> Any:
    """Return what changes what the LSP proposes to Alice: her payout, and its own instead."""
    script = pump.held(alice).join.payout_script

    def change(message: m.ClosePropose) -> Sequence[m.Message]:
        proposals = []
        for proposal in message.proposals:
            tx = Tx.parse(proposal.tx)
            (place,) = (
                number for number, output in enumerate(tx.outputs) if output.script_pubkey == script
            )
            outputs = list(tx.outputs)
            taken_sat = outputs[place].amount_sat - paid_sat
            outputs[place] = replace(outputs[place], amount_sat=paid_sat)
            outputs[-2] = replace(outputs[-2], amount_sat=outputs[-2].amount_sat + taken_sat)
            tx = replace(tx, outputs=tuple(outputs))
            proposals.append(replace(proposal, tx=tx.serialize()))
        return (replace(message, proposals=tuple(proposals)),)

    def to_alice(by: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if by is pump.lsp and to is alice and isinstance(message, m.ClosePropose):
            return change(message)
        return (message,)

    return to_alice


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("more_sat", "is_signed"), [(-1, False), (0, True), (1, True)])
def test_a_restored_client_signs_its_least_balance_to_the_satoshi(
    more_sat: int,
    *,
    is_signed: bool,
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    least_sat = past.alice_msat[-2] // 1000
    with pump.tampering(proposing(pump, alice, least_sat + more_sat)):
        close(pump)
    signed = [one for one in alice.store.remembered if isinstance(one, cl.CloseSigned)]
    assert [one.balance_msat for one in signed] == [1000 * (least_sat + more_sat)] * is_signed
    limits = [one.balance_msat for one in newest_link(alice).closes]
    assert limits == [1000 * (least_sat + more_sat)] * is_signed


def test_an_lsp_that_searches_by_falling_numbers_ends_at_the_least_balance_and_no_lower() -> None:
    """What it gains is what a stale store is worth against it; each try is seen by its victim."""
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    low, high = 0, past.alice_msat[-1] // 1000
    n_tries = 0
    while high - low > 1:
        tried = (low + high) // 2
        n_before = len(newest_link(alice).closes)
        with pump.tampering(proposing(pump, alice, tried)):
            close(pump)
        n_tries += 1
        assert pump.factory.closing is None
        is_signed = bool(newest_link(alice).closes) and (
            newest_link(alice).closes[-1].balance_msat == 1000 * tried
        )
        assert n_before <= len(newest_link(alice).closes)
        low, high = (low, tried) if is_signed else (tried, high)
        pump.mine(1)
    assert high == past.alice_msat[-2] // 1000
    assert not finished(pump.lsp)
    least = min(one.balance_msat for one in newest_link(alice).closes)
    assert least == 1000 * high
    assert len(ended(alice)) == n_tries, "each of them is in its journal"


def test_two_payouts_of_one_close_are_not_what_a_restored_client_signs() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    script = pump.held(alice).join.payout_script

    def split(message: m.ClosePropose) -> Sequence[m.Message]:
        proposals = []
        for proposal in message.proposals:
            tx = Tx.parse(proposal.tx)
            own = next(output for output in tx.outputs if output.script_pubkey == script)
            halves = [
                half
                for output in tx.outputs
                for half in (
                    (
                        replace(output, amount_sat=1_000),
                        replace(output, amount_sat=own.amount_sat - 1_000),
                    )
                    if output is own
                    else (output,)
                )
            ]
            proposals.append(replace(proposal, tx=replace(tx, outputs=tuple(halves)).serialize()))
        return (replace(message, proposals=tuple(proposals)),)

    with pump.tampering(changing(pump.lsp, m.ClosePropose, split)):
        close(pump)
    assert not finished(pump.lsp)
    assert newest_link(alice).closes == ()


# A restored LSP


def test_a_restored_lsp_takes_its_whole_clients_number_that_leaves_it_what_it_knows() -> None:
    pump, past = used_factory(watches_folds=True)
    alice = pump.clients[0]
    # The bob's channel of that backup is one payment older, too: he is owed less than he has.
    restore(pump, (pump.lsp, past.lsp[-1]))
    close(pump)
    assert balances_named(pump, alice) == [past.alice_msat[-1]]
    check_closed_at(pump, past.alice_msat[-1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("more_msat", "is_paid"), [(-1, True), (0, True), (1, False)])
def test_a_restored_lsp_refuses_a_number_that_takes_what_it_knows_to_be_its_own(
    more_msat: int,
    *,
    is_paid: bool,
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (pump.lsp, past.lsp[-1]))
    link = link_of(pump, pump.lsp)
    most_msat = link.state.opener_msat + link.state.accepter_msat - least_close_msat(link)
    assert most_msat == past.alice_msat[-1]
    assert (rs.problem_with_word(link, most_msat + more_msat) is None) == is_paid

    def lie(message: m.CloseAgree) -> Sequence[m.Message]:
        return (replace(message, balance_msat=most_msat + more_msat),)

    with pump.tampering(changing(alice, m.CloseAgree, lie)):
        close(pump)
    assert bool(pump.sent(pump.lsp, m.ClosePropose)) == is_paid
    if not is_paid:
        (reason,) = [one.reason for one in ended(pump.lsp)]
        assert reason == f"client {link.client}: {rs.TOO_LITTLE_FOR_US}"
        check_nobody_is_stuck(pump)
        assert is_marked_at(pump, pump.lsp)


def test_who_lost_two_updates_is_refused_or_pays_by_what_its_client_says() -> None:
    pump, past = used_factory()
    restore(pump, (pump.lsp, past.lsp[-3]))
    link = link_of(pump, pump.lsp)
    assert rs.problem_with_word(link, past.alice_msat[-1]) is None, "it knew of more for her"
    assert rs.problem_with_word(link, past.alice_msat[-3] + 1) == rs.TOO_LITTLE_FOR_US


def test_a_client_that_names_nothing_to_a_restored_lsp_is_refused_by_name() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (pump.lsp, past.lsp[-1]))

    def dumb(message: m.CloseAgree) -> Sequence[m.Message]:
        return (replace(message, balance_msat=m.NO_BALANCE),)

    with pump.tampering(changing(alice, m.CloseAgree, dumb)):
        close(pump)
    (reason,) = [one.reason for one in ended(pump.lsp)]
    whose = f"client {link_of(pump, pump.lsp).client}"
    assert reason == f"{whose}: {rs.NO_NUMBER}"
    told = {
        one.node_id == alice.node_id: one.message.reason
        for one in pump.wishes(pump.lsp, fx.Send)
        if isinstance(one.message, m.CloseEnd)
    }
    assert told == {True: reason, False: f"{whose}: {NOT_NOW}"}, "nobody else hears of restores"


# Both


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("n_alice", "n_lsp"), [(0, 0), (1, 1), (1, 0), (2, 1)])
def test_two_restored_stores_close_at_the_balance_of_the_later_one(
    n_alice: int, n_lsp: int
) -> None:
    pump, past = used_factory(watches_folds=True)
    alice, bob = pump.clients
    bobs = backup_of(bob)
    restore(pump, (alice, past.alice[-1 - n_alice]), (pump.lsp, past.lsp[-1 - n_lsp]))
    if n_lsp:
        bob_msat = newest_link(bob).state.accepter_msat
        link = pump.lsp.state.book.links[newest_link(bob).channel_id]
        if rs.problem_with_word(link, bob_msat) is not None:
            restore(pump, (bob, bobs))
    later_msat = past.alice_msat[-1 - min(n_alice, n_lsp)]
    close(pump)
    assert balances_named(pump, alice) == [later_msat]
    check_closed_at(pump, later_msat)


def test_two_restored_stores_that_were_not_compared_are_refused_by_name() -> None:
    pump, past = used_factory()
    with pump.tampering(losing(m.MarkRevealed, of=lambda _: True)):
        restore(pump, (pump.clients[0], past.alice[-2]), (pump.lsp, past.lsp[-1]))
    refusal = rejected(pump)
    assert refusal.code == "channel_not_ready"
    assert f"client {link_of(pump, pump.lsp).client}: {rs.NOT_COMPARED}" in str(refusal)


# HTLCs


@pytest.mark.parametrize("restored", ["client", "lsp", "both"])
def test_an_htlc_that_somebody_who_knows_has_is_in_the_way(restored: str) -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    begin_payment_to_absent(pump, alice, bob)
    assert newest_link(alice).state.htlcs
    nodes = {"client": [alice], "lsp": [pump.lsp], "both": [alice, pump.lsp]}[restored]
    restore(pump, *((node, backup_of(node)) for node in nodes))
    client = link_of(pump, pump.lsp).client
    assert f"client {client}: an HTLC is pending" in str(rejected(pump))


def test_an_htlc_that_only_a_restored_client_has_counts_as_its_own_if_it_offered_it() -> None:
    """It came back since: the whole LSP pays for it. Had it been paid, the client would refuse."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    begin_payment_to_absent(pump, alice, bob)
    backup = backup_of(alice)
    pump.pass_holds()
    assert not newest_link(alice).state.htlcs
    assert balance(alice).own_msat == FIRST_MSAT
    restore(pump, (alice, backup))
    assert newest_link(alice).state.htlcs
    close(pump)
    check_all_is_paid(pump)
    assert set(paid_to(pump, alice)) == {FIRST_MSAT // 1000}


# What was signed and is forgotten


def forgotten_close(pump: Pump, alice: PumpNode) -> list[Any]:
    """Let a close be finished of which Alice hears no end; return her store of before it."""
    backup = backup_of(alice)
    with pump.tampering(losing(m.Closed, of=lambda node: node is alice)):
        close(pump)
        assert len(finished(pump.lsp)) == 1
        assert not finished(alice)
    return backup


def test_a_close_that_a_restored_client_forgot_is_believed_for_what_it_pays() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    backup = forgotten_close(pump, alice)
    pump.chain.mempool.clear()
    restore(pump, (alice, backup))
    assert len(finished(alice)) == 1
    link = newest_link(alice)
    assert is_frozen(link.closes, alice.state.chain)
    assert stands_still(link, alice.state.chain)
    check_closed_at(pump, past.alice_msat[-1])


def test_one_that_pays_less_than_its_store_says_it_does_not_publish_and_knows_in_a_block() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(losing(m.Closed, of=lambda node: node is alice)):
        close(pump)
    restore(pump, (alice, past.alice[-3]))
    assert past.alice_msat[-3] > past.alice_msat[-1]
    assert not finished(alice)
    assert not is_frozen(newest_link(alice).closes, alice.state.chain)
    pump.mine(1)
    assert len(finished(alice)) == 1
    assert is_frozen(newest_link(alice).closes, alice.state.chain)
    assert coins_sat(alice) == past.alice_msat[-1] // 1000
    confirmed = [one for one in alice.store.remembered if isinstance(one, cl.CloseConfirmed)]
    assert [one.amount_sat for one in confirmed] == [past.alice_msat[-1] // 1000]


def test_a_transaction_of_the_tree_is_no_forgotten_close() -> None:
    """Everybody signed the root's kickoff, and it pays Alice nothing that she could spend."""
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1]))
    signed = pump.attempt.signed
    assert signed is not None
    root = signed.tree.txs["kickoff_root"]
    closed = m.Closed(
        attempt_id=pump.attempt.attempt_id,
        close_id=b"\x07" * 32,
        txs=(m.ClosedTx(tx=root.serialize()),),
    )
    pump.tell(alice, pump.lsp, closed)
    pump.chain.broadcast(root)
    pump.mine(1)
    assert not finished(alice)
    assert not finished(pump.lsp)


def test_a_restored_lsp_knows_in_a_block_the_close_that_it_forgot() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    close(pump)
    (record,) = finished(pump.lsp)
    restore(pump, (pump.lsp, past.lsp[-1]))
    pump.mine(1)
    (known,) = finished(pump.lsp)
    assert set(known.txs) < set(record.txs)
    assert set(known.channels) == set(record.channels)
    for client in pump.clients:
        link = newest_link(client)
        lsps = pump.lsp.state.book.links[link.channel_id]
        assert is_frozen(lsps.closes, pump.factory.chain)
    pump.mine(6)
    assert coins_sat(alice) == past.alice_msat[-1] // 1000
    assert rejected(pump).code == "output_not_there"


# Where the channel alone is left, and what comes after


def on_chain(pump: Pump) -> OutPoint:
    """Let Bob leave, until Alice's channel is on chain, too; return its output."""
    alice, bob = pump.clients
    outpoint = newest_link(alice).setting.funding.outpoint
    kicked_off(pump, next(seat for seat in (1, 2) if pump.client_at(seat) is bob))
    mine_until_on_chain(pump, outpoint)
    return outpoint


def test_two_restored_stores_close_a_channel_on_chain_by_its_two_funding_keys() -> None:
    """Neither publishes a commitment: it is the only way out of that output without a risk."""
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1]), (pump.lsp, past.lsp[-1]))
    outpoint = on_chain(pump)
    close(pump, client=link_of(pump, pump.lsp).client)
    assert set(paid_to(pump, alice)) == {past.alice_msat[-1] // 1000}
    pump.mine(1)
    (record,) = finished(pump.lsp)
    assert OutPoint.parse(record.outpoint) == outpoint
    assert pump.factory.chain.spends[outpoint].serialize() in record.txs
    assert coins_sat(alice) == past.alice_msat[-1] // 1000


@SIDES
def test_on_chain_whoever_is_whole_publishes_its_commitment_and_a_close_beside_it_pays_the_same(
    side: str,
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    node, other = side_of(pump, side)
    restore(pump, (node, backups(past, side)[-1]))
    outpoint = on_chain(pump)
    close(pump, client=link_of(pump, pump.lsp).client)
    assert set(paid_to(pump, alice)) == {past.alice_msat[-1] // 1000}
    pump.mine(8)
    assert pump.factory.chain.spends[outpoint].txid == link_of(pump, other).finished.tx.txid
    assert not is_frozen(link_of(pump, pump.lsp).closes, pump.factory.chain), "it is void by then"
    assert is_marked_at(pump, node)
    assert not link_of(pump, node).takes_updates


@SIDES
def test_an_old_copy_that_its_peer_proved_to_be_old_is_closed_likewise(side: str) -> None:
    """It was put back by hand: nothing in it says so, and the numbers of the other one do."""
    pump, past = used_factory()
    bob = pump.clients[1]
    node, other = side_of(pump, side)
    n_lost = 1 if side == "client" else 2
    restore(pump, (node, backups(past, side)[-1 - n_lost]), is_told=False)
    assert not is_marked_at(pump, node)
    assert link_of(pump, node).is_behind
    assert link_of(pump, other).peer_is_behind
    if side == "lsp":
        bobs = pump.lsp.state.book.links[newest_link(bob).channel_id]
        assert bobs.is_behind
        assert rs.problem_with_word(bobs, newest_link(bob).state.accepter_msat) is not None
        assert rs.problem_with_word(link_of(pump, pump.lsp), past.alice_msat[-1]) is None
        return
    close(pump)
    check_closed_at(pump, past.alice_msat[-1])


def test_the_dying_policy_closes_with_a_restored_client() -> None:
    policy = replace(
        QUICK,
        dying_policy=(DyingStep.CLOSE, DyingStep.SWEEP),
        dying_blocks=288,
        failed_channel_blocks=2_000,
    )
    pump = live_factory(2, policy=policy)
    past = live_through(pump, UPDATES_MSAT)
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    mine_to(pump, pump.factory.lifetime.dying_height)
    assert len(finished(pump.lsp)) == 1
    assert set(paid_to(pump, alice)) == {past.alice_msat[-1] // 1000}
    pump.mine(1)
    assert coins_sat(alice) == past.alice_msat[-1] // 1000


def test_a_restored_lsp_that_forgot_a_close_gives_its_name_to_no_other() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(losing(m.CloseSign, of=lambda node: node is not alice)):
        close(pump)
    assert newest_link(alice).closes
    restore(pump, (pump.lsp, past.lsp[-1]))
    pump.mine(1)
    close(pump)
    check_closed_at(pump, past.alice_msat[-1])
    assert len(alice.state.intents) >= 2


def test_a_close_that_ends_leaves_the_mark_and_its_limit() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1]))
    with pump.tampering(losing(m.CloseSign, of=lambda node: node is alice)):
        close(pump)
    attempt = pump.factory.closing
    assert attempt is not None
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert not finished(pump.lsp)
    link = newest_link(alice)
    assert is_marked_at(pump, alice)
    assert not link.takes_updates
    assert [one.balance_msat for one in link.closes] == [past.alice_msat[-1] // 1000 * 1000]
    pump.handle(alice, ev.StoreProven())
    assert not is_marked_at(pump, alice)
    assert [one.balance_msat for one in newest_link(alice).closes], "what was signed binds"
