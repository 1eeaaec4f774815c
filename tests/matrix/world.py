"""A factory on the embedded node whose participants run production code, until one goes rogue.

The pump carries messages between production drivers; the chain is the embedded node's. Whoever
sleeps has no process: it starts again on its journal, and reads the blocks it missed.
"""

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cromford import effects as fx
from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import Funding
from cromford.channel.finished import FinishedCommitment
from cromford.channel.terms import Party
from cromford.daemon import clientd, lspd
from cromford.daemon.bumping import Bumper
from cromford.daemon.freshness import LAG_BLOCKS_MAX
from cromford.daemon.own_fees import TARGETS
from cromford.daemon.signing import sign_child
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.factory.terms import LOOK_ON_CHAIN_BLOCKS
from cromford.factory.tree import Tree
from cromford.factory.vertices import TreeNode
from cromford.ports import TxRefused
from cromford.protocol import events as ev
from cromford.protocol.closing.sessions import close_round
from cromford.protocol.facts import Facts
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.closing import Signing
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.policy import LspPolicy
from cromford.wallet.account import CHANGE, RECEIVE, WalletPath
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m
from tests.matrix.market import Market
from tests.matrix.node_chain import NodeChain
from tests.matrix.node_port import NodePort
from tests.protocol.paying_clients import book, lsp_link, make_invoice
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import LENIENT, SimNode
from tests.simulation.sim_port import at_once

# The shortest that a client's own policy allows, and every delay no longer than a step: nobody may
# sleep longer, and nobody who sleeps has less time left when it wakes.
STEP_BLOCKS: Final = 72
POLICY: Final = LspPolicy(
    min_clients=1,
    min_depth=1,
    step_blocks=STEP_BLOCKS,
    states_per_layer=2,
    lstock_csv_blocks=STEP_BLOCKS,
    to_self_delay_lsp=STEP_BLOCKS,
    to_self_delay_client=STEP_BLOCKS,
    active_blocks=144,
    dying_blocks=144,
    ready_min_blocks=1,
)
COIN_SAT: Final = 40_000  # Each of a client's, for children.
N_SCRIPTS: Final = 30  # Of each wallet, on each of its two chains.
CALM_BLOCKS: Final = 3
FOR_EVER_BLOCKS: Final = 10_000  # Longer than any of these worlds goes on.


class MatrixNode(PumpNode):
    """A participant whose roles are production's own, without a second look at each decision."""

    lsp_role = lspd.LSP_ROLE
    client_role = clientd.CLIENT_ROLE
    client_policy = replace(LENIENT, dying_blocks=(1, 4320))


@dataclass(frozen=True, kw_only=True)
class Held:
    """A commitment that a participant once held, and what it takes to publish it and take from it.

    Attributes:
        node: Who held it.
        link: The channel then.
        finished: The commitment.
        own_point: Its per-commitment point.
    """

    node: MatrixNode
    link: Link
    finished: FinishedCommitment
    own_point: bytes

    @property
    def number(self) -> int:
        """Which of its holder's commitments."""
        return self.finished.commitment.content.number

    @property
    def party(self) -> Party:
        """Whose it is."""
        return self.finished.commitment.content.holder

    @property
    def funding(self) -> Funding:
        """What it spends: the channel's output in one of the states of its leaf."""
        return self.finished.commitment.funding


