"""What a daemon is told when it starts: where its data and its chain are, and its policy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cromford.adapters.peer_address import PeerAddress
from cromford.adapters.places import Limits
from cromford.bitcoin.network import Network
from cromford.protocol.policy import ClientPolicy, LspPolicy, check_is_safe
from cromford.watch.feerates import FALLBACK_SAT_PER_KW

POLL_SECONDS: Final = 2.0  # How often a daemon asks its node for a new tip.
LOG_LEVEL: Final = "info"
LOG_FORMAT: Final = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """Where a Bitcoin Core answers, and how it knows us: a cookie, or a user with a password.

    The password stands in a file of its own, so that no command line and no listing of the
    environment shows it.
    """

    url: str
    cookie_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        has_password = self.user is not None and self.password_file is not None
        if (self.user is None) != (self.password_file is None):
            raise ValueError("chain: a user and a password file go together")
        if (self.cookie_file is not None) == has_password:
            raise ValueError("chain: either a cookie file, or a user with a password file")


@dataclass(frozen=True, slots=True, kw_only=True)
class LspOptions:
    """How an LSP runs. `listen_port` 0 takes any port that is free.

    `announce` is where clients reach it, if that is not where it listens: the host and the port of
    whoever passes connections on to it.
    """

    datadir: Path
    network: Network
    chain: ChainOptions
    listen_host: str
    listen_port: int
    policy: LspPolicy
    announce: tuple[str, int] | None = None  # None: where it listens
    limits: Limits = field(default_factory=Limits)
    poll_seconds: float = POLL_SECONDS
    fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW
    log_level: str = LOG_LEVEL
    log_format: str = LOG_FORMAT
    metrics_listen: tuple[str, int] | None = None  # None: no metrics are served
    seed_passphrase_file: Path | None = None
    signet_challenge: str | None = None  # in hex; None on signet means the public one
    backup_dir: Path | None = None  # None: no replica is kept
    mark_dir: Path | None = None  # None: no mark is kept
    api_listen: tuple[str, int] | None = None  # None: the API is on its unix socket only


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client runs, and whose client it is.

    Raises:
        UnsafePolicy: If an LSP could take this client's money by terms that it would sign.
    """

    datadir: Path
    network: Network
    chain: ChainOptions
    lsp: PeerAddress
    policy: ClientPolicy
    poll_seconds: float = POLL_SECONDS
    fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW
    log_level: str = LOG_LEVEL
    log_format: str = LOG_FORMAT
    metrics_listen: tuple[str, int] | None = None  # None: no metrics are served
    seed_passphrase_file: Path | None = None
    signet_challenge: str | None = None  # in hex; None on signet means the public one
    backup_dir: Path | None = None  # None: no replica is kept
    mark_dir: Path | None = None  # None: no mark is kept
    api_listen: tuple[str, int] | None = None  # None: the API is on its unix socket only

    def __post_init__(self) -> None:
        check_is_safe(self.policy, self.network)
