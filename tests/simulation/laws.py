"""What is always true of a world, whatever is mixed in it."""

from collections.abc import Callable
from typing import Any, Final

from cromford.channel.content import Htlc
from cromford.channel.terms import Party
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal.book import Book, HtlcKey
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from tests.protocol.money import Auditor
from tests.simulation.estates import Estates
from tests.simulation.fates import Act, Hazard
from tests.simulation.life_node import FAILED_CHANNEL_BLOCKS, LifeNode
from tests.simulation.outcomes import check_outcomes
from tests.simulation.rehearsal import rehearse_exit
from tests.simulation.sim_node import durable
from tests.simulation.world import World

KERNEL_RATE: Final = 0.02  # Of commitments that the kernel judges beside those that are published.
SPARE_BLOCKS: Final = 60  # Beyond the last expiry, and the longest exit.
SWEPT_BLOCKS: Final = 14  # Of what one's own commitment pays, with a second transaction of an HTLC.
SMALL_MSAT: Final = 2_000_000  # What an HTLC may hold that is not worth its claim at high feerates.
LEFT_BLOCKS: Final = FAILED_CHANNEL_BLOCKS + 40  # With the longest path of these worlds.
# With one of these a channel may fail though its two sides are honest, or end on chain.
UNFAIR: Final[frozenset[Hazard | Act]] = frozenset(
    {
        Hazard.GARBLES,
        Hazard.ROGUE_CLIENT,
        Hazard.ROGUE_LSP,
        Hazard.SLOW,
        Act.RESTORES,
        Act.EXITS,
        Act.CLOSES,
    }
)


class Laws:
    """Checks one world.

    Args:
        world: The world, in which nothing has gone wrong yet.
        restored: Whose stores were put back, by name; it grows.
    """

    def __init__(self, world: World, restored: set[str]) -> None:
        self.world = world
        self.restored = restored
        self.n_rehearsed = 0
        self.n_blocks = 0
        mixture = world.mixture
        self.audit = Auditor(
            world.lsp,
            world.clients,
            seed=mixture.seed,
            kernel_rate=KERNEL_RATE,
            honest=not mixture.is_dying and not any(mixture.has(one) for one in UNFAIR),
        )
        self.estates = Estates(world)

    @property
    def told(self) -> str:
        """What was looked at."""
        return (
            f"{len(self.audit.held)} commitments, {self.n_rehearsed} exits rehearsed, "
            f"{len(self.world.fates.struck)} faults and acts, {self.n_blocks} blocks to rest"
        )

    def read(self) -> None:
        """Check what holds at every moment."""
        self.audit.read()
        self.estates.read()
        client = self.world.fates.dice("rehearsal").choice(self.world.clients)
        if client.is_honest:
            self.n_rehearsed += rehearse_exit(self.world.chain, client)

    def forget(self, node: LifeNode) -> None:
        """Take note that a store was put back."""
        self.audit.forget(node)

    # At rest

    def let_channels_end(self) -> None:
        """From here on somebody leaves, or closes: no channel that fails is a surprise."""
        self.audit.honest = False

    def wait_for_rest(self, mine: Callable[[], None]) -> None:
        """Mine until nothing is under way, and what is on chain is taken.

        Raises:
            AssertionError: If something outlives its deadlines though everybody is there.
        """
        end_height = self._settled_height()
        while self.world.chain.height < end_height:
            if not self.waiting() and not self._is_leaving():
                return
            mine()
            self.n_blocks += 1
        waiting = self.waiting()
        assert not waiting, f"it has no end: {waiting}"

    def _links(self) -> list[Link]:
        return [
            link
            for node in self.world.everybody
            if not node.is_gone
            for link in node.state.book.links.values()
        ]

    def _settled_height(self) -> int:
        """Return by when everything that was begun must be over."""
        height, links = self.world.chain.height, self._links()
        expiries = [live.htlc.cltv_expiry for link in links for live in link.state.htlcs]
        exits = [link.exit_blocks for link in links]
        return max(expiries, default=height) + max(exits, default=0) + SPARE_BLOCKS

    def _is_leaving(self) -> bool:
        """Say whether somebody is on its way out, or has to be by now."""
        return any(_is_leaving(node) for node in self.world.everybody if not node.is_gone)

    def waiting(self) -> list[str]:
        """Return what is still under way."""
        found = []
        gone = frozenset(node.node_id for node in self.world.everybody if node.is_gone)
        for node in self.world.everybody:
            if node.is_gone:
                continue
            assert node.driver is not None, f"{node.name} is down"
            if node.name in self.restored and self.world.lsp.is_gone:
                continue  # It waits for the LSP's commitment, which nobody publishes any more.
            found += [f"{node.name}: {what}" for what in _waiting_at(node, gone)]
        return found

    def check_rest(self) -> None:
        """Check what holds once nothing moves any more."""
        self.audit.read()
        self._check_attempts()
        self._check_replay()
        for node in self.world.everybody:
            if node.is_honest and node.name not in self.restored:
                check_outcomes(node)
        self.estates.check(self.audit.clients, restored=self.restored)
        for client in self.world.clients:
            if client.is_honest:
                self.n_rehearsed += rehearse_exit(self.world.chain, client)

    def _check_attempts(self) -> None:
        if self.world.lsp.is_gone:
            return
        lsp = durable(self.world.lsp.state)
        for attempt in lsp.attempts.values():
            assert attempt.aborted is not None or attempt.funded is not None, (
                "a ceremony is neither over nor funded"
            )
            if attempt.aborted is not None:
                assert attempt.attempt_id not in lsp.wallet.reserved.values(), "coins stay reserved"
        for client in self.world.clients:
            if client.is_gone:
                continue
            attempts: list[ClientAttempt] = list(client.state.attempts.values())
            for held in attempts:
                assert held.aborted is not None or held.ready_sent or held.given_up, (
                    f"{client.name} still waits at {held.stage}"
                )

    def _check_replay(self) -> None:
        """The journal, and its checkpoints, replay to the same state."""
        for node in self.world.everybody:
            if node.is_gone:
                continue
            live = durable(node.state)
            assert durable(node.durable_state()) == live, f"{node.name}: the journal differs"
            assert node.restarted_state() == live, f"{node.name}: a restart differs"


