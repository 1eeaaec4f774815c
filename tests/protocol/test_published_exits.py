"""What is published of a way out, by whom: step by step, and of the channel at its end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advanced import Step, kickoff_of
from tests.protocol.old_states import sold, state_of
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_coins_for_htlcs import EPHEMERAL
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_looked_after import pending
from tests.protocol.test_what_a_client_leaves import at_rest
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT, only_expiry, pending_for

from cromford import effects as fx
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import Tx, TxOut
from cromford.changed import changed
from cromford.channel.content import CommitmentContent
from cromford.channel.stage import Edition
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.exiting.channel import exit_effects_of, spend_of
from cromford.protocol.exiting.client import arriving_of_attempt_sat, exit_effects, in_hand
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees

FEES: Final = OwnFees()
PATH: Final = ["kickoff_root", "state_root", "kickoff_1", "state_1"]
LEAVES: Final = {"is_exiting": True}
RESTS: Final = {"is_exiting": True, "is_paused": True}


def only_attempt(state: ClientState) -> ClientAttempt:
    (attempt,) = state.attempts.values()
    return attempt


def only_link(state: ClientState) -> Link:
    (link,) = state.book.ordered_links
    return link


def on_way(state: ClientState, n_steps: int, *then: Tx, blocks: int = 20) -> ClientState:
    """Return a client that sees the first steps of its way out in blocks, and what follows them."""
    chain = state.chain
    for tx in (*only_attempt(state).signed_branch.txs[:n_steps], *then):
        chain = buried(chain, blocks, tx)
    return replace(state, chain=chain)


def having(state: ClientState, **changes: Any) -> ClientState:
    """Return a client whose channel is otherwise."""
    link = changed(only_link(state), **changes)
    links = state.book.links.set(link.channel_id, link)
    return replace(state, book=replace(state.book, links=links))


def effects(state: ClientState, **changes: Any) -> tuple[fx.Effect, ...]:
    """Return what a client publishes whose attempt is otherwise."""
    attempt = changed(only_attempt(state), **changes)
    state = replace(state, attempts={attempt.attempt_id: attempt})
    return exit_effects(state, attempt, FEES)


def names(found: tuple[fx.Effect, ...]) -> list[str]:
    """Return the names of what is published, or signed to be published: and nothing else is."""
    kinds = (fx.Broadcast, fx.SignTakingTx)
    assert all(isinstance(one, kinds) for one in found)
    published = [one.name for one in found if isinstance(one, fx.Broadcast)]
    return published + [one.spend.name for one in found if isinstance(one, fx.SignTakingTx)]


# The way to the channel


def test_who_leaves_takes_every_step_and_who_stays_only_what_is_raced() -> None:
    """Else an older state could come first. Who rests does as who stays."""
    states = [[], [PATH[1]], [], [PATH[3]], []]
    for n_steps, raced in enumerate(states):
        there = on_way(pending(), n_steps)
        assert names(effects(there)) == raced
        assert names(effects(there, **RESTS)) == raced
        assert names(effects(there, **LEAVES)) == [*PATH, "commitment"][n_steps : n_steps + 1]


def test_who_may_not_publish_the_path_takes_no_step_of_it() -> None:
    """What a restored store has of it may be superseded. Below it all is as ever."""
    for n_steps in range(len(PATH) + 1):
        there = on_way(pending(), n_steps)
        holding = in_hand(there, only_attempt(there))
        found = exit_effects_of(
            holding, there.chain, fees=FEES, is_exiting=True, publishes_path=False
        )
        assert names(found) == (["commitment"] if n_steps == len(PATH) else [])
        leaves = exit_effects_of(holding, there.chain, fees=FEES, is_exiting=True)
        assert len(leaves) == 1, "as a rule it may, and an exit does not rest"


def test_while_the_lsp_is_asked_for_newer_states_the_one_of_our_store_is_held_back() -> None:
    """The states above it are nobody's to replace, and what is below it is published as ever."""
    awaited = {"awaits_states": True}
    for state, path in ((at_rest(), PATH[:2]), (pending(), PATH)):
        told = [
            names(effects(on_way(state, n_steps), **LEAVES, **awaited))
            for n_steps in range(len(path) + 1)
        ]
        assert told == [*([name] for name in path[:-1]), [], ["commitment"]]


def test_nothing_is_published_of_a_way_that_leads_nowhere_any_more() -> None:
    state = pending()
    for n_steps, node in enumerate(only_attempt(state).branch.nodes):
        swept = on_way(state, n_steps, spending(node.tx.inputs[0].outpoint))
        assert effects(swept, **LEAVES) == ()
        assert effects(swept) == ()


# The commitment


@dataclass(frozen=True, kw_only=True)
class Published:
    """Whether our commitment is published, and whether a child may pay for it."""

    is_there: bool
    is_paid: bool = False


