"""How many blocks an HTLC is given, beside what the ways out of its channels take."""

from typing import Final

from cromford.factory.terms import SAFETY_BLOCKS

CLAIM_BLOCKS: Final = 18  # To confirm what claims an HTLC once its commitment is on chain.
FORWARD_BLOCKS: Final = 36  # Beyond EB, between an HTLC's expiry and that of the one it pays for.
# After its expiry an HTLC without an output is written off, and one with an output has to be taken
# back: it is six deep then before the one that it pays for has to be left for.
GIVE_UP_BLOCKS: Final = 12
INVOICE_SLACK_BLOCKS: Final = 12  # Blocks that may pass while a payment is on its way.
BLOCK_SECONDS: Final = 600  # Between two blocks, on average.


def payment_blocks(*, payer_exit_blocks: int, payee_exit_blocks: int) -> int:
    """Return how far ahead the expiry of a payment between two channels lies at its payer's."""
    return payer_exit_blocks + FORWARD_BLOCKS + final_blocks(payee_exit_blocks)


def final_blocks(exit_blocks: int) -> int:
    """Return how far ahead it lies at its payee's, at least."""
    return exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS + INVOICE_SLACK_BLOCKS


def hold_blocks(hold_seconds: int) -> int:
    """Return how many blocks are expected in a hold, rounded up."""
    return -(-hold_seconds // BLOCK_SECONDS)
