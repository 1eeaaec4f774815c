"""Networks are told apart by their genesis block."""

from cromford.bitcoin.network import NETWORKS


def test_a_network_is_found_by_its_own_name() -> None:
    assert all(name == network.name for name, network in NETWORKS.items())


def test_no_two_networks_share_a_genesis_block_or_a_port() -> None:
    assert len({network.genesis_hash for network in NETWORKS.values()}) == len(NETWORKS)
    assert len({network.rpc_port for network in NETWORKS.values()}) == len(NETWORKS)
