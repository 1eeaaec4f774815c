"""A client that waits for its LSP: how long, for what, and what it keeps when it stops."""

from dataclasses import replace

import pytest
from tests.protocol.attacks import only_from, proposed
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import Complete
from cromford.protocol.journal.lsp_attempt import SigningRoot
from cromford.wire import messages as m


def test_an_lsp_that_goes_silent_is_told_so_and_the_wish_lives_on() -> None:
    """Below the root nothing can be lost: the attempt ends, and fresh keys join again."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedBelow)
    pump.wire.clear()
    held = pump.held(client)
    old_keys = pump.sent(client, m.Join)[-1].factory_pool.pubkey
    pump.pass_deadline(client, fx.AttemptDeadline(attempt_id=held.attempt_id))
    assert pump.held(client).aborted == "deadline: the LSP went silent"
    assert [abort.attempt_id for abort in pump.sent(client, m.Abort)] == [held.attempt_id]
    assert client.signer is not None
    assert not client.signer._pools
    pump.mine()
    assert pump.sent(client, m.Join)[-1].factory_pool.pubkey != old_keys
    pump.reach_deadline(client, fx.AttemptDeadline(attempt_id=held.attempt_id))
    assert len(pump.sent(client, m.Abort)) == 1, "it ended once"


def test_a_client_whose_own_node_is_silent_says_so_and_the_wish_lives_on() -> None:
    """A node that does not answer has not said that the LSP's coins do not exist."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.answers_coins = False
    pump.run()
    held = pump.held(client)
    assert not pump.sent(client, m.SignBelow)
    pump.pass_deadline(client, fx.AttemptDeadline(attempt_id=held.attempt_id))
    assert pump.held(client).aborted == "deadline: our own node did not answer"
    assert client.state.wish is not None
    pump.answers_coins = True
    pump.mine()
    assert pump.sent(client, m.Join)[-1].factory_pool.pubkey != held.join.factory_pool.pubkey


def behind(n_blocks: int, *, has_coins: bool = False) -> tuple[Pump, PumpNode]:
    """Return a client whose node is so many blocks behind the LSP's, once it asked for coins."""
    pump = Pump(1)
    (client,) = pump.clients
    pump.join()
    pump.answers_coins = False
    pump.blind.add(client.name)
    pump.mine(n_blocks)
    pump.build(min_clients=1)
    pump.run()
    (asked,) = pump.wishes(client, fx.LookUpCoins)
    coins = [(one, pump.chain.coin(one) if has_coins else None) for one in asked.outpoints]
    pump.handle(client, ev.CoinsLookedUp(asked=asked, coins=tuple(coins)))
    pump.run()
    return pump, client


@pytest.mark.parametrize("n_blocks", [1, 6])
def test_a_coin_of_a_block_that_our_node_does_not_have_yet_ends_no_wish(n_blocks: int) -> None:
    """Ours may be slow, or be reached by Tor; with that block the client joins again."""
    pump, client = behind(n_blocks)
    assert client.state.wish is not None
    height = pump.chain.height
    assert pump.held(client).aborted == f"our node lacks block {height}, which the LSP's has"
    assert pump.attempt.aborted is not None
    pump.answers_coins = True
    pump.blind.clear()
    pump.sync()
    pump.run()
    pump.build(min_clients=1)
    pump.run()
    assert pump.is_funded()


@pytest.mark.parametrize("n_blocks", [0, 7])
def test_one_that_no_such_block_can_have_is_refused_by_name(n_blocks: int) -> None:
    pump, client = behind(n_blocks)
    assert client.state.wish is None
    field = "build_height" if n_blocks else "funding_tx.input[0]"
    assert (pump.held(client).aborted or "").startswith(f"refused: {field}: expected ")


def test_a_node_that_is_behind_and_has_the_coins_is_no_reason_to_wait() -> None:
    pump, client = behind(1, has_coins=True)
    assert pump.held(client).aborted is None
    assert pump.is_funded()


