"""A close that somebody refuses, spoils, or goes away from: it ends, and freezes nobody."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.attacks import flipped
from tests.protocol.closes import (
    STEPS,
    ask_for_close,
    below_the_other_child,
    changing,
    check_all_is_paid,
    check_nobody_is_stuck,
    closable_factory,
    close,
    ended,
    finished,
    limit_of,
    links,
    losing,
    under_way,
)
from tests.protocol.paying_clients import make_invoice, open_factory, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.signing.nonces import NoPoolFree
from cromford.told import msat
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(8)

ANSWERS: Final = (m.CloseAgree, m.CloseSign)
Change = Callable[[Any], Sequence[m.Message]]


def check_it_ended_for_everybody(pump: Pump) -> None:
    """Check that nothing was finished, nobody is stuck, and channels take updates again.

    Who signed, by its own record or the LSP's, receives no more than that pays; its payer hears of
    it, and has its money back.
    """
    assert not finished(pump.lsp)
    assert len(ended(pump.lsp)) == 1
    check_nobody_is_stuck(pump)
    is_free = all(limit_of(pump, one) is None for both in links(pump).values() for one in both)
    for payer, payee in ((1, 2), (2, 1)):
        begun = pay(pump, pump.client_at(payer), pump.client_at(payee), 1_000_000)
        assert begun.status == "paid" or (not is_free and begun.status == "failed")
    for own, theirs in links(pump).values():
        assert own.is_open
        assert theirs.is_open
        assert own.state.is_quiet
        assert not own.state.htlcs


def refusing(message: Any) -> Sequence[m.Message]:
    return (m.CloseEnd(close_id=message.close_id, reason="no"),)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seat", [1, 2])
@pytest.mark.parametrize("step", ANSWERS)
def test_a_refusal_at_any_step_by_anybody_freezes_nobody(step: type[m.Message], seat: int) -> None:
    pump = closable_factory(2)
    refuser = pump.client_at(seat)
    with pump.tampering(changing(refuser, step, refusing)):
        close(pump)
    (record,) = ended(pump.lsp)
    assert record.reason == f"client {seat} refused: no"
    assert record.culprits == (refuser.node_id,)
    assert not record.is_fault
    for client in pump.clients:
        assert len(ended(client)) == (client is not refuser)
    pump.pass_deadline(refuser, fx.CloseDeadline(close_id=record.close_id))
    check_it_ended_for_everybody(pump)


def pass_deadlines(pump: Pump) -> None:
    """Let the LSP's deadline pass, which is the nearer one, then those of clients that wait."""
    due = pump.deadlines_of(fx.CloseDeadline)
    for node, deadline in sorted(due, key=lambda one: one[0] is not pump.lsp):
        pump.pass_deadline(node, deadline)
        pump.run()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seat", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_silence_at_any_step_ends_it_by_a_deadline(step: type[m.Message], seat: int) -> None:
    pump = closable_factory(2)
    silent = pump.client_at(seat)
    with pump.tampering(losing(step, of=lambda node: node is silent)):
        close(pump)
        pass_deadlines(pump)
    if step is m.Closed:
        # It holds what it signed, and hears of the rest in its next connection.
        assert len(finished(pump.lsp)) == 1
        assert not finished(silent)
        pump.disconnect(silent)
        pump.connect(silent)
        pump.run()
        assert len(finished(silent)) == 1
        check_nobody_is_stuck(pump)
        return
    (record,) = ended(pump.lsp)
    assert record.culprits == (silent.node_id,)
    assert f"no answer from clients [{seat}]" in record.reason
    check_it_ended_for_everybody(pump)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seat", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_ends_at_any_step_ends_it_or_hears_of_it_later(
    step: type[m.Message], seat: int
) -> None:
    pump = closable_factory(2)
    leaver = pump.client_at(seat)
    ask_for_close(pump)
    pump.run_to(step)
    pump.disconnect(leaver)
    pump.run()
    pump.connect(leaver)
    pump.run()
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    if finished(pump.lsp):
        assert step is m.Closed
        assert all(len(finished(client)) == 1 for client in pump.clients)
    else:
        assert f"client {seat} disconnected" in ended(pump.lsp)[0].reason
        check_it_ended_for_everybody(pump)


