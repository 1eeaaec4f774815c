"""What goes on while processes are killed: factories are built, used, closed and left."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.api.failures import ApiFailure
from tests.drill.killing import Killer
from tests.drill.people import LOST, LSP, DrillFailed, People
from tests.drill.sums import Accounts, Blocks

CAPACITY_SAT: Final = 1_000_000
MIN_DEPTH: Final = 3
STAKE_MSAT: Final = 200_000_000  # What the LSP pays each client at first.
AMOUNTS_MSAT: Final = (1_000, 20_000_000)
SOLD_SAT: Final = (20_000, 60_000)
N_WORKERS: Final = 3
PAY_SECONDS: Final = 10.0
BUY_SECONDS: Final = 10.0
BETWEEN_SECONDS: Final = 0.2  # From one try to the next of what was refused.
WAIT_SECONDS: Final = 6.0  # For a client to come back by itself, and twice as long the next time.
LEAVE_BLOCKS, LEAVE_ROUNDS_MAX = 6, 200  # Looked at after so many blocks, so often.
LEAST_OUTPUT_SAT: Final = 330
# Refusals that say that the moment is wrong, and not the request.
LATER: Final = frozenset(
    {
        "chain_stale",
        "channel_not_ready",
        "client_away",
        "clients_away",
        "close_ended",
        "close_under_way",
        "factory_not_ready",
        "leaf_busy",
        "lsp_unreachable",
        "no_channel",
        "not_bought",
        "payee_offline",
        "quote_expired",
        "quote_unknown",
        "stale",
        "too_many_requests",
    }
)
# And those that say that there is too little of something.
SHORT: Final = frozenset({"insufficient_balance", "not_payable"})
NOTHING_TO_SELL: Final = frozenset(
    {"amount_too_small", "insufficient_balance", "no_race", "no_sales_left", "no_stock"}
)
Document = dict[str, Any]


@dataclass
class Tally:
    """What the drill did, and what that has to lead to.

    Attributes:
        own_msat: What each client has in the factory of now, by what it was told.
        coins_sat: What each has in its wallet, by what was closed and left.
        earned_msat: The LSP's fees in all factories.
        done: How often what was done.
    """

    own_msat: dict[str, int] = field(default_factory=dict)
    coins_sat: dict[str, int] = field(default_factory=dict)
    earned_msat: int = 0
    done: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Count one more of something."""
        self.done[what] = self.done.get(what, 0) + 1


