"""The fee ladder of a funding: what each candidate pays, out of the same coins.

Replacing a funding transaction voids every signature below it. So a ceremony may sign for several
that differ in their fee, and the LSP publishes a higher one later without waking a client.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB, fee_sat_of, sat_per_vb
from cromford.factory.funding import CHANGE_MIN_SAT, least_higher_fee_sat
from cromford.factory.terms import InvalidTerms
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.gathered import Member
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.join_size import join_fits
from cromford.protocol.policy import CANDIDATES_MAX
from cromford.signing.nonces import POOL_SIZE_MAX
from cromford.wallet.coins import InsufficientCoins, Selection, WalletCoin, wallet_tx_vsize

JOIN_AGAIN: Final = "clients_join_again"  # Who asked for more keys asks once more, a little later.


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRung:
    """One candidate: the feerate that was asked for, and what it comes to in sat."""

    feerate_sat_per_kw: int
    fee_sat: int
    change_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The coins of a funding, and its candidates, lowest feerate first; one without a ladder."""

    coins: tuple[WalletCoin, ...]
    rungs: tuple[PlannedRung, ...]

    @property
    def selection(self) -> Selection:
        """The coins with what the first candidate leaves of them."""
        first = self.rungs[0]
        return Selection(coins=self.coins, change_sat=first.change_sat, fee_sat=first.fee_sat)


def candidates_asked(house: House) -> int:
    """Return of how many funding candidates whoever joins is asked for keys.

    As many as were ever wanted for a ladder, or as the policy says. Of what was wanted when pools
    were smaller no more than fits a message now: a client that is asked for more hangs up.
    """
    policy = house.config.policy
    wanted = range(policy.funding_candidates, house.ladder_wanted + 1)
    fitting = (n for n in wanted if join_fits(n_candidates=n, pool_size=policy.pool_size))
    return max(fitting, default=policy.funding_candidates)


def check_feerates(feerates_sat_per_kw: Sequence[int]) -> None:
    """Check that each feerate of a ladder is enough above the one before.

    Raises:
        Rejected: Naming the feerate, or that there are too many.
    """
    if len(feerates_sat_per_kw) > CANDIDATES_MAX:
        raise Rejected(
            "invalid_feerates",
            f"funding_feerates: expected at most {CANDIDATES_MAX}, "
            f"received {len(feerates_sat_per_kw)}",
        )
    least = 1
    for place, feerate in enumerate(feerates_sat_per_kw):
        if feerate < least:
            raise Rejected(
                "invalid_feerates",
                f"funding_feerates[{place}]: expected at least {sat_per_vb(least)} sat/vB (1.25 "
                "times the one before, and 1 sat/vB more), received "
                f"{sat_per_vb(feerate)}",
            )
        # A feerate in sat per 1000 weight units is the fee of a transaction of 250 vB.
        least = least_higher_fee_sat(feerate, vsize=SAT_PER_KW_OF_SAT_PER_VB)


def check_keys(members: Sequence[Member], *, n_candidates: int) -> None:
    """Check that everybody joined with keys for as many candidates as a ladder has.

    Raises:
        Rejected: If somebody did not. Whoever was asked joins again by itself.
    """
    lacking = sum(1 for member in members if len(member.join.candidates) < n_candidates)
    if lacking:
        raise Rejected(
            JOIN_AGAIN,
            f"{lacking} of {len(members)} clients joined with keys for fewer than {n_candidates} "
            "funding candidates; they are asked to join again",
            retryable=True,
        )


def check_join_fits(*, n_candidates: int, pool_size: int) -> None:
    """Check that a join with keys of this many candidates fits one message.

    Raises:
        Rejected: Naming the pools' size.
    """
    if not join_fits(n_candidates=n_candidates, pool_size=pool_size):
        raise Rejected(
            "invalid_feerates",
            f"pool_size: expected pools that fit one message with those of {n_candidates} "
            f"candidates, received {pool_size} nonces",
        )


def check_nonces_reach(*, n_candidates: int, n_txs: int, n_branch_txs: int, pool_size: int) -> None:
    """Check that the pools of both sides have a nonce for every session of every candidate.

    Args:
        n_candidates: The ladder's.
        n_txs: The transactions of the whole tree.
        n_branch_txs: Those of the longest branch.
        pool_size: Of a client's pools.

    Raises:
        InvalidTerms: With how many candidates there are too many.
    """
    most = min(POOL_SIZE_MAX // n_txs, pool_size // n_branch_txs)
    if n_candidates > max(1, most):
        raise InvalidTerms("candidates", f"at most {most}, by the nonces of a pool", n_candidates)


def select_ladder(
    house: House, funding_amount_sat: int, feerates_sat_per_kw: Sequence[int]
) -> Ladder:
    """Return coins that pay every candidate, and what each of them leaves as change.

    All are chosen by the highest feerate: each candidate spends the same coins.

    Args:
        house: The house.
        funding_amount_sat: What every candidate pays into the factory.
        feerates_sat_per_kw: Of the candidates, lowest first; empty: the policy's one.

    Raises:
        InsufficientCoins: If the free coins do not reach for the highest.
    """
    feerates = tuple(feerates_sat_per_kw) or (house.config.policy.funding_feerate_sat_per_kw,)
    selection = house.wallet.select(
        output_scripts_sat=funding_amount_sat,
        n_outputs=1,
        feerate_sat_per_kw=feerates[-1],
        tip_height=house.chain.height,
    )
    vsize = wallet_tx_vsize(n_inputs=len(selection.coins), n_outputs=2)
    left_sat = selection.change_sat + selection.fee_sat
    rungs: list[PlannedRung] = []
    for feerate in feerates:
        fee_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
        if rungs:
            # Fees are rounded up: it may take one more to be as far above as clients ask for.
            fee_sat = max(fee_sat, least_higher_fee_sat(rungs[-1].fee_sat, vsize=vsize))
        rungs.append(
            PlannedRung(feerate_sat_per_kw=feerate, fee_sat=fee_sat, change_sat=left_sat - fee_sat)
        )
    if rungs[-1].change_sat < CHANGE_MIN_SAT:
        raise InsufficientCoins(
            needed_sat=funding_amount_sat + rungs[-1].fee_sat + CHANGE_MIN_SAT,
            available_sat=funding_amount_sat + left_sat,
        )
    return Ladder(coins=selection.coins, rungs=tuple(rungs))
