"""Stores that are put back to an older position, as `restore` leaves them."""

import hashlib
from dataclasses import dataclass
from typing import Final

from tests.protocol.paying_clients import lsp_link, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.ports import Entry
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.marks import is_marked
from cromford.protocol.journal import records as r
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.streams import CHAIN, CREATION
from cromford.protocol.policy import LspPolicy

QUICK: Final = LspPolicy(
    min_clients=1,
    min_depth=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
    failed_channel_blocks=20,
    active_blocks=144,
    dying_blocks=144,
    ready_min_blocks=1,
)
FIRST_MSAT: Final = 40_000_000
STEP_MSAT: Final = 3_000_000
Backup = list[Entry]


def backup_of(node: PumpNode) -> Backup:
    """Return all that a node's journal has now."""
    return list(node.store.entries)


def put_back(node: PumpNode, backup: Backup, *, is_told: bool = True) -> None:
    """Put a store that is down back to what it was, as a restore does: each stream says so.

    Without being told it is a copied file: nothing in it says that it is old.
    """
    node.store.entries[:] = backup
    node._fold = None
    if not is_told:
        return
    streams = dict.fromkeys(entry.stream for entry in backup)
    number = hashlib.sha256(repr(len(backup)).encode()).digest()[:16]
    restored = r.encode_record(r.StoreRestored(backup_id=number, source="a test"))
    node.store.keep(
        [Entry(stream, restored) for stream in streams if stream not in {CREATION, CHAIN}]
    )


def restore(pump: Pump, *backups: tuple[PumpNode, Backup], is_told: bool = True) -> None:
    """Put stores back, all of them before any of their daemons starts, and let them connect."""
    for client in pump.clients:
        pump.disconnect(client)
    for node, _ in backups:
        node.die()
    for node, backup in backups:
        put_back(node, backup, is_told=is_told)
    for node, _ in backups:
        node.start()
    for client in pump.clients:
        pump.connect(client)
    pump.run()


@dataclass(frozen=True, kw_only=True)
class Past:
    """What both stores of Alice's channel were after each update, oldest first."""

    alice: list[Backup]
    lsp: list[Backup]
    commitments: list[Tx]  # The LSP's, finished.
    own_commitments: list[Tx]  # Alice's.
    alice_msat: list[int]


def live_through(pump: Pump, amounts_msat: list[int]) -> Past:
    """Let Alice be paid by the LSP, or pay Bob where an amount is negative; keep every position."""
    alice, bob = pump.clients[:2]
    past = Past(alice=[], lsp=[], commitments=[], own_commitments=[], alice_msat=[])
    for amount_msat in [FIRST_MSAT, *amounts_msat]:
        payer, payee = (pump.lsp, alice) if amount_msat > 0 else (alice, bob)
        assert pay(pump, payer, payee, abs(amount_msat)).status == "paid"
        past.alice.append(backup_of(alice))
        past.lsp.append(backup_of(pump.lsp))
        own = newest_link(alice)
        past.commitments.append(lsp_link(pump, own).finished.tx)
        past.own_commitments.append(own.finished.tx)
        past.alice_msat.append(balance_of(own).own_msat)
    return past


def link_of(pump: Pump, node: PumpNode) -> Link:
    """Return Alice's channel as a node sees it."""
    mine = newest_link(pump.clients[0])
    return lsp_link(pump, mine) if node is pump.lsp else mine


def is_marked_at(pump: Pump, node: PumpNode) -> bool:
    """Say whether Alice's channel is marked in a node's store."""
    return is_marked(link_of(pump, node))


def published(pump: Pump, node: PumpNode) -> list[str]:
    """Return the names of all that a node wished to publish, once each, in order."""
    return list(dict.fromkeys(one.name for one in pump.wishes(node, fx.Broadcast)))


def signed_for_channels(pump: Pump, node: PumpNode) -> int:
    """Return how often a node's signer was asked for a half of a commitment."""
    kinds = (fx.SignCommitment, fx.FinishCommitment)
    return sum(len(pump.wishes(node, kind)) for kind in kinds)


def coins_sat(node: PumpNode) -> int:
    """Return what is in a node's wallet, in sat."""
    return sum(coin.txout.amount_sat for coin in node.state.wallet.coins.values())


def begin_payment_to_absent(pump: Pump, payer: PumpNode, payee: PumpNode) -> None:
    """Leave an HTLC in a payer's channel, whose payee is away."""
    pump.connect(payee)
    pump.run()
    request = make_invoice(pump, payee, STEP_MSAT)
    pump.disconnect(payee)
    pump.handle(payer, request)
    pump.run()
