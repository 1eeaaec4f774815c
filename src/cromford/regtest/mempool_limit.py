"""The end of a mempool: what leaves when it is full, and the minimum feerate that follows.

As Core does it (`TrimToSize`, `GetMinFee`): the chunk with the worst feerate leaves, until the rest
fits. Whoever wants in from then on pays more than what left, by the incremental feerate. Once a
block has come, that minimum halves every twelve hours, or sooner where there is room again.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from cromford.regtest.linearize import Chunk
from cromford.regtest.mempool import Mempool
from cromford.regtest.options import Options

HALF_LIFE_SECONDS: Final = 12 * 60 * 60
UPDATE_SECONDS: Final = 10  # The minimum falls in steps at least so far apart.


class MempoolLimit:
    """Keeps a mempool below its size, and remembers what that cost.

    Args:
        mempool: The mempool.
        options: How large it may be, and the feerates of relay.
        clock: Gives the time in seconds since the epoch.
    """

    def __init__(self, mempool: Mempool, options: Options, clock: Callable[[], int]) -> None:
        self._mempool = mempool
        self._options = options
        self._clock = clock
        self._rolling_sat_per_kvb = 0.0
        self._updated = 0
        self._is_falling = False  # Only a block shows that those who left are not in the way.

    @property
    def rolling_sat_per_kvb(self) -> int:
        """What leaving transactions paid, and more, as it has fallen since; 0 for nothing."""
        if not self._is_falling or not self._rolling_sat_per_kvb:
            return _rounded(self._rolling_sat_per_kvb)
        elapsed = self._clock() - self._updated
        incremental = self._options.incremental_relay_sat_per_kvb
        if elapsed > UPDATE_SECONDS:
            self._rolling_sat_per_kvb /= 2 ** (elapsed / self._half_life_seconds)
            self._updated += elapsed
            if self._rolling_sat_per_kvb < incremental / 2:
                self._rolling_sat_per_kvb = 0.0
                return 0
        return max(_rounded(self._rolling_sat_per_kvb), incremental)

    @property
    def minimum_sat_per_kvb(self) -> int:
        """The feerate below which nothing gets in (`mempoolminfee`)."""
        return max(self.rolling_sat_per_kvb, self._options.min_relay_sat_per_kvb)

    @property
    def _half_life_seconds(self) -> float:
        usage, usage_max = self._mempool.usage, self._options.mempool_bytes_max
        if usage * 4 < usage_max:
            return HALF_LIFE_SECONDS / 4
        return HALF_LIFE_SECONDS / 2 if usage * 2 < usage_max else HALF_LIFE_SECONDS

    def block_connected(self) -> None:
        """Take note of a block: from now on the minimum falls."""
        self._updated = self._clock()
        self._is_falling = True

    def trim(self) -> None:
        """Remove the worst chunks until the rest fits."""
        if self._mempool.usage <= self._options.mempool_bytes_max:
            return
        chunks = self._mempool.chunks()
        while self._mempool.usage > self._options.mempool_bytes_max:
            self._evict(chunks.pop())

    def set_minimum(self, rate_sat_per_kvb: int) -> None:
        """Make the minimum what it would be had the mempool been full, or had long been empty.

        As if what paid up to this feerate, less the incremental one, had had to leave; so it does.
        """
        self._rolling_sat_per_kvb = 0.0
        self._is_falling = False
        highest = rate_sat_per_kvb - self._options.incremental_relay_sat_per_kvb
        chunks = self._mempool.chunks()
        while chunks and _sat_per_kvb(chunks[-1]) <= highest:
            self._evict(chunks.pop())
        self._rolling_sat_per_kvb = float(rate_sat_per_kvb)

    def _evict(self, chunk: Chunk) -> None:
        self._mempool.remove(chunk.txids)
        least = int(_sat_per_kvb(chunk)) + self._options.incremental_relay_sat_per_kvb
        if least > self._rolling_sat_per_kvb:
            self._rolling_sat_per_kvb = float(least)
            self._is_falling = False


def _rounded(rate_sat_per_kvb: float) -> int:
    return int(rate_sat_per_kvb + 0.5)  # Half a satoshi up, as C does.


def _sat_per_kvb(chunk: Chunk) -> Fraction:
    return Fraction(chunk.fee_sat * 1000, -(-chunk.weight // 4))