class Life:
    """Factories, one after the other. Each step goes on until it is done, whoever dies meanwhile.

    Args:
        people: Who takes part.
        blocks: Their chain, whose node is not killed.
        accounts: What is where in it.
        killer: Kills while it is allowed to.
        seed: Chooses payers, payees and amounts.
    """

    def __init__(
        self, people: People, blocks: Blocks, accounts: Accounts, killer: Killer, *, seed: int
    ) -> None:
        self.people = people
        self.blocks = blocks
        self.accounts = accounts
        self.killer = killer
        self.tally = Tally(coins_sat=dict.fromkeys(people.clients, 0))
        self.factory_id = ""
        self.refused = ""
        self._seed = seed
        self._n_factories = 0
        self._waits = dict.fromkeys(people.clients, WAIT_SECONDS)

    # Building

    def build(self) -> None:
        """Build a factory of all clients, and see every channel open."""
        n_before = len(self.people.ask(LSP, "factories")["factories"])
        self.factory_id = self.people.until("a factory", lambda: self._built(n_before))
        self._n_factories += 1
        self.tally.count("factories built")
        self.people.until(
            "the funding in the mempool",
            lambda: self._funding_txid() in self.blocks.unconfirmed(),
        )
        self.mine(MIN_DEPTH)
        self.tally.own_msat = dict.fromkeys(self.people.clients, 0)
        self.at_rest()

    def _built(self, n_before: int) -> str | None:
        factories = self.people.ask(LSP, "factories")["factories"][n_before:]
        newest = factories[-1] if factories else {"status": "aborted"}
        if newest["status"] == "funding":
            factory_id: str = newest["factory_id"]
            return factory_id
        if newest["status"] == "building":
            return None
        if newest["status"] != "aborted":
            raise DrillFailed(f"a factory is {newest['status']} before its funding is in a block")
        for client in self.people.clients:
            if self.people.ask(client, "status")["wish"] is None:
                self.people.wish(client, "join", capacity_sat=CAPACITY_SAT)
        self._hurry()
        n = len(self.people.clients)
        asked = self.people.wish(LSP, "build", min_clients=n, max_clients=n)
        self.tally.count("builds asked for")
        if isinstance(asked, ApiFailure):
            time.sleep(BETWEEN_SECONDS)
        return None

    def _funding_txid(self) -> str:
        shown = self.people.ask(LSP, "factory_show", factory_id=self.factory_id)
        txid: str = shown["funding"]["txid"]
        return txid

    # Paying

    def pay(self, n_payments: int) -> None:
        """Let money move until so many were paid, and as long as the killer is busy."""
        for client in self.people.clients:
            self._pay_invoice(LSP, client, STAKE_MSAT)
        with ThreadPoolExecutor(N_WORKERS) as pool:
            working = [
                pool.submit(self._pay_on, number, n_payments // N_WORKERS)
                for number in range(N_WORKERS)
            ]
            moved = [work.result() for work in working]
        for payer, payee, amount_msat, fee_msat in (one for some in moved for one in some):
            self._note_paid(payer, payee, amount_msat, fee_msat)

    def _pay_on(self, number: int, n_payments: int) -> list[tuple[str, str, int, int]]:
        dice = random.Random(f"payments {self._seed} {self._n_factories} {number}")
        moved: list[tuple[str, str, int, int]] = []
        while len(moved) < n_payments or self.killer.is_busy:
            payee = dice.choice(self.people.clients)
            payer = dice.choice([name for name in self.people.names if name != payee])
            amount_msat = dice.randint(*AMOUNTS_MSAT)
            fee_msat = self._paid(payer, payee, amount_msat)
            if fee_msat is not None:
                moved.append((payer, payee, amount_msat, fee_msat))
        return moved

    def _pay_invoice(self, payer: str, payee: str, amount_msat: int) -> None:
        fee_msat = self.people.until(
            f"{payer} to pay {payee}", lambda: self._paid(payer, payee, amount_msat)
        )
        self._note_paid(payer, payee, amount_msat, fee_msat)

    def _paid(self, payer: str, payee: str, amount_msat: int) -> int | None:
        """Return the fee of a payment that arrived, in msat; None if nothing moved."""
        made = self.people.wish(payee, "invoice", amount_msat=amount_msat)
        if isinstance(made, ApiFailure):
            self._came_to_nothing("invoices not made", made)
            return None

        def outcome() -> Document | ApiFailure | None:
            # Asked again, it is not paid again.
            told = self.people.wish(payer, "pay", invoice=made["invoice"], wait_seconds=PAY_SECONDS)
            if isinstance(told, ApiFailure):
                return None if told.code in LOST else told
            return told if told["status"] in {"paid", "failed"} else None

        until = self.people.until
        paid = cast("Document | ApiFailure", until(f"{payer}'s payment to {payee}", outcome))
        if isinstance(paid, ApiFailure):
            self._came_to_nothing("payments refused", paid)
            return None
        if paid["status"] == "failed":
            self.tally.count("payments that failed")
            return None
        fee_msat: int = paid["fee_msat"]
        return fee_msat

    def _came_to_nothing(self, what: str, why: ApiFailure) -> None:
        """Take note of what was refused or lost; some of it is worth another try a little later.

        Raises:
            DrillFailed: If a drill gives no reason for such a refusal.
        """
        if why.code not in LOST | LATER | SHORT:
            raise DrillFailed(f"{what}: {why.code}: {why}")
        self.refused = f"{what}: {why.code}: {why}"
        self.tally.count(what)
        self._hurry()
        time.sleep(BETWEEN_SECONDS)

    def _note_paid(self, payer: str, payee: str, amount_msat: int, fee_msat: int) -> None:
        self.tally.own_msat[payee] += amount_msat
        if payer != LSP:
            self.tally.own_msat[payer] -= amount_msat + fee_msat
        self.tally.earned_msat += fee_msat
        self.tally.count("payments that arrived")

    # Buying liquidity

    def buy(self) -> None:
        """Let clients buy until nothing is for sale, or one bought and the killer is not busy."""
        dice = random.Random(f"purchases {self._seed} {self._n_factories}")
        sold_out: set[str] = set()
        while len(sold_out) < len(self.people.clients):
            client = dice.choice(sorted(set(self.people.clients) - sold_out))
            if not self._has_bought(client, dice.randint(*SOLD_SAT)):
                sold_out.add(client)
            if any(self._receipts(one) for one in self.people.clients) and not self.killer.is_busy:
                return

    def _has_bought(self, client: str, amount_sat: int) -> bool:
        """Let a client buy; say whether there may be more for it."""
        quote = self.people.wish(
            client, "liquidity_quote", factory_id=self.factory_id, amount_sat=amount_sat
        )
        if isinstance(quote, ApiFailure):
            if quote.code in NOTHING_TO_SELL:
                return False
            self._came_to_nothing("quotes not given", quote)
            return True
        bought = self.people.wish(
            client,
            "liquidity_buy",
            factory_id=self.factory_id,
            quote_id=quote["quote_id"],
            price_max_msat=quote["price_msat"],
            beyond_coverage=True,
            wait_seconds=BUY_SECONDS,
        )
        self.people.until(f"{client}'s purchase to end", lambda: not self._is_buying(client))
        if isinstance(bought, ApiFailure):
            self._came_to_nothing("purchases that came to nothing, or were lost", bought)
        elif bought["status"] == "bought" and bought["receipt"] not in self._receipts(client):
            raise DrillFailed(f"{client} was told that it bought {quote}, and has no receipt")
        return True

    def _is_buying(self, client: str) -> bool:
        stands = self._channel(client)["liquidity"]
        return bool(stands["buying"] or stands["advance"])

    def _channel(self, client: str) -> Document:
        channels: list[Document] = self.people.ask(client, "balance")["channels"]
        return next(one for one in channels if one["factory_id"] == self.factory_id)

    def _receipts(self, client: str) -> list[Document]:
        factories: list[Document] = self.people.ask(client, "factories")["factories"]
        shown = next(one for one in factories if one["factory_id"] == self.factory_id)
        receipts: list[Document] = shown["bought"]
        return receipts

    # Coming to rest

    def _hurry(self) -> None:
        """Start clients anew that wait for an LSP that is back: they wait longer each time."""
        for client in self.people.clients:
            if self.people.ask(client, "status")["connected"]:
                self._waits[client] = WAIT_SECONDS
            elif self.people.start_anew(client, least_seconds=self._waits[client]):
                self._waits[client] *= 2
                self.tally.count("kills beside the schedule, of clients that waited")

    def at_rest(self) -> None:
        """Let everything end that is under way, and compare what everybody has with what was told.

        Raises:
            DrillFailed: Naming the first number that is not what it should be.
        """

        def rest() -> bool:
            self._hurry()
            return all(map(self._rests, self.people.clients))

        self.people.until("the channels to rest", rest)
        sales: list[Document] = self.people.ask(LSP, "ledger")["sales"]
        sold = {(one["amount_sat"], one["price_msat"]) for one in sales}
        for client in self.people.clients:
            receipts, channel = self._receipts(client), self._channel(client)
            price_msat = sum(one["price_msat"] for one in receipts)
            bought_sat = sum(one["amount_sat"] for one in receipts)
            own_msat = self.tally.own_msat[client] - price_msat
            check(f"{client}'s balance, in msat", own_msat, channel["own_msat"])
            check(
                f"{client}'s capacity, in sat", CAPACITY_SAT + bought_sat, channel["capacity_sat"]
            )
            for one in receipts:
                if (one["amount_sat"], one["price_msat"]) not in sold:
                    raise DrillFailed(f"{client} has a receipt that the LSP has no sale for: {one}")
        earned_msat = self.people.ask(LSP, "payments", limit=1)["earned_msat"]
        check("the LSP's fees, in msat", self.tally.earned_msat, earned_msat)

    def _rests(self, client: str) -> bool:
        sides = self._channel(client), self._lsp_channel(client)
        if any(one["failed"] for one in sides):
            raise DrillFailed(f"{client}'s channel failed: {sides}")
        own, lsp = sides
        is_still = not any(one["sending_msat"] or one["receiving_msat"] for one in sides)
        is_same = (own["own_msat"], own["peer_msat"]) == (lsp["peer_msat"], lsp["own_msat"])
        is_open = own["status"] == lsp["status"] == "open"
        return is_open and is_still and is_same and not self._is_buying(client)

    def _lsp_channel(self, client: str) -> Document:
        channel_id = self._channel(client)["channel_id"]
        channels: list[Document] = self.people.ask(LSP, "balances")["channels"]
        return next(one for one in channels if one["channel_id"] == channel_id)

    def verify(self) -> None:
        """Let every client check all it has of the factory again.

        Raises:
            DrillFailed: Naming what does not hold.
        """
        for client in self.people.clients:
            verdict = self.people.ask(client, "verify", factory_id=self.factory_id)
            if not verdict["ok"]:
                raise DrillFailed(
                    f"{client}: {[one for one in verdict['checks'] if not one['ok']]}"
                )
            self.tally.done["checks passed"] = self.tally.done.get("checks passed", 0) + len(
                verdict["checks"]
            )

    # Ending a factory

    def close(self) -> None:
        """Close the factory together, and see it in a block."""
        self.people.until("the close", self._is_closed)
        self.tally.count("factories closed")
        self.people.until(
            "the close in the mempool", lambda: len(self.blocks.unconfirmed()) or None
        )
        self.mine(1)
        self._note_ended()

    def _is_closed(self) -> bool:
        shown = self.people.ask(LSP, "factory_show", factory_id=self.factory_id)
        if shown["status"] in {"closing", "closed"}:
            return True
        asked = self.people.wish(LSP, "close", factory_id=self.factory_id, wait=True)
        self.tally.count("closes asked for")
        if isinstance(asked, ApiFailure):
            self._came_to_nothing("closes that came to nothing, or were lost", asked)
        return False

    def leave(self) -> None:
        """Let every client leave by itself, until nothing of the factory is left to take."""
        for client in self.people.clients:
            self.people.until(f"{client} to leave", partial(self._leaves, client))
        for _ in range(LEAVE_ROUNDS_MAX):
            for _ in range(LEAVE_BLOCKS):
                self.mine(1)
            left = [] if self.killer.is_busy else self.accounts.left_behind()
            if not left and not self.killer.is_busy:
                break
        else:
            raise DrillFailed(f"still there after all these blocks: {left}")
        self.tally.count("factories left")
        self._note_ended()

    def _leaves(self, client: str) -> bool:
        factories = self.people.ask(client, "factories")["factories"]
        shown = next(one for one in factories if one["factory_id"] == self.factory_id)
        if shown["status"] in {"exiting", "on_chain"}:
            return True
        self.people.wish(client, "exit_start", factory_id=self.factory_id)
        return False

    def _note_ended(self) -> None:
        for client in self.people.clients:
            price_msat = sum(one["price_msat"] for one in self._receipts(client))
            due_sat = (self.tally.own_msat[client] - price_msat) // MSAT_PER_SAT
            self.tally.coins_sat[client] += due_sat if due_sat >= LEAST_OUTPUT_SAT else 0

    def mine(self, n_blocks: int) -> None:
        """Find blocks, and wait until everybody has seen them."""
        self.blocks.mine(n_blocks)
        self.people.until_all_at(self.blocks.height())


def check(what: str, expected: int, received: int) -> None:
    """Check a number.

    Raises:
        DrillFailed: If it is another one.
    """
    if expected != received:
        raise DrillFailed(f"{what}: expected {expected:,}, received {received:,}")
