"""Is this node the one we need? Asked before anything is built on it, and after each silence."""

from typing import Final

from bitcoin_core_rpc import RpcError

from cromford.adapters.bitcoind import BitcoindChain
from cromford.bitcoin.network import SIGNET, Network
from cromford.ports import ChainUnavailable, CredentialsRefused

# The first release that relays ephemeral dust, beside package relay and pay-to-anchor.
CORE_VERSION_MIN: Final = 290_000
# BIP 325: who may sign blocks of the public signet, one of two keys. All signets share one genesis.
PUBLIC_SIGNET_CHALLENGE: Final = (
    "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430"
    "210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae"
)
# Of a method that it does not know (JSON-RPC 2.0), or does not allow (btc-rpc-proxy).
NO_METHOD_CODES: Final = frozenset({-32_601, -32_604})
_NO_TXID: Final = "00" * 32


class ChainMismatch(Exception):
    """The node serves another chain, or is not fit to. Retrying does not help."""

    def __init__(self, field: str, *, expected: object, received: object) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


class NodeCheck:
    """Asks a node whether it is the one we need: the first time, whether it answers all we ask.

    A whitelist (`rpcwhitelist`) or a proxy may leave methods out, and an exit would be the first to
    need one of them. Later a node that leaves some out is better than none.
    """

    def __init__(
        self, chain: BitcoindChain, network: Network, *, signet_challenge: str | None = None
    ) -> None:
        """Ask nothing yet; the arguments are those of `check_node`."""
        self._chain = chain
        self._network = network
        self._signet_challenge = signet_challenge
        self._is_answered = False

    async def __call__(self) -> None:
        """Check the node.

        Raises:
            ChainMismatch: Naming what differs.
            CredentialsRefused: If the node does not let us in, or at the first time call a method.
            ChainUnavailable: If the node does not answer.
        """
        await check_node(self._chain, self._network, signet_challenge=self._signet_challenge)
        if not self._is_answered:
            await check_methods(self._chain, self._network)
            self._is_answered = True


async def check_methods(chain: BitcoindChain, network: Network) -> None:
    """Refuse a node that leaves out a method which we call, by asking for what changes nothing.

    What it says is no matter: that a block was pruned, a transaction is unknown, or is none.

    Raises:
        CredentialsRefused: Naming the method.
        ChainUnavailable: If the node does not answer.
    """
    genesis = str(network.genesis_hash)
    for method, params in (
        ("getblockheader", (genesis,)),
        ("getblock", (genesis, 0)),
        ("gettxout", (_NO_TXID, 0, False)),
        ("getmempoolentry", (_NO_TXID,)),
        ("getmempoolinfo", ()),
        ("gettxspendingprevout", ([{"txid": _NO_TXID, "vout": 0}],)),
        ("estimatesmartfee", (6,)),
        ("sendrawtransaction", ("",)),
        ("submitpackage", ([],)),
    ):
        try:
            await chain.call(method, *params)
        except RpcError as error:
            if error.code in NO_METHOD_CODES:
                raise CredentialsRefused(str(error)) from error


async def check_node(
    chain: BitcoindChain, network: Network, *, signet_challenge: str | None = None
) -> None:
    """Refuse a node of another network, or one that is too old.

    One that is still catching up is fit: it is waited for, and stale until then.

    Args:
        chain: The node.
        network: The network it has to be on.
        signet_challenge: On signet, the challenge in hex; None is the public signet's.

    Raises:
        ChainMismatch: Naming what differs.
        CredentialsRefused: If the node does not let us in.
        ChainUnavailable: If the node does not answer.
    """
    info = await _ask(chain, "getblockchaininfo")
    _check("chain", expected=network.core_name, received=info.get("chain"))
    _check("genesis hash", expected=network.genesis_hash, received=await chain.block_hash(0))
    if network == SIGNET:
        expected = signet_challenge or PUBLIC_SIGNET_CHALLENGE
        _check("signet challenge", expected=expected, received=info.get("signet_challenge"))
    version = (await _ask(chain, "getnetworkinfo")).get("version")
    if not isinstance(version, int) or version < CORE_VERSION_MIN:
        raise ChainMismatch("version", expected=f"{CORE_VERSION_MIN} or newer", received=version)


async def _ask(chain: BitcoindChain, method: str) -> dict[str, object]:
    try:
        answer = await chain.call(method)
    except RpcError as error:
        raise ChainUnavailable(f"{method}: {error}") from error
    if not isinstance(answer, dict):
        raise ChainUnavailable(f"{method}: expected an object, received {answer!r:.100}")
    return answer


def _check(field: str, *, expected: object, received: object) -> None:
    if received != expected:
        raise ChainMismatch(field, expected=expected, received=received)
