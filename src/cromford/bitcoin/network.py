"""The Bitcoin networks: what tells them apart."""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.tx import Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One chain. `core_name` is what Bitcoin Core's getblockchaininfo calls it."""

    name: str
    core_name: str
    genesis_hash: Txid
    hrp: str  # BIP 173's human-readable part of an address
    coin_type: int  # SLIP 44, in derivation paths
    rpc_port: int


REGTEST: Final = Network(
    name="regtest",
    core_name="regtest",
    genesis_hash=Txid.from_hex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
    hrp="bcrt",
    coin_type=1,
    rpc_port=18443,
)
SIGNET: Final = Network(
    name="signet",
    core_name="signet",
    genesis_hash=Txid.from_hex("00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
    hrp="tb",
    coin_type=1,
    rpc_port=38332,
)
TESTNET4: Final = Network(
    name="testnet4",
    core_name="testnet4",
    genesis_hash=Txid.from_hex("00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
    hrp="tb",
    coin_type=1,
    rpc_port=48332,
)
MAINNET: Final = Network(
    name="mainnet",
    core_name="main",
    genesis_hash=Txid.from_hex("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
    hrp="bc",
    coin_type=0,
    rpc_port=8332,
)
NETWORKS: Final = {network.name: network for network in (REGTEST, SIGNET, TESTNET4, MAINNET)}
