"""A peer that published a commitment it had revoked: find which, rebuild it, punish it.

What a revoked commitment said is not kept in memory: `protocol/journal/revoked` archives it, and it
is looked up when it is needed, which is hardly ever.
"""

from cromford.bitcoin.tx import Tx
from cromford.channel.commitment import Funding, commitment_number_of
from cromford.channel.content import CommitmentContent
from cromford.crypto.keys import pubkey_of
from cromford.protocol.journal.link import Link
from cromford.watch.landed import RevokedCommitment


def revoked_number(link: Link, spender: Tx) -> int | None:
    """Return the number of the revoked commitment that a transaction may be; None if it is none."""
    try:
        number = commitment_number_of(spender, link.setting.keys)
    except ValueError:
        return None
    return number if number < link.state.peer_revoked else None


def revoked_commitment(
    link: Link, content: CommitmentContent, funding: Funding
) -> RevokedCommitment:
    """Return a revoked commitment of the peer with the secret that revoked it.

    One secret revokes a number on every funding that it was signed for.

    Args:
        link: The channel.
        content: What the commitment says.
        funding: What it spends: the channel's output that is on chain.

    Raises:
        ValueError: If that commitment is not revoked, or nothing of this content can spend that.
    """
    secret = link.state.peer_secrets.secret_of(content.number)
    return RevokedCommitment(
        commitment=link.commitment(content, pubkey_of(secret), funding),
        per_commitment_secret=secret,
    )


def known_breach(link: Link, funding: Funding) -> RevokedCommitment | None:
    """Return the revoked commitment that was found to be on chain, as it spends this output.

    None if none was, or, after a reorganisation, it spent another one and cannot spend this.
    """
    if link.breach is None:
        return None
    try:
        return revoked_commitment(link, link.breach, funding)
    except ValueError:
        return None


def is_to_be_recalled(link: Link, spender: Tx) -> bool:
    """Say whether a channel's output went where a revoked commitment says, and what is unknown.

    A commitment says its number, and not whose it is: our latest has the number of a revoked one of
    the peer's, where the peer has revoked more than it signed for us. After a reorganisation it may
    be another one than what is known.
    """
    number = revoked_number(link, spender)
    is_known = link.breach is not None and link.breach.number == number
    return number is not None and not is_known and not _is_ours(link, spender)


def _is_ours(link: Link, spender: Tx) -> bool:
    fundings = (one for one in link.fundings if one.outpoint == spender.inputs[0].outpoint)
    finished = (link.finished_on(funding) for funding in fundings)
    return any(ours is not None and ours.commitment.tx.txid == spender.txid for ours in finished)
