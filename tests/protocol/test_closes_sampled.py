"""Closes amid everything else, by dice: whatever comes in between, payouts are what was agreed."""

import random
from typing import Final

import pytest
from tests.protocol.closes import (
    ask_for_close,
    check_all_is_paid,
    check_nobody_is_stuck,
    closable_factory,
    finished,
    links,
)
from tests.protocol.paying_clients import make_invoice, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.seeds import seeds

from cromford import effects as fx
from cromford.protocol.journal import close_records as cl
from cromford.wire import messages as m

N_SEEDS: Final = 4
N_STEPS: Final = 30
TRIES_MAX: Final = 6
MESSAGES_MAX: Final = 12
LOST: Final = (m.CloseBegin, m.CloseAgree, m.ClosePropose, m.CloseSign, m.Closed)


class Life:
    """One world, and the dice that decide what happens in it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(f"closes {seed}")
        self.pump = closable_factory(self.dice.randint(2, 4), order=seed, watches_folds=True)
        self.n_delivered = 0
        self.pump.tamper = self.sometimes_lose

    def sometimes_lose(
        self, _sender: PumpNode, _receiver: PumpNode, message: m.Message
    ) -> tuple[m.Message, ...]:
        """Lose a message of a close now and then, and repeat others."""
        if not isinstance(message, LOST):
            return (message,)
        fate = self.dice.random()
        if fate < 0.05:
            return ()
        return (message, message) if fate < 0.2 else (message,)

    def happen(self) -> None:
        """Let one thing happen."""
        self.dice.choice(
            [
                self.close,
                self.close,
                self.deliver,
                self.deliver,
                self.deliver,
                self.pay,
                self.part,
                self.die,
                self.pass_time,
            ]
        )()

    def someone(self) -> PumpNode:
        return self.dice.choice(self.pump.clients)

    def close(self) -> None:
        """Ask for a close once everybody is there and quiet; it may find that nobody is."""
        for client in self.pump.clients:
            if client.name not in self.pump.links:
                self.pump.connect(client)
        if self.pump.factory.closing is None:
            self.pump.run()
        ask_for_close(self.pump)

    def deliver(self) -> None:
        left = [self.dice.randint(1, MESSAGES_MAX)]

        def enough() -> bool:
            left[0] -= 1
            return left[0] < 0

        self.pump.run(until=enough)

    def pay(self) -> None:
        payer, payee = self.dice.sample(self.pump.clients, 2)
        amount_msat = self.dice.choice((1, 999, 400_000, 3_000_000))
        if newest_link(payee).is_open:
            self.pump.handle(payer, make_invoice(self.pump, payee, amount_msat))

    def part(self) -> None:
        client = self.someone()
        self.pump.disconnect(client)
        if self.dice.random() < 0.8:
            self.pump.connect(client)

    def die(self) -> None:
        node = self.dice.choice([self.pump.lsp, *self.pump.clients])
        node.fuse = self.dice.randint(1, 6)

    def pass_time(self) -> None:
        due = self.pump.deadlines_of(fx.CloseDeadline)
        if due:
            self.pump.pass_deadline(*self.dice.choice(due))
        else:
            self.pump.pass_holds()

    def heal(self) -> None:
        """Let everybody be well, connected, and told of everything."""
        for node in (self.pump.lsp, *self.pump.clients):
            node.fuse = None
        self.pump.tamper = lambda _sender, _receiver, message: (message,)
        for client in self.pump.clients:
            self.pump.disconnect(client)
            self.pump.connect(client)
        self.pump.run()
        self.pump.pass_holds()
        for node, deadline in self.pump.deadlines_of(fx.CloseDeadline):
            self.pump.pass_deadline(node, deadline)
        self.pump.run()


def check_is_what_was_agreed(pump: Pump) -> None:
    """Check each finished close against what each client wrote down that it agreed to."""
    for record in finished(pump.lsp):
        for channel_id, balance_msat in zip(record.channels, record.balances_msat, strict=True):
            for client in pump.clients:
                if newest_link(client).channel_id != channel_id:
                    continue
                (word,) = (
                    one
                    for one in client.store.remembered
                    if isinstance(one, cl.CloseAgreed) and one.close_id == record.close_id
                )
                assert word.balance_msat == balance_msat
                assert newest_link(client).state.accepter_msat == balance_msat
    assert len(finished(pump.lsp)) <= 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(N_SEEDS))
def test_whatever_happens_a_close_pays_what_was_agreed_or_nothing(seed: int) -> None:
    life = Life(seed)
    for _ in range(N_STEPS):
        life.happen()
        check_is_what_was_agreed(life.pump)
    life.heal()
    for _ in range(TRIES_MAX):
        if finished(life.pump.lsp):
            break
        ask_for_close(life.pump)
        life.pump.run()
        life.heal()
    check_all_is_paid(life.pump)
    check_nobody_is_stuck(life.pump)
    check_is_what_was_agreed(life.pump)
    assert all(len(finished(node)) == 1 for node in (life.pump.lsp, *life.pump.clients))
    for own, theirs in links(life.pump).values():
        assert own.state.accepter_msat == theirs.state.accepter_msat
