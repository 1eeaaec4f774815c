"""Every key of the configuration: its section, its kind, its default, and what it is for.

A key `name` of a section `s` is set by `name` below `[s]` in the file, by `CROMFORD_<S>_<NAME>` in
the environment, and, if it has a flag, by that flag of a daemon's `run`.
"""

from decimal import Decimal
from typing import Final

from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.network import NETWORKS
from cromford.cli.configuration.key import Key
from cromford.cli.configuration.kinds import (
    FEERATE,
    Choice,
    Endpoint,
    File,
    Flag,
    Hex,
    NodeUrl,
    NodeUser,
    Number,
)
from cromford.cli.configuration.role_keys import AGENT_KEYS, CLIENT_KEYS, LSP_KEYS
from cromford.daemon.freshness import SILENCE_SECONDS_MAX
from cromford.daemon.logs import LOG_FORMATS, LOG_LEVELS
from cromford.daemon.options import LOG_FORMAT, LOG_LEVEL, POLL_SECONDS
from cromford.watch.feerates import FALLBACK_SAT_PER_KW

NETWORK_DEFAULT: Final = "regtest"
POLL_SECONDS_MIN: Final = Decimal("0.02")
# A node that is asked less often counts as silent between two answers.
POLL_SECONDS_MAX: Final = Decimal(SILENCE_SECONDS_MAX) / 2
SIGNET_CHALLENGE_SIZE_MAX: Final = 10_000  # BIP 141: no script is longer.


SECTIONS: Final = {
    "chain": "The Bitcoin chain, and the Bitcoin Core node that knows it.",
    "log": "What the daemon writes to stderr.",
    "metrics": "Numbers for Prometheus.",
    "api": "The local API, besides its unix socket.",
    "seed": "The seed file.",
    "backup": "Where the store is kept safe: a second place for its replica, a third for its mark.",
    "lsp": "An LSP: where it listens, what it offers, how it builds. Only `lsp run` reads these.",
    "client": "A client: its LSP, and the terms it signs. Only `client run` reads these.",
    "agent": "An exit agent. Only `agent run` reads these.",
}

_CHAIN: Final = (
    Key(
        section="chain",
        name="network",
        kind=Choice(tuple(NETWORKS)),
        default=NETWORK_DEFAULT,
        help="The Bitcoin network. Mainnet needs `allow_mainnet` too.",
    ),
    Key(
        section="chain",
        name="allow_mainnet",
        kind=Flag(),
        default=False,
        help="Let a daemon run on mainnet, with money that can be lost.",
        flag="--allow-mainnet",
    ),
    Key(
        section="chain",
        name="url",
        kind=NodeUrl(),
        default=None,
        help="Bitcoin Core's JSON-RPC.",
        flag="--chain-url",
        shown_default="http://127.0.0.1 and the network's port",
    ),
    Key(
        section="chain",
        name="cookie",
        kind=File(),
        default=None,
        help="Its cookie file.",
        flag="--chain-cookie",
        shown_default="that of bitcoind's default data directory",
    ),
    Key(
        section="chain",
        name="user",
        kind=NodeUser(),
        default=None,
        help="A user of the node, instead of a cookie.",
        flag="--chain-user",
    ),
    Key(
        section="chain",
        name="password_file",
        kind=File(),
        default=None,
        help="A file with the user's password on its first line.",
        flag="--chain-password-file",
    ),
    Key(
        section="chain",
        name="signet_challenge",
        kind=Hex(SIGNET_CHALLENGE_SIZE_MAX),
        default=None,
        help="The challenge script of a signet of your own.",
        flag="--signet-challenge",
        shown_default="that of the public signet",
    ),
    Key(
        section="chain",
        name="poll_seconds",
        kind=Number(POLL_SECONDS_MIN, POLL_SECONDS_MAX, "SECONDS"),
        default=Decimal(str(POLL_SECONDS)),
        help="How often to look for new blocks.",
        flag="--poll-seconds",
    ),
    Key(
        section="chain",
        name="fallback_feerate_sat_per_vb",
        kind=FEERATE,
        default=Decimal(FALLBACK_SAT_PER_KW) / SAT_PER_KW_OF_SAT_PER_VB,
        help="What our own transactions pay where the node has no estimate. Sweeps and penalties "
        "pay at least twice what its mempool asks for.",
    ),
)

_DAEMON: Final = (
    Key(
        section="log",
        name="level",
        kind=Choice(LOG_LEVELS),
        default=LOG_LEVEL,
        help="How much to write.",
        flag="--log-level",
    ),
    Key(
        section="log",
        name="format",
        kind=Choice(LOG_FORMATS),
        default=LOG_FORMAT,
        help="Lines of text, or of JSON.",
        flag="--log-format",
    ),
    Key(
        section="metrics",
        name="listen",
        kind=Endpoint(),
        default=None,
        help="Serve metrics for Prometheus, /healthz and /readyz here. Whoever can connect reads "
        "what the daemon holds: let it be 127.0.0.1, or a network of your own.",
        flag="--metrics-listen",
        shown_default="none are served",
    ),
    Key(
        section="api",
        name="listen",
        kind=Endpoint(),
        default=None,
        help="Serve the API by TCP, too, and a page: for whoever has a token, see `token add`.",
        flag="--api-listen",
        shown_default="only the unix socket",
    ),
    Key(
        section="api",
        name="beyond_loopback",
        kind=Flag(),
        default=False,
        help="Let --api-listen name an address that other machines reach. Tokens travel "
        "unencrypted: put a TLS proxy before it.",
        flag="--api-beyond-loopback",
    ),
    Key(
        section="seed",
        name="passphrase_file",
        kind=File(),
        default=None,
        help="A file with the passphrase that encrypts the seed file, on its first line.",
        flag="--seed-passphrase-file",
        shown_default="the seed is not encrypted",
    ),
    Key(
        section="backup",
        name="dir",
        kind=File("DIR"),
        default=None,
        help="A directory on another disk that every change of the store follows to, encrypted.",
        flag="--backup-dir",
        shown_default="no replica is kept",
    ),
    Key(
        section="backup",
        name="mark_dir",
        kind=File("DIR"),
        default=None,
        help="A directory in a third place for the high-water mark: without it a restored store's "
        "channels only close. While it does not answer, no channel is updated.",
        flag="--mark-dir",
        shown_default="no mark is kept",
    ),
)

KEYS: Final = (*_CHAIN, *_DAEMON, *LSP_KEYS, *CLIENT_KEYS, *AGENT_KEYS)
