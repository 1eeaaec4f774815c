"""For how many blocks somebody may look away: until what could be lost first has to be left for."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.advanced import kickoff_of
from tests.protocol.old_states import sold, state_of
from tests.protocol.paying_clients import newest_link
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.test_ended_forwards import paid_on, world
from tests.protocol.test_ends_of_incoming import Scene, scene_of
from tests.protocol.test_what_is_at_stake import OURS, having, live, owing, payment
from tests.protocol.unanswered import WORTH_MSAT

from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.looking import blocks_to_look_away
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link

FAR: Final = 100_000
EXPIRY: Final = 1_000


@pytest.fixture(scope="module")
def ends() -> tuple[Link, KnownChain]:
    """Return a client's channel in which nothing is under way."""
    pump = world()
    alice = pump.clients[0]
    return newest_link(alice), alice.state.chain


@pytest.fixture(scope="module")
def paid() -> Scene:
    """An HTLC that the LSP paid on, and is owed in a client's channel."""
    pump = world()
    paid_on(pump, WORTH_MSAT)
    return scene_of(pump)


def test_without_an_htlc_the_exit_deadline_counts_for_who_has_a_balance_that_expires(
    ends: tuple[Link, KnownChain],
) -> None:
    link, chain = ends
    deadline = link.remaining(chain).exit_deadline_height
    assert deadline is not None

    def blocks(height: int, *, most: int = FAR, expires: bool = True) -> int:
        there = up_to(chain, height)
        return blocks_to_look_away(Book(), link, there, most_blocks=most, expires=expires)

    assert blocks(deadline - 50) == 50
    assert blocks(deadline - 50, most=30) == 30
    assert blocks(deadline - 50, expires=False) == FAR
    assert blocks(deadline - 1) == 1
    assert blocks(deadline) == FAR, "it has begun to leave, or has nothing to leave for"
    assert blocks(deadline - 50, most=0) == 1


def test_a_settled_channel_has_no_exit_deadline_to_look_for(
    ends: tuple[Link, KnownChain],
) -> None:
    link, chain = ends
    confirmed = chain.confirmed.update({step.txid: 1 for step in link.path})
    settled = replace(up_to(chain, 60), confirmed=confirmed)
    assert link.remaining(settled).exit_deadline_height is None
    assert blocks_to_look_away(Book(), link, settled, most_blocks=FAR, expires=True) == FAR


def test_an_htlc_at_stake_is_looked_for_at_the_height_at_which_it_is_left_for(
    ends: tuple[Link, KnownChain],
) -> None:
    link, chain = ends
    both = having(link, live(OURS, 0, expiry=EXPIRY + 40), live(OURS, 1, expiry=EXPIRY))
    book = owing(link, payment(0), payment(1))
    due = publish_height(link, EXPIRY, chain=chain)

    def blocks(height: int, book: Book = book) -> int:
        there = up_to(chain, height)
        return blocks_to_look_away(book, both, there, most_blocks=FAR, expires=False)

    assert blocks(due - 100) == 100
    assert blocks(due - 100, Book()) == FAR, "nobody could lose them"
    assert blocks(due + 5) == 1, "it is due"


def lsp_blocks(scene: Scene, chain: KnownChain) -> int:
    book = scene.factory.book
    return blocks_to_look_away(book, scene.link, chain, most_blocks=FAR, expires=False)


def test_an_htlc_on_chain_is_looked_for_until_a_block_took_its_output(paid: Scene) -> None:
    (live_htlc,) = (one for one in paid.link.state.htlcs)
    landed = paid.landed(2)
    due = publish_height(paid.link, live_htlc.htlc.cltv_expiry, chain=landed)
    assert lsp_blocks(paid, paid.factory.chain) < FAR
    assert lsp_blocks(paid, landed) == due - landed.height
    assert lsp_blocks(paid, buried(landed, 1, spending(paid.output))) == FAR
    other = next(one for one in paid.commitment.outpoints if one != paid.output)
    there = buried(landed, 1, spending(other))
    assert lsp_blocks(paid, there) == due - there.height


def test_what_an_unknown_spender_or_a_revoked_commitment_took_is_not_waited_for(
    paid: Scene,
) -> None:
    gone = buried(paid.factory.chain, 1, spending(paid.link.present.outpoint))
    assert lsp_blocks(paid, gone) == FAR


def test_our_own_commitment_is_known_as_the_peers_is(paid: Scene) -> None:
    finished = paid.link.finished
    assert finished is not None
    ours = finished.commitment
    landed = buried(paid.factory.chain, 1, ours.tx)
    (output,) = (
        where
        for where, one in zip(ours.tx.outpoints, ours.outputs, strict=True)
        if one.htlc is not None
    )
    assert lsp_blocks(paid, landed) < FAR
    assert lsp_blocks(paid, buried(landed, 1, spending(output))) == FAR


def test_what_a_replaced_state_took_with_its_channel_is_not_waited_for() -> None:
    """We have revoked all that we had there: the poison has what was ours, too."""
    pump, done = sold()
    alice = pump.clients[0]
    link, chain = newest_link(alice), alice.state.chain
    number = link.client
    for tx in (kickoff_of(pump), state_of(pump, done, 0)):
        chain = buried(chain, 1, tx)
    assert link.finished_on(link.funding_on(chain)) is None
    there = having(link, live(OURS, 0, expiry=EXPIRY))
    book = owing(link, payment(0))
    poison = done.leaf.channel_poison(0, number).tx
    taken = buried(chain, 1, poison)
    assert blocks_to_look_away(book, there, chain, most_blocks=FAR, expires=False) < FAR
    assert blocks_to_look_away(book, there, taken, most_blocks=FAR, expires=False) == FAR