NOT: Final = Published(is_there=False)
PAID: Final = Published(is_there=True, is_paid=True)
AS_IT_IS: Final = Published(is_there=True)


def commitment(state: ClientState, **changes: Any) -> Published:
    found = effects(state, **changes)
    if not found:
        return NOT
    (one,) = found
    assert isinstance(one, fx.Broadcast)
    assert one.tx == only_link(state).finished.tx
    return Published(is_there=True, is_paid=one.bumping is not None)


def test_our_commitment_is_published_to_leave_or_for_a_peer_that_lost_state() -> None:
    """For such a peer nothing is paid: who has less to lose than it does not hurry."""
    there = on_way(at_rest(), 2)
    assert commitment(there) == NOT
    assert commitment(there, **RESTS) == NOT
    assert commitment(there, **LEAVES) == PAID
    owing = having(there, peer_is_behind=True)
    assert commitment(owing) == AS_IT_IS
    assert commitment(owing, **RESTS) == AS_IT_IS
    assert commitment(owing, **LEAVES) == PAID
    assert commitment(having(at_rest(), peer_is_behind=True)) == NOT, "no output of it is there"


@pytest.mark.parametrize("is_owed", [False, True])
def test_a_commitment_that_may_be_revoked_is_withheld_from_everybody(*, is_owed: bool) -> None:
    there = having(on_way(at_rest(), 2), peer_is_behind=is_owed)
    for changes in ({"mark": StoreMark()}, {"is_behind": True}):
        assert commitment(having(there, **changes), **LEAVES) == NOT
        assert commitment(having(there, **changes)) == NOT
    risky = having(there, mark=StoreMark(), publishes_stale=True)
    assert commitment(risky, **LEAVES) == PAID
    proven = having(there, mark=StoreMark(), publishes_stale=True, is_behind=True)
    assert commitment(proven, **LEAVES) == NOT


@cache
def free() -> ClientState:
    """Return a client with an HTLC of its own, in a factory where nothing pays for itself."""
    pump = live_factory(3, policy=EPHEMERAL)
    alice, _ = pending_for(pump, "payer", WORTH_MSAT)
    state: ClientState = alice.state
    return state


def test_where_a_commitment_pays_nothing_itself_a_child_pays_for_whoever_owes_it() -> None:
    there = on_way(free(), 4, blocks=500)
    assert commitment(there) == NOT
    assert commitment(there, **LEAVES) == PAID
    assert commitment(having(there, peer_is_behind=True)) == PAID


def at_expiry(state: ClientState) -> ClientState:
    """Return a client whose commitment came into a block just before its only HTLC expired."""
    expiry = only_expiry(only_link(state))
    chain = replace(state.chain, recent=up_to(pending().chain, expiry - 200).recent)
    there = on_way(replace(state, chain=chain), 4, blocks=500 if state is free() else 20)
    chain = replace(there.chain, recent=up_to(pending().chain, expiry - 2).recent)
    return replace(there, chain=buried(chain, 2, only_link(state).finished.tx))


@pytest.mark.parametrize("client", [pending, free])
def test_what_expired_is_taken_though_the_balance_still_waits(
    client: Callable[[], ClientState],
) -> None:
    there = at_expiry(client())
    assert names(effects(there)) == ["htlc_timeout accepter 0"]
    assert names(effects(there, **LEAVES)) == ["htlc_timeout accepter 0"]
    tip = there.chain.recent[-1]
    before = replace(there.chain, recent=(replace(tip, height=tip.height - 1),))
    assert effects(replace(there, chain=before)) == ()


def test_an_htlc_transaction_that_pays_nothing_itself_takes_the_coins_set_aside_for_it() -> None:
    there = at_expiry(free())
    (bare,) = effects(there)
    assert isinstance(bare, fx.SignTakingTx)
    assert len(bare.spend.inputs) == len(bare.spend.tx.inputs) == 1
    coin = next(iter(there.wallet.unspent.values()))
    spent = SpentCoin(outpoint=coin.outpoint, txout=coin.txout, path=coin.path)
    purse = Purse(coins=(spent,), change_script=there.wallet.next_script(True))
    outpoint = bare.spend.tx.inputs[0].outpoint
    paid_for = replace(there, purses=Map({outpoint: purse}))
    (paid,) = effects(paid_for)
    assert isinstance(paid, fx.SignTakingTx)
    assert [tx_in.outpoint for tx_in in paid.spend.tx.inputs] == [outpoint, coin.outpoint]


# What was signed


def signed(*outputs: TxOut) -> tuple[fx.SignTakingTx, Tx]:
    """Return what was asked to be signed, and a transaction with these outputs beside its own."""
    (asked,) = effects(at_expiry(pending()))
    assert isinstance(asked, fx.SignTakingTx)
    assert isinstance(asked.bumping, Bumping)
    return asked, replace(asked.spend.tx, outputs=(*asked.spend.tx.outputs, *outputs))


