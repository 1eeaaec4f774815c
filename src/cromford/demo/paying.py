"""Money moves: the LSP pays the first clients, and then the clients pay one another."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cromford.channel.terms import MSAT_PER_SAT
from cromford.demo.accounts import (
    Accounts,
    accounts_at_rest,
    check_nothing_lost,
    check_on_chain,
    purses_of,
)
from cromford.demo.building import seconds_for
from cromford.demo.failure import DemoFailed, refused
from cromford.demo.parallel import in_parallel
from cromford.demo.purses import PlannedPayment, Price
from cromford.demo.settings import SEED_BITS, DemoSettings
from cromford.demo.steps import POLL_SECONDS, Steps
from cromford.demo.world import DaemonProcess, World

PAID_FIRST_MAX: Final = 3  # Clients that the LSP pays, so that money can go round.
PAYMENTS_PER_CLIENT_DEFAULT: Final = 2
PAYMENTS_DEFAULT_MIN: Final = 4
WORKERS_PER_CLIENT: Final = 2
WORKERS_MAX: Final = 8
SECONDS_PER_PAYMENT: Final = 1.0
ANSWER_SECONDS: Final = 30.0  # How long one call waits for a payment's outcome.

Document = dict[str, Any]


def move_money(world: World, steps: Steps, exported: Document) -> Document:
    """Let money move through the channels, and check that none is lost; return how it went.

    Raises:
        DemoFailed: If a payment fails, with its reason, or if anything does not add up.
    """
    settings, factory_id = world.site.settings, exported["factory_id"]
    seed = secrets.randbits(SEED_BITS) if settings.seed is None else settings.seed
    first: dict[int, int] = {}
    payments: list[PlannedPayment] = []
    seconds = 0.0
    if settings.n_payments != 0:
        first = receive(world, steps, factory_id)
        payments, seconds = pay(world, steps, factory_id, seed=seed)
    return {
        "seed": seed,
        "n": len(payments),
        "n_workers": _n_workers(world),
        "seconds": round(seconds, 3),
        "per_second": round(len(payments) / seconds, 1) if payments else None,
        **settle(world, steps, exported, first=first, payments=payments),
    }


def receive(world: World, steps: Steps, factory_id: str) -> dict[int, int]:
    """Let the LSP pay the first clients; return what each got, in msat.

    Raises:
        DemoFailed: If a payment fails.
    """
    with steps.step("receive", seconds=_seconds_for(world, PAID_FIRST_MAX)) as step:
        accounts = step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        first: dict[int, int] = {}
        for seat in _paid_first(world.site.settings):
            # Half of it, so that there is room to receive more.
            amount_msat = accounts[seat].receivable_msat // 2 // MSAT_PER_SAT * MSAT_PER_SAT
            if not amount_msat:
                step.progress.note(f"client {seat}'s channel is too small to receive through")
                continue
            payee = world.seat(seat)
            step.progress.update(payee.name)
            _pay_invoice(world.lsp, payee, amount_msat, deadline=step.deadline)
            first[seat] = amount_msat
            step.progress.note(f"the LSP paid client {seat} {amount_msat // MSAT_PER_SAT:,} sat")
        got_sat = sum(first.values()) // MSAT_PER_SAT
        step.outcome = f"{len(first)} invoices paid by the LSP, {got_sat:,} sat in all"
    return first


def _paid_first(settings: DemoSettings) -> list[int]:
    """Return the clients that get something from the LSP; whoever leaves later has a coin then."""
    seats = set(range(1, min(PAID_FIRST_MAX, settings.n_clients) + 1))
    return sorted(seats if settings.exit_client is None else seats | {settings.exit_client})


def pay(
    world: World, steps: Steps, factory_id: str, *, seed: int
) -> tuple[list[PlannedPayment], float]:
    """Let the clients pay one another; return what was paid, and how many seconds it took.

    Raises:
        DemoFailed: If a payment fails, or that many cannot be paid.
    """
    wanted = n_wanted(world.site.settings)
    with steps.step("pay", seconds=_seconds_for(world, wanted)) as step:
        if not wanted:
            step.outcome = "skipped: a single client has nobody to pay"
            return [], 0.0
        accounts = step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        payments = _chosen(world, accounts, wanted, seed)
        step.progress.note(f"payers, payees and amounts chosen with --seed {seed}")
        began = time.monotonic()

        def told(n_paid: int) -> None:
            step.check_alive()
            if time.monotonic() > step.deadline:
                raise DemoFailed("deadline", f"{step.name}: gave up after {n_paid:,} payments")
            rate = n_paid / (time.monotonic() - began + POLL_SECONDS)
            step.progress.update(f"{n_paid:,} of {len(payments):,} paid, {rate:.1f} per second")

        in_parallel(
            payments,
            purses_of(accounts),
            lambda payment: _pay_peer(world, payment, deadline=step.deadline),
            n_workers=_n_workers(world),
            told=told,
        )
        seconds = time.monotonic() - began
        step.outcome = _outcome(payments, seconds)
    return payments, seconds


def n_wanted(settings: DemoSettings) -> int:
    """Return how many payments between clients there shall be."""
    if settings.n_clients == 1:
        return 0
    if settings.n_payments is None:
        return max(PAYMENTS_DEFAULT_MIN, PAYMENTS_PER_CLIENT_DEFAULT * settings.n_clients)
    return settings.n_payments


def _chosen(world: World, accounts: Accounts, wanted: int, seed: int) -> list[PlannedPayment]:
    lobby = world.clients[0].call("status")["lobby"]
    if lobby is None:
        raise DemoFailed("lsp_unreachable", "the clients are not connected to the LSP")
    price = Price(
        base_msat=lobby["fee_base_msat"],
        proportional_millionths=lobby["fee_proportional_millionths"],
    )
    payments = purses_of(accounts).plan(wanted, price, seed=seed)
    if len(payments) < wanted and world.site.settings.n_payments is not None:
        raise refused(
            "--payments",
            f"fees leave money for {len(payments):,} payments in channels of this capacity, "
            f"not for {wanted:,}",
            remediation="Ask for fewer payments, or for a larger --capacity-sat.",
        )
    return payments


def _pay_peer(world: World, payment: PlannedPayment, *, deadline: float) -> None:
    paid = _pay_invoice(
        world.seat(payment.payer),
        world.seat(payment.payee),
        payment.amount_msat,
        deadline=deadline,
    )
    if paid["fee_msat"] != payment.fee_msat:
        raise DemoFailed(
            "fee_wrong",
            f"client {payment.payer} paid a fee of {paid['fee_msat']} msat "
            f"for {payment.amount_msat} msat, expected {payment.fee_msat}",
        )


def _pay_invoice(
    payer: DaemonProcess, payee: DaemonProcess, amount_msat: int, *, deadline: float
) -> Document:
    """Return a payment that has arrived.

    Raises:
        DemoFailed: If it failed, or did not arrive in time.
        ApiFailure: If it was refused.
    """
    invoice = payee.call("invoice", amount_msat=amount_msat)["invoice"]
    while True:
        # Asked again, it is not paid again.
        paid: Document = payer.call("pay", invoice=invoice, wait_seconds=ANSWER_SECONDS)
        if paid["status"] == "paid":
            return paid
        told = f"{payer.name} to {payee.name}, {amount_msat:,} msat"
        if paid["status"] == "failed":
            raise DemoFailed("payment_failed", f"{told}: {paid['failure']}")
        if time.monotonic() > deadline:
            raise DemoFailed("deadline", f"{told}: still on its way")


def settle(
    world: World,
    steps: Steps,
    exported: Document,
    *,
    first: Mapping[int, int],
    payments: Sequence[PlannedPayment],
) -> Document:
    """Return what everybody has, once it was compared with what was paid, and with the chain.

    Raises:
        DemoFailed: If a millisatoshi is lost, or if the chain holds more than the funding.
    """
    factory_id = exported["factory_id"]
    with steps.step("settle", seconds=seconds_for(world.site.settings)) as step:
        accounts = step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        earned_msat = world.lsp.call("payments", limit=1)["earned_msat"]
        check_nothing_lost(
            accounts,
            capacity_sat=world.site.settings.capacity_sat,
            first=first,
            payments=payments,
            earned_msat=earned_msat,
        )
        on_chain = check_on_chain(world, exported)
        n = len(first) + len(payments)
        step.outcome = (
            f"no millisatoshi is lost, and {n:,} payment{'' if n == 1 else 's'} took "
            "no transaction: the funding is the only one on chain"
        )
    return {
        "amount_msat": sum(payment.amount_msat for payment in payments),
        "fees_msat": sum(payment.fee_msat for payment in payments),
        "earned_msat": earned_msat,
        "accounts": [
            {"client": seat, "name": world.seat(seat).name}
            | ledger_entry(seat, first=first, payments=payments)
            | accounts[seat].as_document()
            for seat in sorted(accounts)
        ],
        "on_chain": on_chain,
    }


def ledger_entry(
    seat: int, *, first: Mapping[int, int], payments: Sequence[PlannedPayment]
) -> Document:
    """Return what a client got from the LSP, paid and received, in msat."""
    paid = [payment for payment in payments if payment.payer == seat]
    received = [payment for payment in payments if payment.payee == seat]
    return {
        "from_lsp_msat": first.get(seat, 0),
        "n_paid": len(paid),
        "paid_msat": sum(payment.amount_msat for payment in paid),
        "fees_msat": sum(payment.fee_msat for payment in paid),
        "n_received": len(received),
        "received_msat": sum(payment.amount_msat for payment in received),
    }


def _outcome(payments: Sequence[PlannedPayment], seconds: float) -> str:
    amount_msat = sum(payment.amount_msat for payment in payments)
    rate = f", {len(payments) / seconds:.1f} per second" if payments else ""
    return f"{len(payments):,} payments between clients, {amount_msat:,} msat in all{rate}"


def _n_workers(world: World) -> int:
    return min(WORKERS_MAX, WORKERS_PER_CLIENT * world.site.settings.n_clients)


def _seconds_for(world: World, n_payments: int) -> float:
    return seconds_for(world.site.settings) + SECONDS_PER_PAYMENT * n_payments
