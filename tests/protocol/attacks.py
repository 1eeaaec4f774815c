"""What attackers do in a ceremony, and where they can do it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from tests.protocol.pump import Pump, PumpNode, Tamper

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_attempt import Aborted, Acknowledging, LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

OTHER_ID: Final = b"\x0f" * 32


def proposed(n_clients: int = 3, **options: Any) -> Pump:
    """Return a ceremony whose proposals are on their way."""
    pump = Pump(n_clients, **options)
    pump.join()
    pump.build()
    return pump


def only_from(
    culprit: PumpNode, change: Callable[[Any], Sequence[m.Message]], kind: type
) -> Tamper:
    """Change one node's messages of a type."""

    def tamper(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if sender is culprit and isinstance(message, kind):
            return change(message)
        return (message,)

    return tamper


def only_to(victim: PumpNode, change: Callable[[Any], Sequence[m.Message]], kind: type) -> Tamper:
    """Change what one node receives of a type."""

    def tamper(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if receiver is victim and isinstance(message, kind):
            return change(message)
        return (message,)

    return tamper


def nothing(_message: m.Message) -> Sequence[m.Message]:
    return ()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def to_lsp(attempt_id: bytes, terms_hash: bytes) -> list[m.Message]:
    """Return every message of a client that names an attempt, except `Resume` and `Abort`."""
    ids = {"attempt_id": attempt_id, "terms_hash": terms_hash}
    partials = m.PartialSigs(partial_sigs=(bytes(32),) * 3, commitment_partial_sig=bytes(32))
    return [
        m.SignBelow(**ids, candidates=(partials,)),
        m.SignRoot(**ids, partial_sigs=(bytes(32),)),
        m.Acknowledge(**ids),
        m.ChannelReady(**ids, funding_txid=bytes(32)),
    ]


def to_client(attempt_id: bytes, terms_hash: bytes) -> list[m.Message]:
    """Return every message of an LSP that names an attempt, except `Propose` and `Abort`."""
    ids = {"attempt_id": attempt_id, "terms_hash": terms_hash}
    signatures = m.BranchSignatures(signatures=(bytes(64),) * 3, commitment_partial_sig=bytes(32))
    return [
        m.SignedBelow(**ids, candidates=(signatures,)),
        m.SignedRoot(**ids, signatures=(bytes(64),)),
        m.ChannelReady(**ids, funding_txid=bytes(32)),
    ]


PHASES: Final = {
    "proposing": m.Propose,
    "signing below": m.SignBelow,
    "signing the root": m.SignRoot,
    "acknowledging": m.Acknowledge,
}


def confirm(pump: Pump, client: PumpNode, tx: Tx, *, depth: int = 12) -> None:
    """Show a client blocks in which a transaction confirms, whoever published it."""
    for n in range(depth):
        height = client.state.chain.height + 1
        block_hash = pump.chain.blocks[0][0]
        txs = (tx,) if n == 0 else ()
        pump.handle(client, ev.BlockAdded(height=height, block_hash=block_hash, txs=txs))


def heard(pump: Pump, sender: PumpNode, message: m.Message) -> Decision[LspState]:
    """Return what the LSP decides about a message, without doing it."""
    decoded = m.decode_message(m.encode_message(message))
    assert decoded is not None
    event = ev.MessageReceived(node_id=sender.node_id, message=decoded)
    return lsp_role.decide(pump.lsp.state, event)


def acknowledged(attempt: LspAttempt) -> frozenset[int]:
    """Return the clients who said that they hold their branches."""
    return attempt.stage.done if isinstance(attempt.stage, Acknowledging) else frozenset()


def culprits_of(attempt: LspAttempt) -> tuple[bytes, ...]:
    """Return who ended an attempt."""
    assert isinstance(attempt.stage, Aborted)
    return attempt.stage.culprits


def kept(decision: Decision[LspState]) -> tuple[AnyRecord, ...]:
    """Return what a decision journals: all but what is true of one run only."""
    return tuple(entry.record for entry in decision.entries if entry.is_kept)


def with_house(state: LspState, **changes: Any) -> LspState:
    """Return a state in which something of the house is different."""
    return replace(state, house=replace(state.house, **changes))


def house_at(house: House, height: int) -> House:
    """Return a house as it would be if the tip had this height."""
    tip = replace(house.chain.recent[-1], height=height)
    return replace(house, chain=replace(house.chain, recent=(tip,)))


def at_height(state: LspState, height: int) -> LspState:
    """Return a state as it would be if the tip had this height, for the house and factories."""
    tip = replace(state.scan.recent[-1], height=height)
    scan = replace(state.scan, recent=(tip,))
    return replace(state, house=house_at(state.house, height), scan=scan)


def refusal(decision: Decision[LspState]) -> str:
    """Return the reason of a refused join; nothing else may follow from it."""
    assert decision.records == ()
    (effect,) = decision.effects
    assert isinstance(effect, fx.Send)
    assert isinstance(effect.message, m.Refused)
    return effect.message.reason


def join_of(pump: Pump, client: PumpNode) -> m.Join:
    return pump.sent(client, m.Join)[-1]


def left(pump: Pump, client: PumpNode) -> m.Join:
    """Let a client leave the lobby; return the join it had sent, for others to copy."""
    join = join_of(pump, client)
    pump.handle(client, ev.LeaveRequested())
    pump.run()
    return join


def with_pool(join: m.Join, **changes: Any) -> m.Join:
    return replace(join, factory_pool=replace(join.factory_pool, **changes))


@cache
def lone() -> Pump:
    """Return an LSP with one client, whose state tests change and never the pump's."""
    pump = Pump(1)
    pump.join()
    return pump
