"""A client's daemon as a Python program uses it: `cromford.Client`.

Each method asks the daemon over its unix socket and waits for the answer: a typed dict with the
fields that docs/api.md lists. No method returns a seed or a key.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from cromford.answers.channels import OwnBalance
from cromford.answers.events import EventAnswer
from cromford.answers.exits import ExitBegun, ExitPlan, ExitStatus
from cromford.answers.factories import FactoryVerification, OwnFactories, OwnFactory
from cromford.answers.market import LiquidityQuote, PurchaseOutcome
from cromford.answers.payments import PaymentAnswer, PaymentsAnswer
from cromford.answers.status import ClientStatus, WishLeft, WishState
from cromford.answers.wallet import BumpedPayment, NewAddress, OwnCoins, SentCoins, WalletBalance
from cromford.daemon.api.calling import CALL_TIMEOUT_SECONDS, SOCKET_NAME, ApiClient
from cromford.daemon.api.payment_limits import INVOICE_EXPIRY_SECONDS, LIMIT, WAIT_SECONDS

ROLE: Final = "client"
FOLLOW_SECONDS: Final = 30.0


class Client:
    """One client's daemon, which has to run.

    Args:
        datadir: Its data directory, as `cromford client run --datadir` has it.
        network: `mainnet`, `testnet4`, `signet` or `regtest`.
        timeout_seconds: How long it may take to answer.

    Every method raises `cromford.ApiFailure`: `daemon_not_running` if nobody listens, or what the
    daemon refused and why. After `timeout` and `connection_lost` the request may have been carried
    out all the same. Paying is safe to repeat: what is paid or on its way is never paid twice; and
    so is `send` with an external id.
    """

    def __init__(
        self,
        datadir: str | Path,
        *,
        network: str = "regtest",
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        path = Path(datadir).expanduser() / network / SOCKET_NAME
        self._timeout_seconds = timeout_seconds
        self._calls = ApiClient(path, role=ROLE, timeout_seconds=timeout_seconds)

    def status(self) -> ClientStatus:
        """Return what the client is, and how it stands."""
        return cast("ClientStatus", self._calls.call("status"))

    # Payments

    def invoice(
        self,
        amount_msat: int,
        *,
        description: str = "",
        expiry_seconds: int = INVOICE_EXPIRY_SECONDS,
        label: str = "",
        external_id: str = "",
    ) -> PaymentAnswer:
        """Make an invoice; `invoice` is the text that its payer needs.

        Args:
            amount_msat: What is to be paid.
            description: What it is for; the payer reads it.
            expiry_seconds: How long it can be paid.
            label: What you call it, at most 256 bytes; it stays on this machine.
            external_id: What you know it by, at most 128 bytes, for no other invoice. Asked for
                again with the same id and the same of all else, the same invoice is given: with an
                id, making an invoice is safe to repeat.
        """
        answer = self._calls.call(
            "invoice",
            amount_msat=amount_msat,
            description=description,
            expiry_seconds=expiry_seconds,
            label=label,
            external_id=external_id,
        )
        return cast("PaymentAnswer", answer)

    def qr(self, text: str) -> str:
        """Return an invoice or an address as a QR code, in SVG."""
        return cast("str", self._calls.call("qr", text=text))

    def pay(
        self,
        invoice: str,
        *,
        fee_max_msat: int | None = None,
        wait_seconds: float | None = None,
        dry_run: bool = False,
        label: str = "",
    ) -> PaymentAnswer:
        """Pay an invoice and return what became of it: `status` is `paid`, `pending` or `failed`.

        Args:
            invoice: Its text.
            fee_max_msat: The most that the fee may be; None for what the policy allows.
            wait_seconds: How long to wait for the outcome; None for a minute, or half of this
                object's `timeout_seconds` if that is less.
            dry_run: Only return what paying would take.
            label: What you call it, at most 256 bytes; it stays on this machine.

        Raises:
            ValueError: If the answer would come later than this object waits for it.
        """
        answer = self._calls.call(
            "pay",
            invoice=invoice,
            fee_max_msat=fee_max_msat,
            wait_seconds=self._wait(wait_seconds),
            dry_run=dry_run,
            label=label,
        )
        return cast("PaymentAnswer", answer)

    def _wait(self, wait_seconds: float | None) -> float:
        """Return how long the daemon is to wait: its answer must come before we give up on it."""
        if wait_seconds is None:
            return min(WAIT_SECONDS, self._timeout_seconds / 2)
        if wait_seconds >= self._timeout_seconds:
            raise ValueError(
                f"wait_seconds: expected less than timeout_seconds, {self._timeout_seconds:g}, "
                f"received {wait_seconds:g}"
            )
        return wait_seconds

    def payments(self, *, limit: int = LIMIT, after: str = "") -> PaymentsAnswer:
        """Return a page of payments and invoices, the newest first.

        Args:
            limit: How many at most. There may be fewer, or none, and more follow all the same.
            after: `next` of the page before; empty for the first. On the last page it is None.
        """
        return cast("PaymentsAnswer", self._calls.call("payments", limit=limit, after=after))

    def balance(self) -> OwnBalance:
        """Return what each channel holds."""
        return cast("OwnBalance", self._calls.call("balance"))

    # Events

    def events(self, after: str = "") -> Iterator[EventAnswer]:
        """Yield what has happened, oldest first, and then go on as it happens, without an end.

        Args:
            after: The `cursor` of the last event that was seen; empty for the oldest that is kept.
        """
        # The answer that nothing happened has to come before it is given up.
        wait_seconds = min(FOLLOW_SECONDS, self._timeout_seconds / 2)
        while True:
            answer = self._calls.call("events", after=after, wait_seconds=wait_seconds)
            yield from answer["events"]
            after = answer["cursor"]

    # Factories

    def join(self, capacity_sat: int, *, capacity_least_sat: int | None = None) -> WishState:
        """Wait in the LSP's lobby for a factory with a channel of this capacity."""
        answer = self._calls.call(
            "join", capacity_sat=capacity_sat, capacity_least_sat=capacity_least_sat
        )
        return cast("WishState", answer)

    def leave(self) -> WishLeft:
        """Leave the LSP's lobby."""
        return cast("WishLeft", self._calls.call("leave"))

    def factories(self) -> OwnFactories:
        """Return every factory, oldest first."""
        return cast("OwnFactories", self._calls.call("factories"))

    def factory(self, factory_id: str | None = None) -> OwnFactory:
        """Return one factory: by default the newest that lives."""
        return cast("OwnFactory", self._calls.call("factory", factory_id=factory_id))

    def factory_picture(self, factory_id: str | None = None) -> str:
        """Return one factory as a picture, in SVG: by default the newest that lives."""
        return cast("str", self._calls.call("factory_picture", factory_id=factory_id))

    def verify(self, factory_id: str | None = None) -> FactoryVerification:
        """Check a factory against the chain, from its terms on."""
        return cast("FactoryVerification", self._calls.call("verify", factory_id=factory_id))

    def exit_plan(self, factory_id: str | None = None) -> ExitPlan:
        """Return what leaving would take, step by step."""
        return cast("ExitPlan", self._calls.call("exit_plan", factory_id=factory_id))

    def exit_start(self, factory_id: str | None = None) -> ExitBegun:
        """Begin to publish what leads to the channel."""
        return cast("ExitBegun", self._calls.call("exit_start", factory_id=factory_id))

    def exit_status(self, factory_id: str | None = None) -> ExitStatus:
        """Return how far an exit is."""
        return cast("ExitStatus", self._calls.call("exit_status", factory_id=factory_id))

    # Inbound liquidity

    def quote_liquidity(self, amount_sat: int | None = None) -> LiquidityQuote:
        """Ask the LSP what inbound liquidity costs; None asks for all there is."""
        return cast("LiquidityQuote", self._calls.call("liquidity_quote", amount_sat=amount_sat))

    def buy_liquidity(
        self,
        quote: LiquidityQuote,
        *,
        price_max_msat: int,
        wait_seconds: float | None = None,
    ) -> PurchaseOutcome:
        """Buy what was quoted, for no more than a price, and return what became of it.

        Raises:
            ValueError: If the answer would come later than this object waits for it.
        """
        answer = self._calls.call(
            "liquidity_buy",
            factory_id=quote["factory_id"],
            quote_id=quote["quote_id"],
            price_max_msat=price_max_msat,
            wait_seconds=self._wait(wait_seconds),
        )
        return cast("PurchaseOutcome", answer)

    # The wallet

    def address(self) -> NewAddress:
        """Make an address of the wallet."""
        return cast("NewAddress", self._calls.call("address"))

    def wallet_balance(self) -> WalletBalance:
        """Return the wallet in numbers."""
        return cast("WalletBalance", self._calls.call("wallet_balance"))

    def wallet_coins(self) -> OwnCoins:
        """Return the coins of the wallet."""
        return cast("OwnCoins", self._calls.call("wallet_coins"))

    def send(
        self,
        address: str,
        *,
        amount_sat: int | None = None,
        feerate_sat_per_vb: str | None = None,
        external_id: str = "",
        dry_run: bool = False,
    ) -> SentCoins:
        """Send coins of the wallet to an address: all that is free, if no amount is given.

        Asked for again with an `external_id`, of at most 128 bytes, the same payment is given.
        """
        answer = self._calls.call(
            "wallet_send",
            address=address,
            amount_sat=amount_sat,
            feerate_sat_per_vb=feerate_sat_per_vb,
            external_id=external_id,
            dry_run=dry_run,
        )
        return cast("SentCoins", answer)

    def bump(
        self,
        txid: str,
        *,
        feerate_sat_per_vb: str | None = None,
        from_amount: bool = False,
        dry_run: bool = False,
    ) -> BumpedPayment:
        """Let a payment of the wallet's that no block takes pay more: another takes its place."""
        answer = self._calls.call(
            "wallet_bump",
            txid=txid,
            feerate_sat_per_vb=feerate_sat_per_vb,
            from_amount=from_amount,
            dry_run=dry_run,
        )
        return cast("BumpedPayment", answer)
