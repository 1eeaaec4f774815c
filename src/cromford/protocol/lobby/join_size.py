"""How large a join is: keys and a pool of nonces for each funding candidate, in one message."""

from typing import Final

from cromford.crypto.musig2 import PUBNONCE_SIZE
from cromford.wire.messages import MESSAGE_SIZE_MAX

FRAME_SIZE: Final = 1_000  # What stands beside the nonces of each pool, and beside all, rounded up.


def join_fits(*, n_candidates: int, pool_size: int) -> bool:
    """Say whether a join with keys of this many candidates, and pools of this size, fits."""
    pools = (n_candidates + 1) * (pool_size * PUBNONCE_SIZE + FRAME_SIZE)
    return pools + FRAME_SIZE <= MESSAGE_SIZE_MAX
