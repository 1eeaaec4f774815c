"""What everybody has, as both sides of every channel tell it, and whether it adds up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cromford.channel.terms import MSAT_PER_SAT
from cromford.demo.failure import DemoFailed
from cromford.demo.purses import DemoPurse, PlannedPayment, Purses
from cromford.demo.world import World

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAccount:
    """One channel at rest, on which both sides agree. Amounts in millisatoshi."""

    own_msat: int
    lsp_msat: int
    spendable_msat: int
    receivable_msat: int

    def as_document(self) -> Document:
        """Return it as plain data."""
        return {
            "own_msat": self.own_msat,
            "lsp_msat": self.lsp_msat,
            "spendable_msat": self.spendable_msat,
            "receivable_msat": self.receivable_msat,
        }


Accounts = Mapping[int, ClientAccount]  # by the client's seat


def accounts_at_rest(world: World, factory_id: str) -> dict[int, ClientAccount] | None:
    """Return every client's account; None while one is not open, or something is on its way."""
    lsp_side = {
        channel["client"]: channel
        for channel in world.lsp.call("balances")["channels"]
        if channel["factory_id"] == factory_id
    }
    found = {}
    for client in world.clients:
        listed = client.call("balance")["channels"]
        channel = next((one for one in listed if one["factory_id"] == factory_id), None)
        account = _account(channel, lsp_side.get(client.client))
        if account is None:
            return None
        found[client.client] = account
    return found


def _account(own: Document | None, lsp: Document | None) -> ClientAccount | None:
    if own is None or lsp is None:
        return None
    for side in (own, lsp):
        if side["status"] != "open" or side["sending_msat"] or side["receiving_msat"]:
            if side["failed"]:
                raise DemoFailed("channel_failed", f"a channel failed: {side['failed']}")
            return None
    # One side may have heard of the last update before the other.
    if (own["own_msat"], own["peer_msat"]) != (lsp["peer_msat"], lsp["own_msat"]):
        return None
    return ClientAccount(
        own_msat=own["own_msat"],
        lsp_msat=lsp["own_msat"],
        spendable_msat=own["spendable_msat"],
        receivable_msat=min(own["receivable_msat"], lsp["spendable_msat"]),
    )


def purses_of(accounts: Accounts) -> Purses:
    """Return the purses to pay from."""
    return Purses(
        {
            seat: DemoPurse(
                spendable_msat=account.spendable_msat, receivable_msat=account.receivable_msat
            )
            for seat, account in accounts.items()
        }
    )


def check_nothing_lost(
    accounts: Accounts,
    *,
    capacity_sat: int,
    first: Mapping[int, int],
    payments: Sequence[PlannedPayment],
    earned_msat: int,
) -> None:
    """Compare every account, and the LSP's earnings, with what was paid, to the millisatoshi.

    Args:
        accounts: After all payments.
        capacity_sat: Of each channel.
        first: What the LSP paid each client, in msat.
        payments: What the clients paid one another.
        earned_msat: What the LSP says that it earned.

    Raises:
        DemoFailed: Naming the first number that is not what it should be.
    """
    expected = {seat: first.get(seat, 0) for seat in accounts}
    for payment in payments:
        expected[payment.payer] -= payment.total_msat
        expected[payment.payee] += payment.amount_msat
    for seat, account in accounts.items():
        _check(f"client {seat}'s balance", expected[seat], account.own_msat)
        in_channel_msat = account.own_msat + account.lsp_msat
        _check(f"client {seat}'s channel", MSAT_PER_SAT * capacity_sat, in_channel_msat)
    _check("the LSP's fees", sum(payment.fee_msat for payment in payments), earned_msat)


def _check(what: str, expected_msat: int, received_msat: int) -> None:
    if expected_msat != received_msat:
        raise DemoFailed(
            "money_lost", f"{what}: expected {expected_msat:,} msat, received {received_msat:,}"
        )


def check_on_chain(world: World, exported: Document) -> Document:
    """Return what the demo left on chain so far; the channels' whole life is not among it.

    On the embedded node there is nothing else, so one transaction is all there may be. On a
    user's node others may pay too: there the funding output must be unspent, for nothing of the
    tree, and so no commitment, can be on chain without spending it.

    Raises:
        DemoFailed: If there is anything of the factory but its funding transaction.
    """
    funding = exported["funding"]
    heights = world.node.payments()
    if funding["txid"] not in heights:
        raise DemoFailed("chain_wrong", "the funding transaction is not confirmed")
    if world.node.output(funding["txid"], funding["vout"]) is None:
        raise DemoFailed("chain_wrong", "the funding output is spent")
    ours = {tx["txid"] for tx in exported["transactions"]} & heights.keys()
    others = heights.keys() - {funding["txid"]} if world.site.settings.chain is None else ours
    if others:
        raise DemoFailed(
            "chain_wrong",
            f"expected the funding transaction alone on chain, received {', '.join(others)} too",
        )
    return {"funding_txid": funding["txid"], "n_transactions": 1, "height": world.node.height()}
