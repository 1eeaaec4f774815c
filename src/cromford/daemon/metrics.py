"""Numbers for Prometheus, read from the state when they are asked for. Loopback only."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LOOPBACK: Final = "127.0.0.1"

# A name, with label values if it has labels, to a number.
Sample = tuple[str, Mapping[str, str], float]


class StateCollector(Collector):
    """Turns a daemon's present numbers into gauges.

    Args:
        read: Returns the samples. It is called from the server's thread, so it must only read
            values that are never changed in place, as every role state is.
    """

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return one gauge per name."""
        gauges: dict[str, GaugeMetricFamily] = {}
        for name, labels, value in self._read():
            gauge = gauges.get(name)
            if gauge is None:
                described = name.replace("_", " ")
                gauge = gauges[name] = GaugeMetricFamily(
                    f"cromford_{name}", described, labels=sorted(labels)
                )
            gauge.add_metric([labels[label] for label in sorted(labels)], value)
        return gauges.values()


class MetricsServer:
    """Serves `/metrics` on loopback until it is closed."""

    def __init__(self, port: int, read: Callable[[], Iterable[Sample]]) -> None:
        """Start serving; port 0 takes any that is free.

        Raises:
            OSError: If the port is taken.
        """
        registry = CollectorRegistry()
        registry.register(StateCollector(read))
        self._server, self._thread = start_http_server(port, addr=LOOPBACK, registry=registry)

    @property
    def port(self) -> int:
        """The port it serves on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
