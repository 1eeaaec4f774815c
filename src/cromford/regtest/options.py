"""What a node may be started with: the options of Bitcoin Core that this one knows."""

from dataclasses import dataclass, fields
from typing import Final

from cromford.bitcoin.block import BLOCK_WEIGHT_MAX
from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW
from cromford.bitcoin.tx import WITNESS_SCALE

MIN_RELAY_SAT_PER_KVB: Final = WITNESS_SCALE * MIN_RELAY_SAT_PER_KW
INCREMENTAL_RELAY_SAT_PER_KVB: Final = 100
DATACARRIER_SIZE_MAX: Final = 100_000
MEMPOOL_BYTES_MAX: Final = 300_000_000
RESERVED_WEIGHT: Final = 8_000  # For the header and the coinbase, as Core reserves.


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a node relays and mines. The defaults are those of Core 31.

    Attributes:
        min_relay_sat_per_kvb: The least feerate that is relayed (`-minrelaytxfee`).
        incremental_relay_sat_per_kvb: What a replacement pays on top (`-incrementalrelayfee`).
        datacarrier_size_max: Bytes of OP_RETURN outputs in one transaction (`-datacarriersize`);
            0 for none (`-datacarrier=0`).
        mempool_bytes_max: The memory for waiting transactions (`-maxmempool`). Core demands five
            million; here any is taken, so that a few transactions fill it.
        block_weight_max: The weight of a block that is mined (`-blockmaxweight`).
    """

    min_relay_sat_per_kvb: int = MIN_RELAY_SAT_PER_KVB
    incremental_relay_sat_per_kvb: int = INCREMENTAL_RELAY_SAT_PER_KVB
    datacarrier_size_max: int = DATACARRIER_SIZE_MAX
    mempool_bytes_max: int = MEMPOOL_BYTES_MAX
    block_weight_max: int = BLOCK_WEIGHT_MAX

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 0:
                raise ValueError(f"{field.name}: expected 0 or more, received {value}")
        if not RESERVED_WEIGHT <= self.block_weight_max <= BLOCK_WEIGHT_MAX:
            raise ValueError(
                f"block_weight_max: expected {RESERVED_WEIGHT}..{BLOCK_WEIGHT_MAX}, "
                f"received {self.block_weight_max}"
            )
        if self.incremental_relay_sat_per_kvb > self.min_relay_sat_per_kvb:
            # Core would raise the minimum by itself.
            raise ValueError(
                f"min_relay_sat_per_kvb: expected at least the incremental feerate, "
                f"{self.incremental_relay_sat_per_kvb}, received {self.min_relay_sat_per_kvb}"
            )


DEFAULTS: Final = Options()