def _waiting_at(node: LifeNode, gone: frozenset[bytes]) -> list[str]:
    state: Any = node.state
    found = []
    is_lsp = node.lsp_node_id is None
    homes = [*state.all_factories()] if is_lsp else [state]
    for home in homes:
        if home.advances and not (is_lsp and _waits_for_gone(home, gone)):
            found.append("an advance")
        if home.closing:
            found.append("a close")
    if not is_lsp and state.purchases:
        found.append("a purchase")
    links: list[Link] = list(state.book.links.values())
    found += [f"{link.channel_id.hex()[:6]} is quiet" for link in links if link.quiet_for]
    book: Book = state.book
    for name in ("arrived", "held", "forwards", "resolved", "owners"):
        found += [
            name
            for key in getattr(book, name)
            if not (_is_lost(book, key, gone, state.chain) or _is_taken(book, key, gone))
        ]
    for payment in book.payments.values():
        if payment.status == "pending" and not (
            payment.htlc and _is_lost(book, payment.htlc, gone, state.chain)
        ):
            found.append("a payment")
    return found


def _waits_for_gone(factory: Factory, gone: frozenset[bytes]) -> bool:
    """Say whether each advance that bound a client waits for one that never comes back."""
    seats = factory.attempt.seats
    return all(
        advance.is_committed
        and any(seats[client - 1].node_id in gone for client in advance.clients)
        for advance in factory.advances.values()
    )


def _is_leaving(node: LifeNode) -> bool:
    """Say whether a node still publishes what it has of a channel, or waits to.

    One that failed is left after a while; what is on chain of it is swept after its delays.
    """
    state: Any = node.state
    height: int = state.chain.height
    for link in state.book.links.values():
        attempt = state.attempts[link.attempt_id]
        spender = state.chain.spends.get(link.funding_on(state.chain).outpoint)
        if spender is not None:
            if height < state.chain.confirmed[spender.txid] + SWEPT_BLOCKS:
                return True
        elif getattr(attempt, "is_exiting", False) or _fails(link, height):
            return True
    return False


def _fails(link: Link, height: int) -> bool:
    """Say whether a channel failed not long ago: it may still have to be left."""
    return link.failed_height is not None and height < link.failed_height + LEFT_BLOCKS


def _is_taken(book: Book, key: HtlcKey, gone: frozenset[bytes]) -> bool:
    """Say whether an HTLC of ours was taken by somebody who never comes back to revoke.

    It was paid for with its preimage, so nobody has to leave for it.
    """
    channel_id, htlc_id = key
    link = book.links[channel_id]
    return link.node_id in gone and any(
        live.htlc.offered_by is link.me and live.is_paid
        for live in link.state.htlcs
        if live.htlc.htlc_id == htlc_id
    )


def _is_lost(book: Book, key: HtlcKey, gone: frozenset[bytes], chain: KnownChain) -> bool:
    """Say whether nobody decides an HTLC of a channel that failed, or whose peer stays away.

    It has no output, for one, so nobody leaves for it. Or whether it was refused, and its payer is
    not there to hear of it.
    """
    channel_id, htlc_id = key
    link = book.links[channel_id]
    forward = book.forwards.get(key)
    if _has_ended(book, key, chain):
        return False  # An LSP has said so: whatever its payer does is its own affair.
    is_refused = key in book.resolved and (
        key in book.held or (forward is not None and forward.failure is not None)
    )
    if is_refused and link.node_id in gone:
        return True
    if link.mark is not None:
        return True  # It takes no update: both sides wait for a close, or for its factory's end.
    if link.failure is None and link.node_id not in gone:
        return False
    is_on_chain = link.funding_on(chain).outpoint in chain.spends
    if link.peer_is_behind and not (is_on_chain and key in book.owners):
        return True  # A stale store waits for its peer. On chain, ours comes back by itself.
    if key in book.arrived:
        return True  # What came was never taken.
    if is_refused or (forward is not None and forward.failure is not None):
        return True  # It is its payer's to take back, who may have forgotten it.
    return any(
        _is_small(link, live.htlc) for live in link.state.htlcs if live.htlc.htlc_id == htlc_id
    )


def _has_ended(book: Book, key: HtlcKey, chain: KnownChain) -> bool:
    """Say whether an LSP's channel with a client is on chain, and an HTLC in it is not ours."""
    link, forward = book.links[key[0]], book.forwards.get(key)
    if link.me is not Party.OPENER or key in book.owners:
        return False
    if forward is not None and forward.failure is None:
        return False
    spender = chain.spends.get(link.funding_on(chain).outpoint)
    return spender is not None and chain.depth(spender.txid) >= RESOLVED_DEPTH


def _is_small(link: Link, htlc: Htlc) -> bool:
    """Say whether an HTLC has no output on some commitment, or one that may not be worth a claim.

    The other party may take it at any time, or its payer, so nobody can say what became of it.
    """
    terms = link.setting.terms
    return htlc.amount_msat < SMALL_MSAT or any(
        terms.is_trimmed(htlc.amount_msat, is_offered=is_offered) for is_offered in (True, False)
    )
