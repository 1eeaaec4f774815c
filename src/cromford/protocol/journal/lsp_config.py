"""What does not change while an LSP runs."""

from dataclasses import dataclass

from cromford.bitcoin.network import Network
from cromford.protocol.policy import LspPolicy
from cromford.wallet.account import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class LspConfig:
    """Who the LSP is, on which network, and what its operator decided."""

    network: Network
    node_id: bytes
    policy: LspPolicy
    account: Account
