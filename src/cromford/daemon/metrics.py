"""Numbers for Prometheus, read from the state when they are asked for."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from cromford.daemon.loopback import LOCALHOST, is_loopback, names_us
from cromford.listening import METRICS, listening_for

CONNECTIONS_MAX: Final = 16  # At once: whoever scrapes has one.
QUIET_SECONDS: Final = 10.0  # That a connection may say nothing, or read nothing.
COUNTED: Final = "_total"  # How the name of a number ends that only rises while the daemon runs.

_log = logging.getLogger(__name__)

# A name, with label values if it has labels, to a number.
Sample = tuple[str, Mapping[str, str], float]

# What each number is; `docs/metrics.md` says the same.
HELP: Final[dict[str, str]] = {
    "height": "Height of the newest block that was seen.",
    "header_height": "Height of the newest header that the node has.",
    "chain_fresh": "1 while the chain is fresh, so that new risk is taken.",
    "chain_up": "1 while the node answers all it is asked.",
    "seconds_since_block": "How old the node's newest block is, by its own stamp.",
    "refused_transactions": "Transactions that the node does not take.",
    "broadcasts_refused_total": "Refusals of the node that were news, since the start.",
    "blocks_to_next_deadline": "Blocks to the next height by which something has to be done.",
    "connected_peers": "Peers that are connected.",
    "failed_decisions": "Bugs of ours that were met while deciding, since the start.",
    "webhooks_failing": "Webhooks whose next event was not taken the last time.",
    "double_signings_prevented": "Second signatures of one outpoint that were not made.",
    "mark_reachable": "1 while the place of the high-water mark can be written.",
    "replica_reachable": "1 while the place of the replica can be written.",
    "replica_behind_records": "Records that the replica lacks.",
    "replica_behind_seconds": "How long ago the replica had everything.",
    "store_restored": "1 if the store was put back from a backup.",
    "wallet_sat": "Coins of the wallet.",
    "reserved_coins": "Coins that are reserved for fundings and children.",
    "reserved_sat": "What the reserved coins hold.",
    "lacking_sat": "What coins would have to hold that transactions of the LSP need and lack.",
    "channels_open": "Channels that payments can go through.",
    "channels_msat": "What the channels hold and can carry.",
    "payments": "Payments.",
    "payments_ended_total": "Payments that ended, since the start.",
    "nonce_pools": "Pools of secret nonces in memory.",
    "nonces": "Nonces of these pools that have signed, and that are left.",
    "factories": "Factories.",
    "factories_in_period": "Factories in each period of their lives.",
    "closes": "Closes under way, and signed ones that wait for a block.",
    "locked_sat": "Coins of the LSP that factories hold.",
    "earned_msat": "What forwarding earned.",
    "forwards": "Payments from client to client.",
    "lobby_clients": "Clients that wait in the lobby.",
    "banned_peers": "Nodes to which the lobby is closed.",
    "ceremonies_ended_total": "Ceremonies that ended, since the start.",
    "ceremony_phase_seconds_total": "Seconds that the phases took that are over, since the start.",
    "ceremony_phases_total": "Phases of ceremonies that are over, since the start.",
    "ceremony_holdouts": "Clients that the present ceremony waits for.",
    "blocks_to_expiry": "Blocks to the expiry of a factory.",
    "blocks_to_dying": "Blocks to the dying period of a factory.",
}


class StateCollector(Collector):
    """Turns a daemon's present numbers into gauges and counters.

    Args:
        read: Returns the samples. It is called from the server's thread, so it must only read
            values that are never changed in place, as every role state is.
    """

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return one gauge or counter per name."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for name, labels, value in self._read():
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if name.endswith(COUNTED) else GaugeMetricFamily
                family = families[name] = kind(
                    f"cromford_{name}", HELP[name], labels=sorted(labels)
                )
            family.add_metric([labels[label] for label in sorted(labels)], value)
        return families.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is answered beside the numbers: an HTTP status, and one JSON document."""

    status: int
    body: str


METRICS_PATH: Final = "/metrics"
_REASONS: Final = {200: "200 OK", 503: "503 Service Unavailable"}
_FORBIDDEN: Final = "403 Forbidden"
_NOT_FOUND: Final = "404 Not Found"


class _Quiet(WSGIRequestHandler):
    """Answers without a line of its own on stderr."""

    timeout = QUIET_SECONDS

    def handle(self) -> None:
        """Answer one request. Who says nothing, or goes, is no news either."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing: a scrape is no news."""


class _Bounded(ThreadingWSGIServer):
    """Serves only a few at once: each has a thread, and a file that the daemon needs.

    The one that came first makes room for the newest. It counts until its thread has ended, which
    may wait for the daemon's loop: where twice as many are on their way out, nobody is let in.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the library's
        self._lock = threading.Lock()
        self._open: dict[Any, bool] = {}  # By socket, the oldest first: whether it was ended.
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the library's
        """Begin to serve a connection, if there is room or can be made."""
        with self._lock:
            is_crowded = len(self._open) >= 2 * CONNECTIONS_MAX
            if not is_crowded:
                self._make_room()
                self._open[request] = False
        if is_crowded:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as the library's
        """End a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def _make_room(self) -> None:
        serving = [one for one, is_ended in self._open.items() if not is_ended]
        for oldest in serving[: 1 + len(serving) - CONNECTIONS_MAX]:
            self._open[oldest] = True
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)


class _OverIpv6(_Bounded):
    """The same, where the host is an IPv6 address."""

    address_family = socket.AF_INET6


class MetricsServer:
    """Serves `/metrics`, and pages by their paths, until it is closed."""

    def __init__(
        self,
        listen: tuple[str, int],
        read: Callable[[], Iterable[Sample]],
        *,
        pages: Mapping[str, Callable[[], Page]] | None = None,
    ) -> None:
        """Start serving; port 0 takes any that is free.

        Args:
            listen: Where: a host and a port. Whoever can connect there reads what the daemon holds.
            read: Returns the numbers; called from a thread of the server's.
            pages: What answers other paths; called from such a thread, too.

        Raises:
            CannotListen: If nobody can listen there.
        """
        host, port = listen
        registry = CollectorRegistry()
        registry.register(StateCollector(read))
        numbers, others = make_wsgi_app(registry), dict(pages or {})
        names = {LOCALHOST, host.lower()}

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            asked, path = environ.get("HTTP_HOST", ""), environ["PATH_INFO"]
            # By HTTP/1.0 nobody need be named; a browser always says whom it asks.
            if asked and is_loopback(host) and not names_us(asked, names):
                return _refused(start_response, _FORBIDDEN, f"host: {asked!r} is no name of ours")
            if path == METRICS_PATH:
                found: Iterable[bytes] = numbers(environ, start_response)
                return found
            if path not in others:
                # Numbers for any path would let a probe whose path is misspelt hold for ever.
                told = f"expected one of {', '.join((METRICS_PATH, *others))}, received {path!r}"
                return _refused(start_response, _NOT_FOUND, told)
            page = others[path]()
            start_response(_REASONS[page.status], [("Content-Type", "application/json")])
            return [page.body.encode()]

        serving = _OverIpv6 if ":" in host else _Bounded
        with listening_for(METRICS, host, port):
            self._server = make_server(host, port, answer, serving, handler_class=_Quiet)
        if not is_loopback(host):
            _log.warning("metrics_beyond_this_machine host=%s port=%d", host, self.port)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it serves on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _refused(start_response: StartResponse, status: str, told: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{told}\n".encode()]
