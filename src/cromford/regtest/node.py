"""The embedded regtest node: what a program or a test starts and stops."""

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from cromford.bitcoin.network import REGTEST
from cromford.regtest.ledger import Ledger
from cromford.regtest.options import DEFAULTS, Options
from cromford.regtest.rpc import Dispatcher, as_client_sees
from cromford.regtest.server import LOOPBACK, HttpServer

NEVER_FOR_REAL_MONEY: Final = (
    "An embedded Bitcoin regtest node for trying and testing. It has no peers, no wallet, and only "
    "a part of Bitcoin Core's policy. It is never for real money: its coins are worth nothing."
)
COOKIE_USER: Final = "__cookie__"
COOKIE_SIZE: Final = 32
STOP_POLL_SECONDS: Final = 0.1


class RegtestNode:
    """A regtest chain that answers Bitcoin Core's JSON-RPC on 127.0.0.1.

    For trying and testing, never for real money. Blocks are validated by Core's own consensus
    code. Use it as a context manager, or call `start` and `stop`.

    Args:
        datadir: Where `regtest/.cookie` and, with `persist`, the blocks are kept.
        port: The TCP port; 0 for any that is free.
        persist: Keep the blocks for the next run on the same directory.
        clock: Gives the time in seconds since the epoch; a constant makes block hashes repeatable.
        options: How it relays and mines.
    """

    def __init__(
        self,
        datadir: Path,
        *,
        port: int = 0,
        persist: bool = True,
        clock: Callable[[], int] | None = None,
        options: Options = DEFAULTS,
    ) -> None:
        self._directory = datadir / REGTEST.core_name
        self._wanted_port = port
        self._persist = persist
        self._clock = clock or _wall_clock
        self._options = options
        self._turn = threading.RLock()
        self._is_asked_to_stop = False
        self._ledger: Ledger | None = None
        self._server: HttpServer | None = None
        self._dispatcher: Dispatcher | None = None

    @property
    def url(self) -> str:
        """Where the JSON-RPC is answered."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """The TCP port that is served.

        Raises:
            RuntimeError: If the node is not running.
        """
        if self._server is None:
            raise RuntimeError("the regtest node is not running")
        return self._server.port

    @property
    def cookie_file(self) -> Path:
        """The file with the credentials, in Core's format."""
        return self._directory / ".cookie"

    def start(self) -> None:
        """Load the blocks, write the cookie and open the port.

        Raises:
            DatadirBusy: If another node uses the data directory.
            KernelUnavailable: If the kernel's library could not be loaded.
            ServerFailed: If the port cannot be opened.
            RuntimeError: If the node is running.
        """
        if self._ledger is not None:
            raise RuntimeError("the regtest node is running")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._is_asked_to_stop = False
        kept_in = self._directory if self._persist else None
        self._ledger = Ledger(kept_in, self._clock, self._options)
        started = time.monotonic()
        self._dispatcher = Dispatcher(
            self._ledger,
            uptime=lambda: int(time.monotonic() - started),
            stop=self.ask_to_stop,
        )
        credentials = f"{COOKIE_USER}:{secrets.token_hex(COOKIE_SIZE)}"
        server = HttpServer(self._answer, credentials=credentials, port=self._wanted_port)
        try:
            server.start()
            self._server = server
            self._write_cookie(credentials)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the port, delete the cookie and the kernel's files. Safe to call twice."""
        self.ask_to_stop()
        if self._server is not None:
            self._server.stop()
            self._server = None
            self.cookie_file.unlink(missing_ok=True)
        with self._turn:
            if self._ledger is not None:
                self._ledger.close()
            self._ledger = self._dispatcher = None

    def call(self, method: str, *params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the result of a method without HTTP: amounts are `Decimal`, as a client reads.

        Raises:
            RpcError: As Bitcoin Core would answer.
            RuntimeError: If the node is not running.
        """
        with self._turn:
            if self._dispatcher is None:
                raise RuntimeError("the regtest node is not running")
            return as_client_sees(self._dispatcher.call(method, params))

    def ask_to_stop(self) -> None:
        """Make `serve_forever` return soon. Safe in a signal handler and from any thread."""
        # Only a flag: an event's lock may be held by the very code the signal interrupted.
        self._is_asked_to_stop = True
        if self._ledger is not None:
            self._ledger.is_interrupted = True

    def serve_forever(self) -> None:
        """Return when a client has called `stop`, or `ask_to_stop` was called."""
        while not self._is_asked_to_stop:
            time.sleep(STOP_POLL_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        with self._turn:
            if self._dispatcher is None:
                raise RuntimeError("the regtest node is not running")
            return self._dispatcher.answer(body)

    def _write_cookie(self, credentials: str) -> None:
        """Write the cookie whole or not at all, readable by its owner only."""
        unfinished = self.cookie_file.with_suffix(".tmp")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(credentials)
        unfinished.replace(self.cookie_file)


def run(
    datadir: Path,
    *,
    port: int = REGTEST.rpc_port,
    persist: bool = True,
    on_started: Callable[[RegtestNode], None] | None = None,
) -> None:
    """Run a node until SIGTERM, SIGINT or the `stop` method; for trying, never for real money.

    Call it in the main thread: it sets the signal handlers, and puts the old ones back.

    Args:
        datadir: Where the cookie and the blocks are kept.
        port: The TCP port on 127.0.0.1; 0 for any that is free.
        persist: Keep the blocks for the next run.
        on_started: Called once the node answers, with the node.

    Raises:
        DatadirBusy: If another node uses the data directory.
        KernelUnavailable: If the kernel's library could not be loaded.
        ServerFailed: If the port cannot be opened.
    """
    node = RegtestNode(datadir, port=port, persist=persist)

    def stop(_number: int, _frame: FrameType | None) -> None:
        node.ask_to_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with node:
            if on_started is not None:
                on_started(node)
            node.serve_forever()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wall_clock() -> int:
    return int(time.time())