def test_what_has_an_anchor_is_paid_for_by_a_child_and_else_replaces_what_waits() -> None:
    """What has none was signed anew for this block, and pays what is asked in it."""
    asked, tx = signed(TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT))
    assert spend_of(asked, tx) == fx.Broadcast(
        name="htlc_timeout accepter 0", tx=tx, replaces=False, bumping=asked.bumping
    )
    asked, tx = signed()
    bare = replace(tx, outputs=tx.outputs[:1])
    assert spend_of(asked, bare) == fx.Broadcast(
        name="htlc_timeout accepter 0", tx=bare, replaces=True, bumping=None
    )


# What a cheat published


@dataclass(frozen=True, kw_only=True)
class Cheated:
    """A client whose LSP brought a commitment on chain that it had revoked."""

    state: ClientState
    link: Link
    tx: Tx
    content: CommitmentContent

    @property
    def recalled(self) -> ev.CommitmentRecalled:
        asked = fx.RecallCommitment(channel_id=self.link.channel_id, number=self.content.number)
        return ev.CommitmentRecalled(asked=asked, content=self.content)


@cache
def cheated() -> Cheated:
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    before = lsp_link(pump, newest_link(alice))
    assert pay(pump, pump.lsp, alice, WORTH_MSAT).status == "paid"
    state: ClientState = alice.state
    return Cheated(
        state=on_way(state, 2, before.finished.tx, blocks=8),
        link=newest_link(alice),
        tx=before.finished.tx,
        content=before.state.content(before.me, Edition.SIGNED),
    )


def test_what_a_cheat_published_is_looked_up_first_and_then_taken_as_a_whole() -> None:
    """Its balance there is the least of what it gets: nothing is taken before all is known."""
    at = cheated()
    attempt = only_attempt(at.state)
    asked = fx.RecallCommitment(channel_id=at.link.channel_id, number=at.content.number)
    assert exit_effects(at.state, attempt, FEES) == (asked,)
    assert arriving_of_attempt_sat(at.state, attempt) == 0
    found = client_role.decide(at.state, at.recalled)
    assert found.records == (cr.BreachFound(channel_id=at.link.channel_id, content=at.content),)
    assert names(found.effects) == ["penalty", "sweep"]
    taken = [one for one in found.effects if isinstance(one, fx.SignTakingTx)]
    worth = {vout: out.amount_sat for vout, out in enumerate(at.tx.outputs) if vout > 0}
    assert {tx_in.outpoint for one in taken for tx_in in one.spend.tx.inputs} == {
        at.tx.outpoint(vout) for vout in worth
    }
    assert arriving_of_attempt_sat(found.state, attempt) == sum(worth.values())
    again = client_role.decide(found.state, at.recalled)
    assert (again.records, again.effects) == ((), ()), "it is known"


# What a store forgot


def test_a_commitment_that_a_restored_store_lacks_pays_its_balance_all_the_same() -> None:
    """Its key never changes. Who lost nothing sees there what it can take nothing of."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    state: ClientState = alice.state
    assert pay(pump, pump.lsp, alice, WORTH_MSAT).status == "paid"
    later = lsp_link(pump, newest_link(alice)).finished.tx
    marked = having(on_way(state, 2, later, blocks=8), mark=StoreMark())
    (taken,) = effects(marked)
    assert isinstance(taken, fx.SignTakingTx)
    assert [tx_in.outpoint.txid for tx_in in taken.spend.tx.inputs] == [later.txid]
    arriving_sat = (FIRST_MSAT + WORTH_MSAT) // 1000
    assert arriving_of_attempt_sat(marked, only_attempt(marked)) == arriving_sat
    elsewhere = on_way(state, 2, spending(only_link(state).present.outpoint), blocks=8)
    assert effects(elsewhere) == ()
    assert arriving_of_attempt_sat(elsewhere, only_attempt(elsewhere)) == 0


# A state that was replaced


def test_of_a_state_that_was_replaced_a_client_publishes_its_poisons_and_no_commitment() -> None:
    """The poison pays all of the channel. The LSP has none, and what it signed pays both."""
    pump, done = sold(Step.HELD)
    alice, _ = pump.clients
    attempt = only_attempt(alice.state)
    chain = buried(buried(alice.state.chain, 20, kickoff_of(pump)), 2, state_of(pump, done, 0))
    there = replace(alice.state, chain=chain)
    assert newest_link(alice).is_poisoned(chain)
    found = exit_effects(there, changed(attempt, is_exiting=True), FEES)
    assert sorted(one.split("_")[0] for one in names(found)) == ["channel", "stock"]
    factory = replace(lsp_state(pump).factory(0), chain=chain)
    holding = lsp_exits.in_hand(factory, newest_link(alice).client)
    found = exit_effects_of(holding, chain, fees=FEES, is_exiting=True)
    assert names(found) == ["commitment"]
    assert holding.link.is_poisoned(chain)