@pytest.mark.parametrize("prefix", [b"invoice", b"hold", b"rejoin"])
def test_whatever_id_the_lsp_chooses_its_ceremony_has_a_deadline(
    prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that reads like the name of another thing's deadline must not be taken for it."""
    pump = Pump(1)
    pump.join()
    monkeypatch.setattr(pump.lsp.rng, "randbytes", lambda n: prefix.ljust(n, b"\0"))
    pump.build()
    client = pump.clients[0]
    pump.run_to(m.SignedBelow)
    pump.wire.clear()
    held = pump.held(client)
    assert held.attempt_id.startswith(prefix)
    ((_, deadline),) = (due for due in pump.deadlines if due[0] == client.name)
    pump.pass_deadline(client, deadline)
    assert pump.held(client).aborted == "deadline: the LSP went silent"


def test_a_client_that_signed_the_root_stops_waiting_and_forgets_nothing() -> None:
    """The LSP may hold the root and fund at any time; when the root comes, it is taken."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedRoot)
    (letter,) = pump.wire
    attempt_id = pump.held(client).attempt_id
    pump.pass_deadline(client, fx.AttemptDeadline(attempt_id=attempt_id))
    held = pump.held(client)
    assert (held.given_up, held.aborted) == (True, None)
    assert not pump.sent(client, m.Abort)
    assert held.candidate.watched_txids <= client.state.watched_txids
    pump.run()
    assert letter.message in pump.sent(pump.lsp, m.SignedRoot)
    assert isinstance(client.state.attempts[attempt_id].stage, Complete)
    assert pump.is_funded()
    assert not client.state.attempts[attempt_id].given_up, "its funding is waited for again"
    pump.mine()
    assert client.state.joining is None, "one factory was wished for"


def test_a_complete_branch_has_no_deadline() -> None:
    pump = proposed(1)
    pump.run()
    client = pump.clients[0]
    before = client.state
    pump.reach_deadline(client, fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id))
    assert client.state == before


def test_a_root_that_comes_before_its_time_is_dropped() -> None:
    """A client that has not signed the root holds no exit: it cannot be complete yet."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignBelow)
    held = pump.held(client)
    early = m.SignedRoot(
        attempt_id=held.attempt_id, terms_hash=held.terms_hash, signatures=(bytes(64),)
    )
    pump.tell(client, pump.lsp, early)
    assert pump.held(client) == held
    pump.run()
    assert pump.is_funded(), "and disturbs nothing"


def test_an_attempt_id_is_proposed_once() -> None:
    """An old id with new keys would let one record stand for two factories."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignBelow)
    first = pump.held(client)
    (proposed_first,) = pump.sent(pump.lsp, m.Propose)
    pump.reach_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=first.attempt_id))
    pump.run(until=lambda: client.state.joining is not None)
    joining = client.state.joining
    again = replace(proposed_first, factory_pubkey=joining.join.factory_pool.pubkey)
    ended = pump.held(client)
    pump.tell(client, pump.lsp, again)
    assert pump.held(client) == ended
    assert client.state.joining == joining, "the join still waits for its own proposal"


def test_who_comes_back_before_the_root_is_finished_gets_it_with_the_others() -> None:
    pump = proposed(2)
    early, late = pump.client_at(1), pump.client_at(2)
    held_back: list[m.Message] = []

    def hold(message: m.Message) -> tuple[m.Message, ...]:
        held_back.append(message)
        return ()

    with pump.tampering(only_from(late, hold, m.SignRoot)):
        pump.run()
    assert isinstance(pump.attempt.stage, SigningRoot)
    assert pump.attempt.stage.done == {1}
    pump.restart(early)
    assert pump.sent(early, m.Resume)
    pump.run()
    assert not pump.sent(pump.lsp, m.SignedRoot), "there is nothing to send yet"
    pump.tell(pump.lsp, late, held_back[0])
    pump.run()
    assert isinstance(pump.held(early).stage, Complete)
    assert pump.is_funded()


def test_whoever_holds_its_branch_and_was_away_at_an_abort_hears_of_it_when_it_is_back() -> None:
    """Else it would wait for the funding, with its wish, until its patience ends."""
    pump = proposed(2)
    early, late = pump.client_at(1), pump.client_at(2)
    with pump.tampering(only_from(late, lambda _: (), m.Acknowledge)):
        pump.run()
    held = pump.held(early)
    assert isinstance(held.stage, Complete)
    pump.disconnect(early)
    pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=held.attempt_id))
    pump.run()
    assert pump.attempt.aborted is not None
    assert pump.held(early).aborted is None
    pump.connect(early)
    pump.run()
    aborted = early.state.attempts[held.attempt_id].aborted
    assert aborted is not None
    assert "this attempt is over" in aborted
    assert early.state.joining is not None, "and its wish lives on"


@pytest.mark.parametrize("ends", ["deadline", "the LSP's word"])
def test_a_factory_that_comes_after_all_takes_the_next_join_back(ends: str) -> None:
    """Its LSP was silent, or said that it was over, and funds it: one factory was wished for."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedRoot if ends == "deadline" else m.Acknowledge)
    attempt_id = pump.held(client).attempt_id
    late = list(pump.wire)
    pump.wire.clear()
    if ends == "deadline":
        pump.pass_deadline(client, fx.AttemptDeadline(attempt_id=attempt_id))
        pump.mine()
    else:
        pump.lsp_says(client, m.Abort(attempt_id=attempt_id, reason="not now"))
    joining = client.state.joining
    assert joining is not None, "the wish lives on"
    pump.run()
    pump.wire.extend(late)
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    attempt = client.state.attempts[attempt_id]
    assert attempt.ready_sent
    assert (attempt.given_up, attempt.aborted) == (False, None), "its operator reads that it lives"
    assert (client.state.wish, client.state.joining) == (None, None)
    assert [one.factory_pubkey for one in pump.sent(client, m.Leave)] == [
        joining.join.factory_pool.pubkey
    ]
    pump.build()
    pump.run()
    assert list(client.state.attempts) == [attempt_id]
    pump.join(client)
    pump.build()
    pump.run()
    assert isinstance(pump.held(client).stage, Complete), "another wish is another factory"
    assert len(client.state.attempts) == 2


def test_an_lsp_at_fault_in_what_was_given_up_ends_the_next_join_too() -> None:
    """The wish ends: so nothing of it waits in a lobby, and no nonce is kept for it."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedRoot)
    held = pump.held(client)
    pump.wire.clear()
    pump.pass_deadline(client, fx.AttemptDeadline(attempt_id=held.attempt_id))
    pump.mine()
    joining = client.state.joining
    assert joining is not None
    bad = m.SignedRoot(
        attempt_id=held.attempt_id, terms_hash=held.terms_hash, signatures=(bytes(64),)
    )
    pump.lsp_says(client, bad)
    assert (client.state.wish, client.state.joining) == (None, None)
    assert [one.factory_pubkey for one in pump.sent(client, m.Leave)] == [
        joining.join.factory_pool.pubkey
    ]
    assert client.signer is not None
    assert not client.signer._pools