class MatrixWorld(Pump):
    """One world.

    Args:
        n_clients: How many clients there are.
        market: The feerates, from the moment on that everybody has a history.
        seed: Decides who pays whom.
        has_outsider: Whether there is one more client, in a factory of its own.
        n_states: How many states each leaf can have.

    Attributes:
        members: The clients of the factory that this is about.
        closes: By name of each transaction that anybody was asked to sign, what it would close.
        withholds: Whether the LSP keeps its own part of each close, and its clients' with it.
        withheld: The closes that it could finish at any time.
        moved: Who has left for another factory.
        ends: By client, both ends of its channel as they were when everybody's rights were noted.
        dues_msat: What a client is owed whose, or whose LSP's, store lost records.
        prices_msat: What a client pays for liquidity after everybody's rights were noted.
        kept: Every commitment that anybody ever held, on every output it was signed for.
        at_risk_sat: By name, what somebody honest may lose, for it slept longer than it may.
        rogues: What thieves do, before and after everybody has seen each block.
        asleep: By name, the height at which one who sleeps wakes.
        dozing: Who looks no more often than the documents ask for.
        bumpers: By name, what makes children, as in a daemon.
        refused: By name of a participant and a transaction, why its node did not take it last.
        start_height: When the cheating began.
        names: By script, whose wallet it is of, and where in it.
        invoices: By payment hash, whose it is, and its preimage.
        usual_policy: The LSP's, but for what the market says.
    """

    lsp_kind = MatrixNode
    client_kind = MatrixNode
    usual_policy = POLICY
    chain: NodeChain

    def __init__(
        self,
        *,
        n_clients: int,
        market: Market,
        seed: str,
        has_outsider: bool = False,
        n_states: int = POLICY.states_per_layer,
    ) -> None:
        self.market = market
        self.closes: dict[Txid, str] = {}
        self.withholds = False
        self.withheld: list[FinishedClose] = []
        self.moved: list[PumpNode] = []
        self.ends: dict[str, tuple[Link, Link]] = {}
        self.dues_msat: dict[str, int] = {}
        self.prices_msat: dict[str, int] = {}
        self._main_id: bytes | None = None
        self.dice = random.Random(f"matrix {seed}")
        self.kept: dict[tuple[OutPoint, Party, int], Held] = {}
        self.at_risk_sat: dict[str, int] = {}
        self.rogues: list[Callable[[], None]] = []
        self.asleep: dict[str, int] = {}
        self.dozing: set[str] = set()
        self.bumpers: dict[str, Bumper] = {}
        self.refused: dict[tuple[str, str], str] = {}
        self.start_height = 0
        self.names: dict[bytes, tuple[str, WalletPath]] = {}
        self.invoices: dict[bytes, tuple[str, bytes]] = {}
        self._stale: set[str] = set()
        policy = replace(
            self.usual_policy,
            tree_feerate_sat_per_kw=market.tree_sat_per_kw,
            states_per_layer=n_states,
        )
        super().__init__(n_clients + has_outsider, policy=policy)
        self.members = self.clients[:n_clients]
        for node in self.everybody:
            node.facts_at = self._facts_at
            account = node.state.wallet.account
            for change in (RECEIVE, CHANGE):
                for index in range(N_SCRIPTS):
                    path = WalletPath(change=change, index=index)
                    self.names[account.script(path)] = (node.name, path)
        self._give_coins()
        self._open()

    def new_chain(self) -> NodeChain:
        """Return the chain of this world."""
        return NodeChain()

    def _give_coins(self) -> None:
        if self.market.n_coins:
            for node in self.clients:
                self.give_coins(node, self.market.n_coins)

    def give_coins(self, node: PumpNode, n_coins: int) -> None:
        """Give a wallet confirmed coins, each of which pays for one child."""
        script = node.state.wallet.next_script(RECEIVE)
        self.chain.fund_all([(script, COIN_SAT)] * n_coins)
        self.sync()

    def _open(self) -> None:
        for clients in (self.clients[len(self.members) :], self.members):
            if clients:
                self.join(*clients)
                self.build()
                self.run()
                self.mine(CALM_BLOCKS)
        self._main_id = self.attempt.attempt_id
        for node in self.everybody:
            for link in book(node).links.values():
                assert link.is_open
                self._keep(node, link)

    # Who is there

    @property
    def everybody(self) -> list[MatrixNode]:
        """The LSP and its clients."""
        return [self.lsp, *self.clients]  # type: ignore[list-item]  # its kinds say so

    @property
    def attempt(self) -> LspAttempt:
        """The factory that this is about, as its LSP has it now."""
        if self._main_id is None:
            return super().attempt
        found: LspAttempt = self.lsp.state.attempts[self._main_id]
        return found

    def attempt_of(self, client: PumpNode) -> ClientAttempt:
        """Return the factory that this is about as one of its clients has it; else its newest."""
        attempts: Mapping[bytes, ClientAttempt] = client.state.attempts
        return attempts.get(self._main_id or b"") or self.held(client)

    def link_of(self, client: PumpNode) -> Link:
        """Return a client's channel in the factory that this is about, as the client has it."""
        return book(client).links[self.attempt_of(client).setting.channel_id]

    @property
    def outsider(self) -> MatrixNode:
        """The client in a factory of its own, of which no account is kept."""
        return self.node(self.clients[-1].name)

    @property
    def factory_attempt(self) -> LspAttempt:
        """The factory as its LSP has it; also of one that has no process any more."""
        return self._attempt

    def begin(self) -> None:
        """Let the cheating begin: the market opens, and everybody's rights are those of now.

        Nobody has seen it yet. Outsiders and those who moved out have done their part, and stop; of
        their other factory no account is kept.
        """
        self._attempt: LspAttempt = self.attempt
        if not self.ends:
            self.note_ends()
        for client in (*self.clients[len(self.members) :], *self.moved):
            self.go_rogue(client)
        self._held = {
            one.name: self.attempt_of(one) for one in self.members if one.driver is not None
        }
        self.expiry_height = self._attempt.terms.expiry_height
        self.chain.open_market(self.market)
        self.start_height = self.chain.height

    def note_ends(self) -> None:
        """Let everybody's rights be those of now, whatever store is put back afterwards."""
        self.ends = {
            client.name: (lsp_link(self, self.link_of(client)), self.link_of(client))
            for client in self.members
        }

    # What happens

    def give(self, client: PumpNode, amount_msat: int) -> None:
        """Let the LSP pay a client."""
        self.pay(self.lsp, client, amount_msat)

    def pay(self, payer: PumpNode, payee: PumpNode, amount_msat: int) -> bytes:
        """Let one pay another, if everything arrives; return the payment hash."""
        request = self.invoice(payee, amount_msat)
        self.handle(payer, request)
        self.run()
        return request.payment_hash

    def invoice(self, payee: PumpNode, amount_msat: int) -> ev.PayRequested:
        """Let a client make an invoice, and return what its payer reads in it."""
        request = make_invoice(self, payee, amount_msat)
        made = book(payee).invoices[request.payment_hash]
        self.invoices[request.payment_hash] = (payee.name, made.preimage)
        return request

    def handle(self, node: PumpNode, event: ev.Event) -> None:
        """Let a node handle an event, and keep what it holds then."""
        super().handle(node, event)
        if isinstance(event, ev.MessageReceived) and node.driver is not None:
            for link in book(node).links.values():
                self._keep(node, link)

    def move_out(self, *clients: PumpNode) -> None:
        """Let clients move all they have to a new factory, as theirs dies, and give up their keys.

        The LSP has them then, and they are honest: they keep none.
        """
        dying_height = min(self.attempt_of(client).lifetime.dying_height for client in clients)
        self.mine_to(dying_height)
        self.join(*clients)
        self.build()
        self.run()
        self.mine(CALM_BLOCKS)
        for client in clients:
            self.handle(client, ev.MoveRequested(attempt_id=self.attempt.attempt_id))
            self.run()
            self.pass_holds()
            assert not self.link_of(client).state.accepter_msat
        self.mine(CALM_BLOCKS)
        assert all(self.attempt_of(client).keys_taken for client in clients)
        self.moved += clients

    def _keep(self, node: PumpNode, link: Link) -> None:
        for funding in (link.present, *(() if link.next is None else (link.next.funding,))):
            key = (funding.outpoint, link.me, link.state.own_signed)
            finished = None if key in self.kept else link.finished_on(funding)
            if finished is not None:
                assert isinstance(node, MatrixNode)
                self.kept[key] = Held(
                    node=node, link=link, finished=finished, own_point=link.own_point
                )

    def sleep(self, node: PumpNode, n_blocks: int) -> None:
        """Let a process stop, and start again, from its checkpoints, so many blocks later."""
        for client in self.clients if node is self.lsp else [node]:
            self.disconnect(client)
        if node.driver is not None:
            node.checkpoint()
        node.die()
        self.bumpers.pop(node.name, None)
        self.asleep[node.name] = self.chain.height + n_blocks

    def absence_blocks(self, node: PumpNode) -> int:
        """Return how long a participant may look away, by the documents and its own views."""
        if node is self.lsp:
            return self.policy.look_blocks
        return self._attempt.terms.look_blocks

    def go_rogue(self, node: PumpNode) -> None:
        """Stop a participant's honest process for ever."""
        for client in self.clients if node is self.lsp else [node]:
            self.disconnect(client)
        node.die()

    def connect(self, client: PumpNode) -> None:
        """Let a client and its LSP have a connection, if both have a process."""
        if client.driver is not None and self.lsp.driver is not None:
            super().connect(client)

    def mine(self, n_blocks: int = 1) -> None:
        """Find blocks. Whoever cheats acts before anybody has seen a block, and after all have."""
        for _ in range(n_blocks):
            self.pass_holds()
            self.chain.mine()
            self._act()
            self._wake()
            self.sync()
            self.run()
            self._doze()
            self._act()

    def mine_to(self, height: int) -> None:
        """Find blocks up to a height."""
        self.mine(max(0, height - self.chain.height))

    def mine_until(self, holds: Callable[[], object], *, most: int) -> bool:
        """Find blocks until something holds; say whether it did."""
        for _ in range(most):
            if holds():
                return True
            self.mine()
        return bool(holds())

    def _act(self) -> None:
        for act in self.rogues:
            act()

    def _wake(self) -> None:
        for node in self.everybody:
            if self.asleep.get(node.name, self.chain.height + 1) <= self.chain.height:
                del self.asleep[node.name]
                node.fees = self.fees()
                node.start()
                self._sync_one(node)
                for client in self.clients if node is self.lsp else [node]:
                    self.connect(client)

    def _doze(self) -> None:
        """Let those sleep again who look only as often as they must, once they have looked."""
        for node in self.everybody:
            if node.name in self.dozing and node.driver is not None:
                self.sleep(node, self.pause_blocks(node))

    def pause_blocks(self, node: MatrixNode) -> int:
        """Return how long one may look away who has seen the chain, as its own views say it.

        For ever, where nothing of the factory can be lost any more.
        """
        state = node.state
        if node is not self.lsp:
            attempt = self.attempt_of(node)
            look_blocks = client_views.summary(state, attempt, node.facts)["look_blocks"]
            return FOR_EVER_BLOCKS if look_blocks is None else look_blocks
        nodes = self._attempt.tree.nodes
        is_in_sight = any(one.tx.txid in self.chain.confirmed for one in nodes)
        pause = lsp_views.look_blocks(state)
        return min(pause, LOOK_ON_CHAIN_BLOCKS) if is_in_sight else pause

    def sync(self) -> None:
        """Let everybody see the blocks they have not seen, with what their nodes ask for."""
        for node in self.everybody:
            self._sync_one(node)

    def _sync_one(self, node: MatrixNode) -> None:
        node.fees = self.fees()
        while node.driver is not None and node.state.chain.height < self.chain.height:
            height = max(node.state.chain.height + 1, self.chain.base_height)
            if not self._facts_at(height - 1).is_fresh:
                self._stale.add(node.name)
            block_hash, txs = self.chain.blocks[height]
            event = ev.BlockAdded(height=height, block_hash=block_hash, txs=node.relevant(txs))
            self.handle(node, event)
        if node.driver is not None and node.name in self._stale:
            self._stale.discard(node.name)
            self.handle(node, ev.FactsChanged())

    def fees(self) -> OwnFees:
        """Return what everybody's node says of feerates."""
        relay = self.chain.relay
        estimates = [(target, self.chain.estimate_sat_per_kw(target)) for target in TARGETS]
        return OwnFees(
            estimates=tuple((target, rate) for target, rate in estimates if rate is not None),
            mempool_min_sat_per_kw=relay.mempool_min_sat_per_kw,
            min_relay_sat_per_kw=relay.min_relay_sat_per_kw,
            incremental_sat_per_kw=relay.incremental_sat_per_kw,
        )

    def _facts_at(self, own_height: int) -> Facts:
        is_behind = self.chain.height - own_height > LAG_BLOCKS_MAX
        stale = "blocks are missing" if is_behind and own_height >= 0 else None
        return Facts(stale=stale, header_height=self.chain.height)

    def _publish(self, node: PumpNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        """Publish as a daemon does: with a child where that is wanted and missing."""
        if asked.bumping is None:
            return super()._publish(node, asked)
        bumper = self.bumpers.get(node.name)
        if bumper is None:
            signer = node.signer
            assert signer is not None
            bumper = Bumper(
                NodePort(self.chain),
                sign=lambda child: sign_child(signer, child),
                path_of=lambda script: self._path_of(node, script),
            )
            self.bumpers[node.name] = bumper
        try:
            at_once(bumper.publish(asked, asked.bumping))
        except TxRefused as refused:
            self.refused[node.name, asked.name] = refused.reason
            return (ev.BroadcastRefused(asked=asked, reason=refused.reason),)
        return ()

    def _path_of(self, node: PumpNode, script_pubkey: bytes) -> WalletPath | None:
        """Return where in a node's wallet a script is; None if it is of another's."""
        name, path = self.names.get(script_pubkey, ("", None))
        return path if name == node.name else None

    def _perform(self, node: SimNode, effect: fx.Performed) -> Iterable[ev.Event]:
        """Perform an effect; an LSP that withholds its part of a close says that it has none."""
        if isinstance(effect, fx.Send) and isinstance(effect.message, m.ClosePropose):
            closing = self.factory_with_close(effect.message.close_id).closing
            assert closing is not None
            name = f"close of {lsp_scope(self.attempt, closing.outpoint).name}"
            txs = [Tx.parse(proposal.tx) for proposal in effect.message.proposals]
            self.closes |= {tx.txid: name for tx in txs}
        answers = super()._perform(node, effect)
        if not isinstance(effect, fx.PartialSign) or not effect.close_id:
            return answers
        if node is not self.lsp or not self.withholds:
            return answers
        (signed,) = answers
        assert isinstance(signed, ev.PartialSigned)
        self.withheld.append(self._finished_by(signed))
        return (ev.SigningFailed(asked=effect, reason="it is withheld"),)

    def factory_with_close(self, close_id: bytes) -> Factory:
        """Return the factory in which a close is under way."""
        factories: Iterable[Factory] = self.lsp.state.all_factories()
        return next(
            one for one in factories if one.closing is not None and one.closing.close_id == close_id
        )

    def _finished_by(self, signed: ev.PartialSigned) -> FinishedClose:
        """Return the close that the LSP's own part finishes."""
        factory = self.factory_with_close(signed.asked.close_id)
        closing = factory.closing
        assert closing is not None
        assert isinstance(closing.stage, Signing)
        scope = lsp_scope(factory.attempt, closing.outpoint)
        parts = dict(signed.partial_sigs)
        signatures = close_round(factory, scope, closing.stage, parts).signatures()
        return FinishedClose(
            close_id=closing.close_id,
            outpoint=closing.outpoint,
            txs=tuple(
                scope.signed(tx, signature)
                for tx, signature in zip(closing.stage.txs, signatures.values(), strict=True)
            ),
        )

    # What the chain has

    def coins_of(self, scripts: Collection[bytes]) -> dict[OutPoint, Coin]:
        """Return the confirmed, unspent outputs that pay to these scripts."""
        paid = (one for script in scripts for one in self.chain.paid_to.get(script, ()))
        coins = {outpoint: self.chain.coin(outpoint) for outpoint in paid}
        return {outpoint: coin for outpoint, coin in coins.items() if coin is not None}

    def knows(self, node: PumpNode, preimage: bytes) -> bool:
        """Say whether a participant's journal holds a preimage."""
        return any(preimage in record for record in node.store.records)

    def is_spent(self, outpoint: OutPoint) -> bool:
        """Say whether a block spends an output."""
        return outpoint in self.chain.spends

    def is_on_its_way(self, tx: Tx) -> bool:
        """Say whether a transaction waits, or is in a block."""
        return tx.txid in self.chain.mempool or tx.txid in self.chain.confirmed

    def channel_outpoint(self, client: PumpNode) -> OutPoint:
        """Return where a client's channel is, or would be by the newest state that both are on."""
        _, link = self.ends[client.name]
        outpoints = [funding.outpoint for funding in link.fundings]
        landed = (one for one in outpoints if one.txid in self.chain.confirmed)
        return next(landed, link.present.outpoint)

    def last_attempt(self, client: PumpNode) -> ClientAttempt:
        """Return the factory as a client had it when the cheating began."""
        return self._held[client.name]

    @property
    def newest_attempt(self) -> LspAttempt:
        """The factory as its LSP has it now, or had it last."""
        return self._attempt if self.lsp.driver is None else self.attempt

    @property
    def tree_now(self) -> Tree:
        """The tree, each leaf with the state that is in a block, or else its newest."""
        return self.newest_attempt.tree_on(KnownChain(spends=self.chain.spends))

    def tree_nodes(self) -> list[TreeNode]:
        """Return every transaction of the tree, with every state that was signed by now."""
        attempt = self.newest_attempt
        states = (leaf.states for leaf in attempt.advanced_leaves.values())
        found = {node.tx.txid: node for node in attempt.blueprint.tree.nodes}
        found |= {state.tx.txid: state for state in itertools.chain.from_iterable(states)}
        return [*found.values()]

    def latest_numbers(self, client: PumpNode) -> dict[Party, int]:
        """Return the numbers of the commitments that were the latest when the cheating began."""
        return {end.me: end.finished.commitment.content.number for end in self.ends[client.name]}

    def node(self, name: str) -> MatrixNode:
        """Return a participant by name."""
        found: dict[str, Any] = {node.name: node for node in self.everybody}
        one: MatrixNode = found[name]
        return one
