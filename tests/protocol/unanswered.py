"""HTLCs that nobody answers, and the blocks until something becomes of them."""

from typing import Final

from tests.protocol.paying_clients import lsp_link, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import mute

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.protocol import events as ev
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

FIRST_MSAT: Final = 30_000_000
WORTH_MSAT: Final = 9_000_000  # More than anybody's exit costs.
SMALL_MSAT: Final = 700_000  # Less than that, and too little for an output.


def pending_for(pump: Pump, side: str, amount_msat: int) -> tuple[PumpNode, Link]:
    """Leave an HTLC without an answer, at stake for one side; return it and its channel.

    Args:
        pump: A live factory.
        side: Who would lose it: the LSP that offered it to a payee, the payee that has shown its
            preimage to nobody, or the payer.
        amount_msat: What the payee asks for.
    """
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, amount_msat)
    if side == "lsp":
        with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
            pump.handle(alice, request)
            pump.run()
        pump.disconnect(bob)
        return pump.lsp, lsp_link(pump, newest_link(bob))
    if side == "payee":
        pump.handle(alice, request)
        pump.run_to(m.UpdateFulfillHtlc)
        pump.disconnect(bob)
        pump.run()
        return bob, newest_link(bob)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    pump.disconnect(alice)
    return alice, newest_link(alice)


def only_expiry(link: Link) -> int:
    (live,) = link.state.htlcs
    return live.htlc.cltv_expiry


def mine_to(pump: Pump, height: int) -> None:
    pump.mine(height - pump.chain.height)
    assert pump.chain.height == height


def htlc_outpoint(link: Link) -> OutPoint:
    """Return where the only HTLC is in our own commitment."""
    commitment = link.finished.commitment
    (vout,) = (vout for vout, out in enumerate(commitment.outputs) if out.htlc is not None)
    return commitment.tx.outpoint(vout)


def mine_until_spent(pump: Pump, outpoint: OutPoint) -> None:
    """Mine until the LSP sees an output spent, one block deep."""
    for _ in range(2_000):
        if outpoint in pump.lsp.state.chain.spends:
            return
        pump.mine()
    raise AssertionError(f"{outpoint} stays unspent")


def chain_at(height: int) -> KnownChain:
    """Return a chain on which nothing of any factory is, but for blocks up to this height."""
    return KnownChain(recent=(BlockRef(height=height, block_hash=Txid(bytes(32))),))


def remove_blocks(pump: Pump, n_blocks: int) -> None:
    """Take the last blocks back, at everybody; what was in them is forgotten."""
    for node in (pump.lsp, *pump.clients):
        for height in range(pump.chain.height, pump.chain.height - n_blocks, -1):
            pump.handle(node, ev.BlockRemoved(height=height))
    pump.chain.remove_tip(n_blocks)
    pump.chain.mempool.clear()
