"""What a client checks of all candidates of a funding together, be it one or a ladder of them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint
from cromford.crypto.musig2 import is_aggnonce
from cromford.factory.branch import Branch
from cromford.factory.funding import CHANGE_VOUT, least_higher_fee_sat
from cromford.factory.tree import FACTORY_VOUT
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.journal.proposal import ClaimedCandidate
from cromford.protocol.refusing import check_equal, check_range
from cromford.wallet.coins import wallet_tx_vsize
from cromford.wire.messages import ChannelOffer, NonceUse


def check_rising(
    claims: Sequence[ClaimedCandidate | ClientCandidate], coins: Mapping[OutPoint, Coin | None]
) -> None:
    """Check that each candidate differs from the first in its fee alone, and that the fees rise.

    The same coins, or two could confirm. The same factory output: one set of factory keys signs
    whatever is agreed on later, in the candidate that is live. And a change of the same script.

    Args:
        claims: The candidates, in their order.
        coins: What the client's own chain says of each funding input.

    Raises:
        Refusal: Naming the candidate, and what it differs in.
    """
    first = claims[0].funding_tx
    in_sat = sum(
        coin.txout.amount_sat
        for tx_in in first.inputs
        if (coin := coins.get(tx_in.outpoint)) is not None
    )
    vsize = wallet_tx_vsize(n_inputs=len(first.inputs), n_outputs=len(first.outputs))
    least_sat = 0
    for claim in claims:
        name, tx = f"candidates[{claim.rung}].funding_tx", claim.funding_tx
        check_equal(f"{name}.inputs", expected=first.inputs, received=tx.inputs)
        factory, change = tx.outputs[FACTORY_VOUT], tx.outputs[CHANGE_VOUT].script_pubkey
        check_equal(f"{name}.factory", expected=first.outputs[FACTORY_VOUT], received=factory)
        check_equal(
            f"{name}.change", expected=first.outputs[CHANGE_VOUT].script_pubkey, received=change
        )
        fee_sat = in_sat - sum(txout.amount_sat for txout in tx.outputs)
        if fee_sat < least_sat:
            raise Refusal(f"{name}.fee", expected=f"at least {least_sat} sat", received=fee_sat)
        least_sat = least_higher_fee_sat(fee_sat, vsize=vsize)


def check_keys_of_ladder(claims: Sequence[ClaimedCandidate | ClientCandidate]) -> None:
    """Check that no key of the LSP's channels stands in two candidates.

    A commitment of one could else be punished, or paid out, by what was revealed in another.

    Raises:
        Refusal: Naming the key.
    """
    names = [item.name for item in fields(ChannelOffer)]
    seen: set[bytes] = set()
    for claim in claims:
        own, theirs = claim.setting.client, claim.setting.lsp
        for name in names:
            pubkey = getattr(theirs, name)
            if pubkey in seen:
                raise Refusal(
                    f"candidates[{claim.rung}].channel.{name}",
                    expected="a key of its own",
                    received=pubkey,
                )
        seen |= {getattr(offer, name) for offer in (own, theirs) for name in names}


def check_nonces_of_ladder(claims: Sequence[ClaimedCandidate], branches: Sequence[Branch]) -> None:
    """Check that every session has a nonce of its own in the pool of the client's factory key.

    One key signs under all candidates: a nonce for two of them would reveal it.

    Raises:
        Refusal: Naming the session.
    """
    join, seen = claims[0].join, set[int]()
    for claim, branch in zip(claims, branches, strict=True):
        names = [node.name for node in branch.nodes]
        if claim.rung:
            names = [f"candidates[{claim.rung}].{name}" for name in names]
        check_nonces("nonces", names, claim.candidate.nonces, join.factory_pool.size, seen)


def check_nonces(
    field: str,
    names: Sequence[str],
    uses: Sequence[NonceUse],
    pool_size: int,
    seen: set[int] | None = None,
) -> None:
    """Check that every session of a pool has a nonce of its own and a possible aggregate nonce.

    Args:
        field: What the uses are called.
        names: The sessions, in the order of the uses.
        uses: As the LSP assigned them.
        pool_size: How many nonces the client's pool has.
        seen: The indices that other sessions take; these are added to them.

    Raises:
        Refusal: Naming the session.
    """
    check_equal(field, expected=len(names), received=len(uses))
    seen = set() if seen is None else seen
    for name, use in zip(names, uses, strict=True):
        check_range(f"{name}.nonce_index", (0, pool_size - 1), use.index)
        if use.index in seen:
            raise Refusal(f"{name}.nonce_index", expected="unused", received=use.index)
        seen.add(use.index)
        if not is_aggnonce(use.aggnonce):
            raise Refusal(f"{name}.aggnonce", expected="two points", received=use.aggnonce)
