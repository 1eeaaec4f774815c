"""What is let through is what those can use to whom it is handed."""

from collections.abc import Callable

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient

from cromford.cli.configuration.kinds import Endpoint, NodeUrl, NodeUser

URLS = [
    "http://127.0.0.1:18443",
    "https://node.example/wallet",
    "http://[::1]:8332/",
    "HTTP://node",
    "http://node:",
    "",
    "node",
    "node:8332",
    "http:",
    "http://",
    "http://:8332",
    "ftp://node",
    "http://me:secret@node",
    "http://me@node",
    "http://node:65536",
    "http://node:port",
    "http://[::1",
    "http://node/?a=b",
    "http://node/#a",
    "http://node /",
    "http://n\u00f6de",
    "http://node\n",
]


def refuses(ask: Callable[[], object]) -> str:
    """Return why something is refused; empty if it is not."""
    try:
        ask()
    except ValueError as error:
        return str(error) or "refused"
    return ""


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_refused_before_a_daemon_starts_where_the_nodes_client_would_refuse_it(
    url: str,
) -> None:
    by_client = refuses(lambda: BitcoinCoreRpcClient(url, user="me", password="it"))
    by_us = refuses(lambda: NodeUrl().of_text(url))
    assert bool(by_us) == bool(by_client), (by_us, by_client)
    assert "secret" not in by_us


@pytest.mark.parametrize("host", ["a..b", 64 * "a", ".a", "a..b:8332"])
def test_a_node_that_no_name_server_can_be_asked_for_is_refused(host: str) -> None:
    assert refuses(lambda: NodeUrl().of_text(f"http://{host}/"))


@pytest.mark.parametrize("user", ["me", "me:it", ":"])
def test_a_user_is_refused_where_the_nodes_client_would_refuse_it(user: str) -> None:
    by_client = refuses(lambda: BitcoinCoreRpcClient("http://node", user=user, password="it"))
    by_us = refuses(lambda: NodeUser().of_text(user))
    assert bool(by_us) == bool(by_client), (by_us, by_client)


@pytest.mark.parametrize("written", ["::1", "::1:9750", "2001:db8::9750", "fe80::1", "[::1]"])
def test_to_listen_an_ipv6_address_stands_in_brackets_or_nobody_knows_where_it_ends(
    written: str,
) -> None:
    assert refuses(lambda: Endpoint().of_text(written))


@pytest.mark.parametrize("written", ["http://127.0.0.1:9750", "host:9750:1", "a b:1", "[host]:1"])
def test_to_listen_a_host_is_an_address_or_a_name(written: str) -> None:
    assert refuses(lambda: Endpoint().of_text(written))


def test_to_listen_any_free_port_of_any_kind_of_address_will_do() -> None:
    listens = ["127.0.0.1:0", "localhost:9750", "[::]:0", "[2001:db8::1]:65535"]
    hosts = ["127.0.0.1", "localhost", "::", "2001:db8::1"]
    assert [Endpoint().of_text(written)[0] for written in listens] == hosts
