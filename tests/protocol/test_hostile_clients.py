"""Clients that spoil ceremonies with each other's help: each is named, and nobody else ever is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.crypto.integers import ORDER
from tests.protocol.attacks import PHASES, proposed, to_lsp
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_ceremony import check_nothing_is_shared

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.wire import messages as m

N_FLOOD: Final = 20
Colluders = tuple[PumpNode, PumpNode]
Plot = Callable[[Pump, Colluders], None]


def halves_of(message: m.Message) -> m.PartialSigs:
    assert isinstance(message, m.SignBelow)
    return message.candidates[0]


def say(pump: Pump, sender: PumpNode, message: m.Message, halves: m.PartialSigs) -> None:
    """Let a client send other partial signatures than its own."""
    assert isinstance(message, m.SignBelow)
    pump.tell(pump.lsp, sender, replace(message, candidates=(halves,)))


def spoil(halves: m.PartialSigs, by: int = 1) -> m.PartialSigs:
    """Make the first partial signature, of the root's state, wrong by so much."""
    wrong = (int.from_bytes(halves.partial_sigs[0], "big") + by) % ORDER
    sigs = (wrong.to_bytes(32, "big"), *halves.partial_sigs[1:])
    return replace(halves, partial_sigs=sigs)


def held_below(pump: Pump, colluders: Sequence[PumpNode]) -> dict[str, m.Message]:
    """Run until everybody signed below the root; keep what the colluders wanted to send."""
    held: dict[str, m.Message] = {}

    def hold(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if sender in colluders and isinstance(message, m.SignBelow):
            held[sender.name] = message
            return ()
        return (message,)

    with pump.tampering(hold):
        pump.run()
    return held


def both_spoil_the_same(pump: Pump, colluders: Colluders) -> None:
    held = held_below(pump, colluders)
    # By different amounts: errors that cancel out are none, and spoil nothing.
    for by, one in enumerate(colluders, start=1):
        say(pump, one, held[one.name], spoil(halves_of(held[one.name]), by))


def each_sends_the_others(pump: Pump, colluders: Colluders) -> None:
    held = held_below(pump, colluders)
    for one, other in (colluders, colluders[::-1]):
        say(pump, one, held[one.name], halves_of(held[other.name]))


def one_sends_the_others_and_the_other_its_own(pump: Pump, colluders: Colluders) -> None:
    held = held_below(pump, colluders)
    one, other = colluders
    say(pump, other, held[other.name], halves_of(held[other.name]))
    say(pump, one, held[one.name], halves_of(held[other.name]))


def one_swaps_two_sessions(pump: Pump, colluders: Colluders) -> None:
    held = held_below(pump, colluders)
    one, other = colluders
    halves = halves_of(held[one.name])
    swapped = (*halves.partial_sigs[1::-1], *halves.partial_sigs[2:])
    say(pump, other, held[other.name], halves_of(held[other.name]))
    say(pump, one, held[one.name], replace(halves, partial_sigs=swapped))


def both_send_those_of_the_last_attempt(pump: Pump, colluders: Colluders) -> None:
    stale = held_below(pump, colluders)
    request = fx.PartialSign(attempt_id=pump.attempt.attempt_id, requests=())
    pump.handle(pump.lsp, ev.SigningFailed(asked=request, reason="none of theirs"))
    pump.run()
    pump.join_again()
    pump.build()
    held = held_below(pump, colluders)
    for one in colluders:
        say(pump, one, held[one.name], halves_of(stale[one.name]))


def one_is_silent_about_what_the_other_spoils(pump: Pump, colluders: Colluders) -> None:
    held = held_below(pump, colluders)
    one, _ = colluders
    say(pump, one, held[one.name], spoil(halves_of(held[one.name])))
    deadline = fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)
    pump.pass_deadline(pump.lsp, deadline)


PLOTS: Final[list[Plot]] = [
    both_spoil_the_same,
    each_sends_the_others,
    one_sends_the_others_and_the_other_its_own,
    one_swaps_two_sessions,
    both_send_those_of_the_last_attempt,
    one_is_silent_about_what_the_other_spoils,
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seats", [(1, 2), (2, 3)], ids=["of one leaf", "of two leaves"])
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_two_who_collude_never_get_an_innocent_named(plot: Plot, seats: tuple[int, int]) -> None:
    """The innocent one ends up in a factory, with fresh keys, whoever else is in it."""
    pump = proposed(3)
    one, other = (pump.client_at(seat) for seat in seats)
    (innocent,) = (client for client in pump.clients if client not in {one, other})
    first = pump.attempt
    plot(pump, (one, other))
    pump.run()
    assert innocent.node_id not in pump.lsp.state.house.faults
    assert innocent.node_id not in pump.lsp.state.house.aborts
    assert {one.node_id, other.node_id} & pump.lsp.state.house.aborts.keys(), "one of them is"
    for _ in range(2):
        if pump.is_funded():
            break
        pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
        pump.run()
    assert pump.is_funded()
    assert innocent.node_id in {seat.node_id for seat in pump.attempt.seats}
    check_nothing_is_shared(pump, first, pump.attempt)


# Whatever a client says, whenever


@pytest.mark.sampled(7)
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("phase", PHASES)
def test_a_message_out_of_its_turn_hurts_nobody_but_who_sends_it(phase: str, place: int) -> None:
    """Of the right attempt, and with contributions that fit nothing."""
    pump = proposed(3)
    pump.run_to(PHASES[phase])
    attempt, sender = pump.attempt, pump.client_at(1)
    message = to_lsp(attempt.attempt_id, attempt.terms.terms_hash)[place]
    pump.tell(pump.lsp, sender, message)
    pump.run()
    house = pump.lsp.state.house
    assert set(house.faults) <= {sender.node_id}
    assert set(house.aborts) <= {sender.node_id}
    assert pump.is_funded()
    taken = {seat.node_id for seat in pump.attempt.seats}
    assert taken >= {client.node_id for client in pump.clients if client is not sender}
    assert (sender.node_id in taken) == (sender.node_id not in house.aborts)


@pytest.mark.parametrize("phase", PHASES)
def test_a_flood_of_a_ceremonys_messages_fills_no_journal(phase: str) -> None:
    """What is repeated says nothing new; what is new ends the attempt, and the rest is dropped."""
    pump = proposed(3)
    pump.run_to(PHASES[phase])
    attempt, sender = pump.attempt, pump.client_at(1)
    ids: Any = {"attempt_id": attempt.attempt_id, "terms_hash": attempt.terms.terms_hash}
    n_before = len(pump.lsp.store.entries)
    for n in range(N_FLOOD):
        partial = n.to_bytes(32, "big")
        for message in (
            m.Acknowledge(**ids),
            m.ChannelReady(**ids, funding_txid=partial),
            m.Resume(**ids),
            m.SignRoot(**ids, partial_sigs=(partial,)),
            m.Leave(factory_pubkey=attempt.seats[0].factory_pubkey),
        ):
            pump.tell(pump.lsp, sender, message)
    assert len(pump.lsp.store.entries) - n_before < 20
    pump.run()
    assert pump.is_funded()
    assert set(pump.lsp.state.house.faults) <= {sender.node_id}
