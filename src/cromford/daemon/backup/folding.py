"""Folding a store as its daemon would: whatever cannot be read is found out before it is needed."""

from typing import Any, Final

from cromford.bitcoin.network import Network
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.ports import Store
from cromford.protocol.client import new_client
from cromford.protocol.journal.client_state import ClientConfig, ClientState
from cromford.protocol.journal.entries import FUNDED
from cromford.protocol.journal.lsp_state import LspConfig, LspState
from cromford.protocol.lsp import new_lsp
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.signing.keychain import Keychain
from cromford.wallet.account import Account

_NOBODY: Final = bytes(33)  # A client's LSP is its configuration's, and no part of the fold.


def n_channels_in(store: Store, keychain: Keychain, *, role: str, network: Network) -> int:
    """Return how many channels a store knows of, over or not; all of it is folded for that.

    Raises:
        StoreFailed: If the store cannot be read.
        UnknownRecord: If a record cannot be.
    """
    config: dict[str, Any] = {
        "network": network,
        "node_id": keychain.node_id,
        "account": Account(keychain.wallet_account),
    }
    if role == "client":
        client: ClientState = Driver(
            CLIENT_ROLE,
            new_client(ClientConfig(lsp_node_id=_NOBODY, policy=ClientPolicy(), **config)),
            store,
            lambda _effect: (),
        ).state
        return len(client.book.links)
    lsp: LspState = Driver(
        LSP_ROLE, new_lsp(LspConfig(policy=LspPolicy(), **config)), store, lambda _effect: ()
    ).state
    return sum(len(one.node_ids) for one in lsp.house.factories() if one.status == FUNDED)
