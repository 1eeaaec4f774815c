"""Networks are told apart by their genesis block."""

import pytest

from cromford.bitcoin.network import NETWORKS, network_of_genesis


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_genesis_block_names_its_network(network: object) -> None:
    named = {id(known): known for known in NETWORKS.values()}[id(network)]
    assert network_of_genesis(bytes(named.genesis_hash)) is named
    assert NETWORKS[named.name] is named


def test_no_two_networks_share_a_genesis_block_or_a_port() -> None:
    assert len({network.genesis_hash for network in NETWORKS.values()}) == len(NETWORKS)
    assert len({network.rpc_port for network in NETWORKS.values()}) == len(NETWORKS)


@pytest.mark.parametrize("genesis_hash", [bytes(32), b"", b"\xff" * 40])
def test_an_unknown_genesis_block_is_refused_by_its_displayed_hash(genesis_hash: bytes) -> None:
    with pytest.raises(ValueError, match=f"genesis block {genesis_hash[::-1].hex()}"):
        network_of_genesis(genesis_hash)