def test_who_signed_may_go_and_the_close_goes_on() -> None:
    pump = closable_factory(2)
    first, last = pump.client_at(1), pump.client_at(2)
    held: list[m.Message] = []

    def hold(message: Any) -> Sequence[m.Message]:
        held.append(message)
        return ()

    with pump.tampering(changing(last, m.CloseSign, hold)):
        close(pump)
    assert under_way(pump).holdouts == (2,)
    pump.disconnect(first)
    pump.tell(pump.lsp, last, held[0])
    pump.run()
    assert len(finished(pump.lsp)) == 1
    pump.connect(first)
    pump.run()
    assert len(finished(first)) == 1
    check_nobody_is_stuck(pump)


# Whoever lies


def with_pool(**changes: Any) -> Change:
    return lambda message: (replace(message, pool=replace(message.pool, **changes)),)


def with_nonces(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Change:
    def changed(message: Any) -> Sequence[m.Message]:
        pool = replace(message.pool, pubnonces=change(message.pool.pubnonces))
        return (replace(message, pool=pool),)

    return changed


BAD_WORDS: Final[dict[str, tuple[Change, str]]] = {
    "another key": (with_pool(pubkey=b"\x02" * 33), "nonces of another key"),
    "a nonce short": (with_nonces(lambda nonces: nonces[:1]), "1 nonces for 2 options"),
    "a nonce more": (with_nonces(lambda nonces: (*nonces, nonces[0])), "3 nonces for 2 options"),
    "no points": (with_nonces(lambda nonces: (bytes(66), nonces[1])), "not two points"),
    "another script": (
        lambda message: (replace(message, payout_script=b"\x51\x20" + bytes(32)),),
        "another payout script",
    ),
    "a second word": (
        lambda message: (message, replace(message, balance_msat=message.balance_msat + 1)),
        "a second, different agreement",
    ),
}
BAD_SIGNS: Final[dict[str, tuple[Change, str]]] = {
    "one short": (
        lambda message: (replace(message, partial_sigs=message.partial_sigs[:1]),),
        "1 of 2 partial signatures",
    ),
    "no scalar": (
        lambda message: (replace(message, partial_sigs=(b"\xff" * 32,) * 2),),
        "no scalar",
    ),
    "a second": (
        lambda message: (
            message,
            replace(message, partial_sigs=message.partial_sigs[::-1]),
        ),
        "second, different partial signatures",
    ),
    "a bad one": (
        lambda message: (
            replace(
                message, partial_sigs=(message.partial_sigs[0], flipped(message.partial_sigs[1]))
            ),
        ),
        "close_1: bad partial_sig",
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("what", [*BAD_WORDS, *BAD_SIGNS])
def test_who_spoils_a_close_is_named_and_everybody_else_goes_on(what: str) -> None:
    pump = closable_factory(2)
    liar = pump.client_at(1)
    step = m.CloseAgree if what in BAD_WORDS else m.CloseSign
    change, said = {**BAD_WORDS, **BAD_SIGNS}[what]
    with pump.tampering(changing(liar, step, change)):
        close(pump)
    (record,) = ended(pump.lsp)
    assert record.is_fault
    assert record.culprits == (liar.node_id,)
    assert record.reason.startswith("client 1: ")
    assert said in record.reason
    assert pump.lsp.driver is not None
    check_it_ended_for_everybody(pump)


def test_of_several_who_signed_the_one_whose_part_is_bad_is_named() -> None:
    pump = closable_factory(3)
    liar = pump.client_at(2)
    change, said = BAD_SIGNS["a bad one"]
    with pump.tampering(changing(liar, m.CloseSign, change)):
        close(pump)
    (record,) = ended(pump.lsp)
    assert (record.reason, record.culprits) == (f"client 2: {said}", (liar.node_id,))


@pytest.mark.parametrize("extra_msat", [-1, 1])
def test_a_word_that_is_not_what_the_channel_owes_ends_it(extra_msat: int) -> None:
    pump = closable_factory(2)
    liar = pump.client_at(1)
    with pump.tampering(
        changing(
            liar,
            m.CloseAgree,
            lambda word: (replace(word, balance_msat=word.balance_msat + extra_msat),),
        )
    ):
        close(pump)
    due_msat = links(pump)[1][0].state.accepter_msat
    due, wanted = msat(due_msat), msat(due_msat + extra_msat)
    said = f"client 1: balance_msat: expected {due}, received {wanted}"
    assert ended(pump.lsp)[0].reason == said
    check_it_ended_for_everybody(pump)


def test_a_signature_before_the_proposal_ends_it() -> None:
    pump = closable_factory(2)
    hasty = pump.client_at(1)

    def sign_first(word: Any) -> Sequence[m.Message]:
        return (m.CloseSign(close_id=word.close_id, partial_sigs=(bytes(32),) * 2), word)

    with pump.tampering(changing(hasty, m.CloseAgree, sign_first)):
        close(pump)
    assert "a signature of what was not proposed" in ended(pump.lsp)[0].reason
    check_it_ended_for_everybody(pump)


@pytest.mark.parametrize(
    "message",
    [
        m.CloseSign(close_id=b"\x07" * 32, partial_sigs=(bytes(32),)),
        m.CloseEnd(close_id=b"\x07" * 32, reason="what?"),
    ],
)
def test_what_is_said_of_an_unknown_close_changes_nothing(message: m.CloseMessage) -> None:
    pump = closable_factory(2)
    ask_for_close(pump)
    n_entries = len(pump.lsp.store.entries)
    pump.tell(pump.lsp, pump.client_at(1), message)
    assert len(pump.lsp.store.entries) == n_entries
    pump.run()
    assert len(finished(pump.lsp)) == 1


def test_whoever_has_no_seat_has_no_say_in_a_close() -> None:
    pump = closable_factory(2)
    ask_for_close(pump)
    end = m.CloseEnd(close_id=under_way(pump).close_id, reason="from nowhere")
    event = ev.MessageReceived(node_id=b"\x03" + b"\x09" * 32, message=end)
    assert lsp_role.decide(pump.lsp.state, event).records == ()


@pytest.mark.parametrize(
    "message",
    [
        m.CloseBegin(attempt_id=bytes(32), close_id=bytes(32), outpoint=bytes(36), options=()),
        m.ClosePropose(close_id=bytes(32), signers=(), proposals=()),
        m.Closed(attempt_id=bytes(32), close_id=bytes(32), txs=()),
    ],
)
def test_a_client_that_says_what_an_lsp_says_is_parted_from(message: m.CloseMessage) -> None:
    pump = closable_factory(1)
    client = pump.client_at(1)
    pump.tell(pump.lsp, client, message)
    (parting,) = pump.wishes(pump.lsp, fx.Disconnect)
    assert parting.node_id == client.node_id


@pytest.mark.parametrize(
    "message",
    [
        m.CloseAgree(
            close_id=bytes(32),
            balance_msat=0,
            payout_script=b"",
            pool=m.Pool(pubkey=b"\x02" * 33, pubnonces=()),
        ),
        m.CloseSign(close_id=bytes(32), partial_sigs=()),
    ],
)
def test_an_lsp_that_says_what_a_client_says_is_parted_from(message: m.CloseMessage) -> None:
    pump = closable_factory(1)
    client = pump.client_at(1)
    pump.lsp_says(client, message)
    assert len(pump.wishes(client, fx.Disconnect)) == 1


# Twice, out of order, too late


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", STEPS)
def test_every_message_may_come_twice(step: type[m.Message]) -> None:
    pump = closable_factory(2)

    def twice(_sender: PumpNode, _receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return (message, message) if isinstance(message, step) else (message,)

    with pump.tampering(twice):
        close(pump)
    assert len(finished(pump.lsp)) == 1
    assert all(len(finished(client)) == 1 for client in pump.clients)
    check_nobody_is_stuck(pump)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", STEPS)
def test_a_message_of_a_close_that_is_over_changes_nothing(step: type[m.Message]) -> None:
    pump = closable_factory(2)
    late: list[tuple[PumpNode, PumpNode, m.Message]] = []

    def keep(sender: PumpNode, receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, step):
            late.append((sender, receiver, message))
        return (message,)

    with pump.tampering(keep):
        close(pump)
        pump.disconnect(pump.client_at(1))
        pump.connect(pump.client_at(1))
        pump.run()
    before = [len(finished(node)) for node in (pump.lsp, *pump.clients)]
    for sender, receiver, message in late:
        pump.tell(receiver, sender, message)
    pump.run()
    assert [len(finished(node)) for node in (pump.lsp, *pump.clients)] == before == [1, 1, 1]
    check_nobody_is_stuck(pump)


@pytest.mark.parametrize("lost", [m.ClosePropose, m.CloseSign])
def test_after_a_close_without_a_signature_only_who_signed_has_a_limit(
    lost: type[m.Message],
) -> None:
    """What the LSP does not have it cannot finish with: it caps nobody else.

    A client that signed keeps to its own record, whatever became of its message.
    """
    pump = closable_factory(2)
    alice, bob = pump.client_at(1), pump.client_at(2)
    due = {seat: link.state.accepter_msat for seat, (link, _) in links(pump).items()}
    with pump.tampering(losing(lost, of=lambda node: node is bob)):
        close(pump)
        pass_deadlines(pump)
    limits = {
        seat: (limit_of(pump, own), limit_of(pump, theirs))
        for seat, (own, theirs) in links(pump).items()
    }
    has_signed = lost is m.CloseSign
    assert limits == {1: (due[1], due[1]), 2: (due[2] if has_signed else None, None)}
    request = make_invoice(pump, alice, 1)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match="close: expected at most 0 sat more"):
        pump.lsp.driver.handle(request)
    for amount_msat in (1, 1_000_000):
        paid = pay(pump, pump.lsp, bob, amount_msat)
        assert paid.status == ("failed" if has_signed else "paid"), "the LSP offered it"
    owed_more_msat = 0 if has_signed else 1_000_001
    own, theirs = links(pump)[2]
    assert own.state.accepter_msat == theirs.state.accepter_msat == due[2] + owed_more_msat
    check_nobody_is_stuck(pump)


def test_a_second_close_with_less_is_signed_and_binds_by_the_less() -> None:
    pump = closable_factory(4)
    vertex = below_the_other_child(pump)
    first, last = vertex.first.shape.clients
    refuser = pump.client_at(last)
    with pump.tampering(changing(refuser, m.CloseSign, refusing)):
        close(pump, vertex=vertex.first.name)
        # What the refuser signed all the same is over by its deadline.
        pass_deadlines(pump)
        (neighbour,) = {2, 3, 4} - {first, last}
        begun = pay(pump, pump.client_at(first), pump.client_at(neighbour), 100_000)
        assert begun.status == "paid"
        less = links(pump)[first][0].state.accepter_msat
        close(pump, vertex=vertex.first.name)
    own, theirs = links(pump)[first]
    assert limit_of(pump, own) == limit_of(pump, theirs) == less
    assert len(own.closes) == len(theirs.closes) == 1, "there is one for each outpoint"


def test_an_lsp_without_room_for_nonces_ends_the_close_and_not_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = closable_factory(2)
    signer = pump.lsp.signer
    assert signer is not None

    def no_room(*_args: Any, **_named: Any) -> Any:
        raise NoPoolFree("4096 nonce pools are held")

    with monkeypatch.context() as patched:
        patched.setattr(signer, "make_pool", no_room)
        close(pump)
    assert "our signer: 4096 nonce pools are held" in ended(pump.lsp)[0].reason
    close(pump)
    assert len(finished(pump.lsp)) == 1


def test_a_client_agrees_to_so_many_closes_in_a_few_blocks_and_no_more() -> None:
    """An LSP that begins anew for ever would fill its clients' journals."""
    pump = closable_factory(1)
    client = pump.client_at(1)
    with pump.tampering(losing(m.CloseAgree, of=lambda _: True)):
        for _ in range(16):
            close(pump)
            pass_deadlines(pump)
    pump.run()
    close(pump)
    assert "expected fewer closes" in ended(pump.lsp)[-1].reason
    assert not finished(client)
    pump.mine(6)
    close(pump)
    assert len(finished(client)) == 1


def test_a_finished_close_under_the_name_of_another_factorys_keeps_no_channel_quiet() -> None:
    """An LSP names its closes itself: what is agreed on in one factory ends with no other's."""
    pump = closable_factory(1)
    (client,) = pump.clients
    first = pump.attempt.attempt_id
    open_factory(pump)
    lost: list[m.Closed] = []

    def lose(message: m.Closed) -> Sequence[m.Message]:
        lost.append(message)
        return ()

    with pump.tampering(changing(pump.lsp, m.Closed, lose)):
        pump.handle(pump.lsp, ev.CloseRequested(attempt_id=first))
        pump.run()
    ask_for_close(pump)
    pump.run_to(m.CloseAgree)
    under_way = client.state.closing.values()
    (closing,) = (one for one in under_way if one.attempt_id != first)
    pump.lsp_says(client, replace(lost[0], close_id=closing.close_id))
    assert closing.close_id in client.state.closing
    pump.pass_deadline(client, fx.CloseDeadline(close_id=closing.close_id))
    assert closing.close_id not in client.state.closing
    assert not any(link.quiet_for for link in client.state.book.links.values())
    pump.lsp_says(client, lost[0])
    assert set(client.state.closed) == {lost[0].close_id}
