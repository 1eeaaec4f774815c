"""Advances that stop after any step, for the message that would be next is lost."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tests.protocol.advances import market, sell
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode

from cromford.bitcoin.tx import Tx
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.wire import messages as m


class Step(IntEnum):
    """How far an advance goes."""

    ASKED = 1  # Clients were asked, and none answers.
    AGREED = 2  # All agreed, and hear no more.
    COMMITTED = 3  # Clients have the LSP's halves, and signed; the LSP does not hear of it.
    DONE = 4  # The LSP has the state and sent poisons; no client hears of it.
    KICKED_OFF = 5  # As before, and everybody has the state; the kickoff was there before poisons.
    HELD = 6  # Clients hold the poisons, and the LSP does not hear of it.
    ACKNOWLEDGED = 7  # The LSP hears of it, and nothing of the rebase arrives.
    REVOKED = 8  # Clients revoked what they had on the old output; the LSP does not hear of it.
    REBASED = 9


# What is lost, and whether it is the LSP's.
LOST: Final[dict[Step, tuple[bool, tuple[type[m.Message], ...]]]] = {
    Step.ASKED: (False, (m.AdvanceAgree,)),
    Step.AGREED: (True, (m.AdvanceCommit,)),
    Step.COMMITTED: (False, (m.AdvanceSign,)),
    Step.DONE: (True, (m.AdvanceDone,)),
    Step.HELD: (False, (m.AdvanceHeld,)),
    Step.ACKNOWLEDGED: (True, (m.UpdateRebase, m.CommitmentSigned)),
    Step.REVOKED: (False, (m.RevokeAndAck, m.CommitmentSigned)),
}


@dataclass(frozen=True, kw_only=True)
class Advance:
    """An advance of one leaf, by the messages of everybody in it.

    Attributes:
        pump: Where.
        before: The leaf as it was.
        leaf: The leaf with its next state.
        buyer: Who buys.
        amount_sat: How much; None for all.
        price_msat: What it pays.
    """

    pump: Pump
    before: Leaf
    leaf: Leaf
    buyer: PumpNode
    amount_sat: int | None
    price_msat: int

    def begin(self, until: Step) -> None:
        """Let the buyer buy, and everybody do its part until a step is over."""
        with market():
            if until is Step.KICKED_OFF:
                self._begin_with_a_kickoff()
            elif until is Step.REBASED:
                self._sell()
            else:
                with self.pump.tampering(self._loses(until)):
                    self._sell()

    def finish(self) -> None:
        """Let every client connect again, and the advance go on to its end."""
        for client in self.pump.clients:
            self.pump.disconnect(client)
        for client in self.pump.clients:
            self.pump.connect(client)
        self.pump.run()

    def _sell(self) -> None:
        seat = newest_link(self.buyer).client
        sell(self.pump, seat, amount_sat=self.amount_sat, price_msat=self.price_msat)

    def _begin_with_a_kickoff(self) -> None:
        """Let the kickoff confirm after the clients signed, and before the LSP did."""
        held: list[tuple[PumpNode, m.Message]] = []

        def hold(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            if not isinstance(message, m.AdvanceSign):
                return (message,)
            held.append((by, message))
            return ()

        with self.pump.tampering(hold):
            self._sell()
        self.pump.chain.broadcast(kickoff_of(self.pump))
        self.pump.chain.mine()
        self.pump.sync()
        for client, message in held:
            self.pump.tell(self.pump.lsp, client, message)
        self.pump.run()

    def _loses(self, step: Step) -> Callable[..., tuple[m.Message, ...]]:
        is_lsps, lost = LOST[step]
        has_begun = False

        def tamper(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            nonlocal has_begun
            has_begun = has_begun or isinstance(message, lost[0])
            is_lost = (by is self.pump.lsp) is is_lsps and isinstance(message, lost)
            return () if is_lost and has_begun else (message,)

        return tamper


def kickoff_of(pump: Pump) -> Tx:
    """Return the signed kickoff of the only leaf, which is the root."""
    tx: Tx = pump.attempt.signed_txs[pump.attempt.tree.vertices[-1].first.name]
    return tx


def advance(
    pump: Pump,
    buyer: PumpNode,
    amount_sat: int | None,
    *,
    price_msat: int = 0,
    until: Step | None = Step.REBASED,
) -> Advance:
    """Sell L-stock of a client's leaf to it, until a step is over; with None nothing begins."""
    number = newest_link(buyer).client
    before = pump.attempt.leaf(number)
    done = Advance(
        pump=pump,
        before=before,
        leaf=before.sold(Purchase(buyer=number, amount_sat=amount_sat)),
        buyer=buyer,
        amount_sat=amount_sat,
        price_msat=price_msat,
    )
    if until is not None:
        done.begin(until)
    return done
