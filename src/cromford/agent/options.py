"""What an agent is told when it starts. It has no seed: it signs nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cromford.bitcoin.network import Network
from cromford.daemon.options import LOG_FORMAT, LOG_LEVEL, POLL_SECONDS, ChainOptions

PACKAGES_MAX: Final = 1_000  # Each is asked for at every block.


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent runs, and how many packages it holds at most."""

    datadir: Path
    network: Network
    chain: ChainOptions
    packages_max: int = PACKAGES_MAX
    poll_seconds: float = POLL_SECONDS
    log_level: str = LOG_LEVEL
    log_format: str = LOG_FORMAT
    signet_challenge: str | None = None  # in hex; None on signet means the public one
