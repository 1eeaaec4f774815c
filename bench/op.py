"""The operations that floors are made of: their names, how many a row needs, what one costs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from time import process_time_ns
from typing import Any


class Op(StrEnum):
    """One operation. The value is its name in the results."""

    PUBKEY_PARSE = "pubkey_parse"
    PUBKEY_CREATE = "pubkey_create"
    KEYPAIR_CREATE = "keypair_create"
    KEY_AGG_TWO = "key_agg_two"
    KEY_AGG_NEXT = "key_agg_next"
    TWEAK = "tweak"
    NONCE_GEN = "nonce_gen"
    PUBNONCE_PARSE = "pubnonce_parse"
    NONCE_AGG_TWO = "nonce_agg_two"
    NONCE_AGG_NEXT = "nonce_agg_next"
    AGGNONCE_PARSE = "aggnonce_parse"
    SESSION = "session"
    PARTIAL_SIGN = "partial_sign"
    PARTIAL_SIG_PARSE = "partial_sig_parse"
    PARTIAL_AGG_TWO = "partial_agg_two"
    PARTIAL_AGG_NEXT = "partial_agg_next"
    SCHNORR_SIGN = "schnorr_sign"
    SCHNORR_VERIFY = "schnorr_verify"
    PUBKEY_MUL = "pubkey_mul"
    PUBKEY_SUM = "pubkey_sum"
    PUBKEY_TWEAK = "pubkey_tweak"
    XONLY_TWEAK = "xonly_tweak"
    SECKEY_TWEAK = "seckey_tweak"


Work = Counter[Op]  # how many of each operation something needs
Costs = Mapping[Op, float]  # microseconds of one operation


def floor_ms(work: Work, costs: Costs) -> float:
    """Return the milliseconds that the operations of `work` take by themselves."""
    return sum(n * costs[op] for op, n in work.items()) / 1000


def median_costs(measured: Sequence[Costs]) -> dict[Op, float]:
    """Return the median cost of each operation over several measurements."""
    return {op: median(costs[op] for costs in measured) for op in Op}


@dataclass(frozen=True, slots=True)
class Batch:
    """One function, and the arguments of each call."""

    function: Callable[..., int]
    arguments: Sequence[tuple[Any, ...]]


def time_us(batch: Batch) -> float:
    """Return the microseconds of CPU that one call of a batch takes."""
    function = batch.function
    began = process_time_ns()
    for arguments in batch.arguments:
        function(*arguments)
    return (process_time_ns() - began) / 1000 / len(batch.arguments)
