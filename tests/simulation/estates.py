"""Who has what in the end, on chain and off it, and whether it is what everybody is due.

What a client is due is what it was paid less what it paid, by its own journal while it had it. Its
own fees are its own affair: of sweeps, of children, and of what HTLCs cost on chain.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from cromford.bitcoin.tx import OutPoint, TxOut
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.journal import channel_records as cr
from cromford.wallet.account import CHANGE, RECEIVE, WalletPath
from tests.protocol.money import Journal
from tests.simulation.life_node import LifeNode
from tests.simulation.world import World

N_SCRIPTS: Final = 80  # Of each wallet, on each of its two chains.
CHANNEL_SAT: Final = 800  # What is not worth an output or a sweep, for each channel.
HTLC_SAT: Final = 1_400  # The same for each HTLC that was decided on chain, or has no output.
ANCHOR_SAT: Final = 300  # What whoever spends an anchor finds in it.


@dataclass
class Account:
    """What one client was paid, and paid, by payment hash, in msat."""

    received: dict[bytes, int] = field(default_factory=dict)
    sent: dict[bytes, int] = field(default_factory=dict)
    begun: dict[bytes, int] = field(default_factory=dict)

    @property
    def due_msat(self) -> int:
        """What it is due, but for what it bought."""
        return sum(self.received.values()) - sum(self.sent.values())


@dataclass
class OnChain:
    """What the chain gave a wallet, in sat, its own fees and payments added again."""

    got_sat: int = 0
    n_anchors: int = 0


class Estates:
    """Draws up the accounts of a world.

    Args:
        world: The world.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.accounts = {client.name: Account() for client in world.clients}
        self.lsp_sent: set[bytes] = set()

    def read(self) -> None:
        """Take note of what is paid by now: a store that is put back forgets some of it."""
        for client in self.world.clients:
            account, book = self.accounts[client.name], client.durable_state().book
            for payment_hash, invoice in book.invoices.items():
                if invoice.paid_by is not None:
                    account.received[payment_hash] = invoice.paid_msat
            for payment_hash, payment in book.payments.items():
                whole_msat = payment.amount_msat + payment.fee_msat
                account.begun[payment_hash] = whole_msat
                if payment.status == "paid":
                    account.sent[payment_hash] = whole_msat
        payments = self.world.lsp.durable_state().book.payments
        self.lsp_sent |= {one for one, paid in payments.items() if paid.status == "paid"}

    def check(self, journals: list[Journal], *, restored: set[str]) -> None:
        """Check that no honest client has less, nor anybody more, than it is due.

        Args:
            journals: The clients', as they were read: they know what was bought.
            restored: Whose stores were put back.
        """
        self.read()
        self._find_forgotten(restored)
        is_lsp_whole = self.world.lsp.is_honest and "lsp" not in restored
        for client, journal in zip(self.world.clients, journals, strict=True):
            if not client.is_honest or (client.name in restored and not is_lsp_whole):
                continue  # A stale store is worth no more than its peer's goodwill.
            due_msat = self.accounts[client.name].due_msat - journal.traded_msat
            has_msat, slack_msat = self._has(client)
            if client.name in restored:
                slack_msat += self._forgotten_msat(client)
            told = f"{client.name} has {has_msat} of {due_msat} msat, and {slack_msat} of slack"
            assert has_msat >= due_msat - slack_msat, f"lost something: {told}"
            if is_lsp_whole:
                slack_msat += self._paid_again_msat(client)
                assert has_msat <= due_msat + slack_msat, f"found something: {told}"

    def _paid_again_msat(self, client: LifeNode) -> int:
        """Return what a client may have of invoices that several have paid, each of them whole.

        Off chain it refuses all but the first; on chain it takes what its preimage is worth.
        """
        sent = [self.lsp_sent, *(one.sent.keys() for one in self.accounts.values())]
        received = self.accounts[client.name].received
        return sum(
            msat * max(0, sum(payment_hash in one for one in sent) - 1)
            for payment_hash, msat in received.items()
        )

    def _find_forgotten(self, restored: set[str]) -> None:
        """Let whoever forgot that it paid have paid: the payee has it, and from nobody else."""
        known = {one for account in self.accounts.values() for one in account.sent}
        for account in self.accounts.values():
            for payment_hash in sorted(account.received.keys() - known - self.lsp_sent):
                for name in sorted(restored & self.accounts.keys()):
                    payer = self.accounts[name]
                    if payment_hash in payer.begun:
                        payer.sent[payment_hash] = payer.begun[payment_hash]
                        break

    def _forgotten_msat(self, client: LifeNode) -> int:
        """Return what was under way in a store that was put back, which may know nothing of it.

        Its peer's commitment has it in HTLCs that only a newer store could take.
        """
        account = self.accounts[client.name]
        settled = self.lsp_sent.union(*(one.sent for one in self.accounts.values()))
        came_msat = sum(msat for one, msat in account.received.items() if one not in settled)
        left_msat = sum(msat for one, msat in account.begun.items() if one not in account.sent)
        return came_msat + left_msat

    def _has(self, client: LifeNode) -> tuple[int, int]:
        """Return what a client has, on chain and off it, and what nobody looks for, in msat."""
        found = self._on_chain(client)
        state: Any = client.durable_state()
        has_msat, slack_sat = found.got_sat * MSAT_PER_SAT, found.n_anchors * ANCHOR_SAT
        decided = {
            (record.channel_id, record.htlc_id)
            for record in client.store.remembered
            if isinstance(record, cr.HtlcDecided)
        }
        slack_sat += len(decided) * HTLC_SAT
        for link in state.book.links.values():
            slack_sat += HTLC_SAT * len(link.state.htlcs)
            if self._is_off_chain(state, link):
                has_msat += link.state.accepter_msat
            else:
                slack_sat += CHANNEL_SAT
        return has_msat, slack_sat * MSAT_PER_SAT

    def _is_off_chain(self, state: Any, link: Any) -> bool:
        """Say whether a channel's money is still where all have signed it to be."""
        chain = self.world.chain
        held = state.attempts[link.attempt_id]
        outpoint = held.funding_outpoint
        for tx in held.signed_branch_on(state.chain).txs:
            outpoint = tx.inputs[0].outpoint
            if tx.txid not in chain.confirmed:
                return chain.coin(outpoint) is not None
            outpoint = link.funding_on(state.chain).outpoint
        return chain.coin(outpoint) is not None

    def _on_chain(self, client: LifeNode) -> OnChain:
        account = client.state.wallet.account if client.driver else None
        assert account is not None, f"{client.name} is down"
        own = {
            account.script(WalletPath(change=change, index=index))
            for change in (RECEIVE, CHANGE)
            for index in range(N_SCRIPTS)
        }
        found = OnChain()
        outputs: dict[OutPoint, TxOut] = {}
        for _, txs in self.world.chain.blocks:
            for tx in txs:
                outputs.update({tx.outpoint(n): out for n, out in enumerate(tx.outputs)})
        for _, txs in self.world.chain.blocks[self.world.blocks.first_height + 1 :]:
            for tx in txs:
                if any(one.outpoint not in outputs for one in tx.inputs):
                    continue  # A gift, from nowhere.
                spent = [outputs[one.outpoint] for one in tx.inputs]
                in_sat = sum(out.amount_sat for out in spent if out.script_pubkey in own)
                out_sat = sum(out.amount_sat for out in tx.outputs if out.script_pubkey in own)
                if not in_sat and not out_sat:
                    continue
                found.got_sat += out_sat - in_sat
                is_its_alone = all(out.script_pubkey in own for out in tx.outputs)
                if in_sat or is_its_alone:
                    # Its own: a payment, a child, a sweep. What it cost is not lost to anybody; an
                    # HTLC's transaction that takes a coin along pays where it is swept from yet.
                    takes_more = any(out.script_pubkey not in own for out in spent)
                    left = tx.outputs if takes_more else ()
                    kept_sat = max(out_sat, sum(out.amount_sat for out in left))
                    found.got_sat += sum(out.amount_sat for out in spent) - kept_sat
                    found.n_anchors += len(spent)
        return found
