"""How long a client may look away from a channel, and from when on it need not look again."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_closing_words_of_clients import stages
from tests.protocol.test_leaving import QUICK
from tests.protocol.unanswered import WORTH_MSAT, htlc_outpoint, only_expiry, pending_for

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.looking import blocks_to_look_away
from cromford.protocol.exiting.through import is_through
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link

MOST: Final = 72  # As long as the races of its factory allow.


@cache
def pending() -> ClientState:
    """Return a client that offered an HTLC which nobody answers."""
    pump = live_factory(3, policy=QUICK)
    alice, _ = pending_for(pump, "payer", WORTH_MSAT)
    state: ClientState = alice.state
    return state


def link() -> Link:
    (found,) = pending().book.ordered_links
    return found


def mined(chain: KnownChain, *txs: Tx, n_blocks: int = 1) -> KnownChain:
    """Return the chain with a block of these, and more on top of it."""
    for number in range(n_blocks):
        height = chain.height + 1
        ref = BlockRef(height=height, block_hash=Txid(height.to_bytes(32, "big")))
        chain = chain.with_block(ref, txs if number == 0 else ())
    return chain


def at(height: int) -> KnownChain:
    chain = pending().chain
    return replace(chain, recent=(replace(chain.recent[-1], height=height),))


def looks_away(
    chain: KnownChain, *, expires: bool = False, most_blocks: int = MOST, holds: bool = True
) -> int:
    state = pending()
    channel = link() if holds else replace(link(), state=replace(link().state, htlcs=()))
    return blocks_to_look_away(state.book, channel, chain, most_blocks=most_blocks, expires=expires)


def test_with_nothing_at_stake_only_races_and_the_exit_deadline_count() -> None:
    deadline = link().remaining(pending().chain).exit_deadline_height
    assert deadline is not None
    assert looks_away(at(deadline - 73), expires=True, holds=False) == MOST
    told = [
        looks_away(at(deadline - left), expires=True, holds=False) for left in (71, 2, 1, 0, -1)
    ]
    # From the deadline on what would be missed is an exit that has begun by then.
    assert told == [71, 2, 1, MOST, MOST]
    assert looks_away(at(deadline - 2), expires=False, holds=False) == MOST
    assert looks_away(at(deadline - 90), holds=False, most_blocks=0) == 1
    chain = at(deadline - 2)
    settled = chain.confirmed.update({step.txid: 90 for step in link().path})
    on_chain = replace(chain, confirmed=settled)
    assert looks_away(on_chain, expires=True, holds=False) == MOST, "it has no deadline any more"


def test_an_htlc_at_stake_is_looked_after_when_its_channel_has_to_go_on_chain() -> None:
    due = publish_height(link(), only_expiry(link()), chain=pending().chain)
    told = [looks_away(at(due - left)) for left in (73, 72, 71, 2, 1, 0, -5)]
    assert told == [72, 72, 71, 2, 1, 1, 1]


def commitments() -> dict[str, Tx]:
    """Return the two that may be on chain with the HTLC, one by whom each."""
    (theirs,) = link().peer_commitments_on(link().present)
    return {"own": link().finished.tx, "peer's": theirs.commitment.tx}


def output_of_htlc(whose: str) -> OutPoint:
    if whose == "own":
        return htlc_outpoint(link())
    (theirs,) = link().peer_commitments_on(link().present)
    (vout,) = (vout for vout, one in enumerate(theirs.commitment.outputs) if one.htlc is not None)
    return theirs.commitment.tx.outpoint(vout)


@pytest.mark.parametrize("whose", ["own", "peer's"])
def test_an_htlc_is_looked_after_until_a_block_took_its_output(whose: str) -> None:
    """Whoever took it: by its preimage, or after its expiry."""
    chain = mined(at(only_expiry(link()) - 10), commitments()[whose])
    assert looks_away(chain) == 1
    other = commitments()[whose].outpoint(0)
    assert other != output_of_htlc(whose)
    assert looks_away(mined(chain, spend_of(other, 1_000))) == 1
    assert looks_away(mined(chain, spend_of(output_of_htlc(whose), 1_000))) == MOST


def test_of_what_ended_without_a_commitment_no_htlc_is_claimed() -> None:
    chain = mined(at(only_expiry(link()) - 10), spend_of(link().present.outpoint, 1_000))
    assert looks_away(chain) == MOST


# When all is over


def through(chain: KnownChain) -> bool:
    state = replace(pending(), chain=chain)
    (attempt,) = state.attempts.values()
    return is_through(state, attempt)


def test_what_was_swept_above_the_channel_is_over_six_blocks_deep() -> None:
    (attempt,) = pending().attempts.values()
    chain = pending().chain
    assert not through(chain)
    sweep = spend_of(attempt.funding_outpoint, 1_000)
    assert not through(mined(chain, sweep, n_blocks=5))
    assert through(mined(chain, sweep, n_blocks=6))


def test_a_channel_is_over_once_all_of_it_that_is_ours_was_taken_six_blocks_deep() -> None:
    chain = mined(pending().chain, link().finished.tx, n_blocks=10)
    assert not through(chain), "the balance waits, and the HTLC"
    commitment = link().finished.commitment
    ours = [
        commitment.tx.outpoint(vout)
        for vout, output in enumerate(commitment.outputs)
        if output.htlc is not None or output.kind.name == "TO_HOLDER"
    ]
    assert len(ours) == 2
    first, second = (spend_of(outpoint, 1_000) for outpoint in ours)
    for tx in (first, second):
        assert not through(mined(chain, tx, n_blocks=9)), "of the other one nothing was taken"
    both = mined(chain, first, second, n_blocks=5)
    assert not through(both)
    assert through(mined(both))
    late = mined(mined(chain, first, n_blocks=8), second, n_blocks=5)
    assert not through(late)
    assert through(mined(late))


def test_a_close_in_a_block_is_the_end_of_it_six_blocks_deep() -> None:
    state = stages().finished
    (attempt,) = state.attempts.values()
    (close,) = state.closed.values()
    for n_blocks in (1, 5, 6, 7):
        chain = mined(state.chain, close.txs[0], n_blocks=n_blocks)
        assert is_through(replace(state, chain=chain), attempt) is (n_blocks >= 6)


def test_what_the_peer_had_revoked_has_to_be_looked_up_and_punished_first() -> None:
    """As long as that is not known, nobody knows what of it is to be taken."""
    pump = live_factory(1, policy=QUICK)
    (alice,) = pump.clients
    pay(pump, pump.lsp, alice, WORTH_MSAT)
    revoked = lsp_link(pump, newest_link(alice)).finished.tx
    pay(pump, pump.lsp, alice, WORTH_MSAT)
    state: ClientState = alice.state
    (attempt,) = state.attempts.values()
    chain = mined(state.chain, revoked, n_blocks=10)
    assert not is_through(replace(state, chain=chain), attempt)


def test_a_factory_without_a_channel_is_still_to_come() -> None:
    state = pending()
    (attempt,) = state.attempts.values()
    book = replace(state.book, links=state.book.links.delete(link().channel_id))
    assert not is_through(replace(state, book=book), attempt)
