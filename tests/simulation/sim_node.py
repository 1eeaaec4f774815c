"""One participant of the simulated world: a journal that survives, and a process that does not."""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from immutables import Map

from cromford import effects as fx
from cromford.adapters.memory import MemoryJournal, MemoryKeys
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.channel.messages import UpdateFulfill
from cromford.daemon import clientd, lspd
from cromford.daemon.driver import Driver, Role
from cromford.daemon.handover import HandedOver, HandoverEffect, heard
from cromford.daemon.pairing import open_journal
from cromford.daemon.signing import perform_signing
from cromford.factory.terms import FeePolicy
from cromford.ports import Archived, Checkpoint, Entry
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_state import ClientConfig, ClientState
from cromford.protocol.journal.lsp_state import LspConfig, LspState, pending, settled
from cromford.protocol.journal.records import (
    AnyRecord,
    decode_dated,
    decode_record,
    encode_record,
)
from cromford.protocol.journal.restless import all_restless
from cromford.protocol.journal.sleep import nobody
from cromford.protocol.policy import ClientPolicy, LspPolicy, WhenDying
from cromford.protocol.turn import Decision
from cromford.signing.keychain import ChannelKey, Keychain, seed_fingerprint
from cromford.signing.signer import Signer
from cromford.signing.task import SigningTask
from cromford.wallet.account import Account
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m
from cromford.wire.messages import decode_message
from tests.simulation.sums import check_sums

S = TypeVar("S")

COMPARED_EVERY = 6  # Of how many blocks one is decided twice: it is most of what a world costs.


def watched(
    decide: Callable[[S, ev.Event, Facts], Decision[S]],
    apply: Callable[[S, str, AnyRecord, int], S],
) -> Callable[[S, ev.Event, Facts], Decision[S]]:
    """Return a `decide` that fails if it ends in another state than the fold of its records.

    It fails, too, if it takes new risk on a stale chain, or if a block, one in some, left out a
    factory at rest that would have had something to do.
    """

    def decide_watched(state: S, event: ev.Event, facts: Facts) -> Decision[S]:
        decision = decide(state, event, facts)
        if (
            isinstance(event, ev.BlockAdded)
            and isinstance(state, LspState)
            and event.height % COMPARED_EVERY == 0
        ):
            nobody_rests = changed(state, restless=all_restless(state.factories))
            asking_all = decide(nobody_rests, event, facts)
            assert asking_all.entries == decision.entries, "a factory at rest had to remember"
            assert asking_all.asked == decision.asked, "a factory at rest had to act"
        for stream, record, _, at in decision.entries:
            if not facts.is_fresh:
                check_is_no_risk(state, record)
            state = apply(state, stream, *decode_dated(encode_record(record, at)))
        same = without_taken_mail(decision.state) == without_taken_mail(state)
        assert same, f"{type(event).__name__} ends beside its own records"
        return decision

    return decide_watched


def without_taken_mail(state: Any) -> Any:
    """Return a state without what needs no record: mail that its receiver took, and sleep."""
    if not isinstance(state, LspState):
        return state
    awake = all_awake(state)
    at_no_height = Map({n: factory.durable for n, factory in awake.factories.items()})
    return settled(changed(awake, factories=at_no_height))


def all_awake(state: LspState) -> LspState:
    """Return the state with every factory in memory."""
    for number in [*state.asleep]:
        state = state.with_factory(state.factory(number))
    return changed(state, find=nobody)  # Whoever folds on from here finds nobody asleep.


def durable(state: Any) -> Any:
    """Return the part of a state that a restart would find, all of it in memory."""
    return all_awake(state).durable if isinstance(state, LspState) else state


def check_is_no_risk(state: Any, record: AnyRecord) -> None:
    """Fail on what may not be remembered while the chain is stale."""
    match record:
        case cr.InvoicePaid() | cr.PaymentStarted() | cr.HtlcForwarded():
            raise AssertionError(f"{record} while the chain is stale")
        case cr.UpdateProposed(message=data):
            assert not isinstance(decode_message(data), m.UpdateAddHtlc), "an HTLC was added"
        case cr.CommitmentIntended(channel_id=channel_id):
            link = state.book.links[channel_id]
            for update in link.state.unacked[link.state.n_signed_updates :]:
                live = isinstance(update, UpdateFulfill) and link.state.find(
                    link.state.peer, update.htlc_id
                )
                is_shown = live and live.htlc.payment_hash in state.book.invoices
                assert not is_shown, "a preimage was shown first"
        case lr.JoinSent() | op.ProposalAccepted() | lr.BuildStarted() | lr.FactoryOrdered():
            raise AssertionError(f"{record} while the chain is stale")
        case hr.KeyRetired():
            raise AssertionError("keys were given away while the chain is stale")
        case op.FundingWasSigned():
            raise AssertionError("a factory was funded while the chain is stale")
        case _:
            return


LSP_ROLE: Role[LspState] = replace(lspd.LSP_ROLE, decide=watched(lsp_role.decide, lsp_role.apply))
CLIENT_ROLE: Role[ClientState] = replace(
    clientd.CLIENT_ROLE, decide=watched(client_role.decide, client_role.apply_in)
)


# Enough for any branch. To make the 64 that a real client makes is most of what joining costs.
POOL_SIZE = 16
# Worlds are quick: short lives, short delays, few nonces, any feerate, and both fee policies.
LENIENT = ClientPolicy(
    pool_size=(POOL_SIZE, ClientPolicy().pool_size[1]),
    step_blocks=(1, 1008),
    active_blocks=(144, 52_560),
    ready_min_blocks=(1, 4320),
    min_depth=(1, 12),
    lstock_csv_blocks=(1, 2016),
    to_self_delay_blocks=(1, 2016),
    tree_feerate_sat_per_kw=(25, 25_000),
    fee_policies=tuple(FeePolicy),
    when_dying=WhenDying.STAY,  # A world that is about moving says so itself.
)
FRESH_NONCE = -1  # In the notebook: a nonce of no pool, made and spent in one call.


class Crash(BaseException):
    """The process dies here."""


@dataclass
class SimStore(MemoryJournal):
    """A journal whose process may die before or after a write became durable."""

    dice: Callable[[], bool] = lambda: False
    owner: str = ""
    fence: Callable[[], None] = lambda: None  # Raises for a process that holds it no more.

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        if self.dice():
            raise Crash
        self.fence()
        self.keep(entries, archived)
        if self.dice():
            raise Crash

    def keep(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        """Make entries durable, without fail."""
        super().append(entries, archived)

    def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
        if self.dice():
            raise Crash
        self.fence()
        super().replace_checkpoint(checkpoint)
        if self.dice():
            raise Crash

    @property
    def remembered(self) -> list[AnyRecord]:
        """Everything that was remembered, in order."""
        return [record for _, record in self.told]

    @property
    def told(self) -> list[tuple[str, AnyRecord]]:
        """The same, each with its stream."""
        return self.told_since(0)

    def told_since(self, n_entries: int) -> list[tuple[str, AnyRecord]]:
        """The same, of what came after so many entries."""
        later = islice(self.entries, n_entries, None)
        return [(entry.stream, decode_record(entry.record)) for entry in later]


class WatchedSigner(Signer):
    """The production signer, with a notebook of what each nonce signed."""

    def __init__(self, keychain: Keychain, notebook: dict[tuple[bytes, int], bytes]) -> None:
        super().__init__(keychain)
        self._notebook = notebook

    def partial_sign(self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes) -> bytes:
        partial_sig = super().partial_sign(pool_id, index, task, aggnonce)
        signed = self._notebook.setdefault((pool_id, index), task.sighash + aggnonce)
        assert signed == task.sighash + aggnonce, "a secret nonce signed twice"
        return partial_sig

    def partial_sign_fresh(
        self, name: ChannelKey, task: SigningTask, pubnonce: bytes
    ) -> tuple[bytes, bytes]:
        own_pubnonce, partial_sig = super().partial_sign_fresh(name, task, pubnonce)
        assert (own_pubnonce, FRESH_NONCE) not in self._notebook, "a fresh nonce is not fresh"
        self._notebook[own_pubnonce, FRESH_NONCE] = task.sighash + pubnonce
        return own_pubnonce, partial_sig


class SimNode:
    """A participant: `driver` is None while its process is down."""

    lsp_role: Role[Any] = LSP_ROLE
    client_role: Role[ClientState] = CLIENT_ROLE
    client_policy: ClientPolicy = LENIENT
    checkpoint_rate = 0.05  # Of events after which a checkpoint is taken.
    unix_time = 0  # By its clock; 0 where times make no difference.
    _fold: tuple[int, Any] | None = None

    def __init__(
        self,
        name: str,
        *,
        rng: random.Random,
        lsp_node_id: bytes | None,
        perform: Callable[["SimNode", fx.Performed], Iterable[ev.Event]],
        notebook: dict[tuple[bytes, int], bytes],
        lsp_policy: LspPolicy,
        facts_at: Callable[[int], Facts] = lambda _own_height: FRESH,
    ) -> None:
        self.name = name
        self.rng = rng
        self.lsp_node_id = lsp_node_id
        self.lsp_policy = lsp_policy
        self.store = SimStore(dice=self._crashes, owner=name)
        self.notebook = notebook
        self.driver: Driver[Any] | None = None
        self.facts_at = facts_at
        self.fees = OwnFees()
        self.signer: Signer | None = None
        self.handed_over_keys = MemoryKeys()
        self.known_height = -1
        self._perform = perform
        self._summed: LspState | None = None
        self._checkpoint_dice = random.Random(name)
        self._seed = hashlib.sha256(name.encode()).digest()
        self.node_id = Keychain(self._seed, REGTEST, journal_number=0).node_id
        self.start()

    @property
    def state(self) -> Any:
        """The state of the running process."""
        assert self.driver is not None
        return self.driver.state

    @property
    def facts(self) -> Facts:
        """What a decision may read now."""
        facts = self.facts_at(self.state.chain.height)
        return changed(facts, fees=self.fees, unix_time=self.unix_time)

    def restarted_state(self) -> Any:
        """The state a restart would find, by its checkpoints, all of it in memory."""
        return durable(self._new_driver().state)

    def durable_state(self) -> Any:
        """The same as the fold of the whole journal, each record folded once."""
        n_folded, state = self._fold or (0, self.new_state())
        role: Role[Any] = CLIENT_ROLE if self.lsp_node_id else self.lsp_role
        for entry in islice(self.store.entries, n_folded, None):
            if role.parts.is_ours(entry.stream):
                state = role.apply(state, entry.stream, *decode_dated(entry.record))
        self._fold = (len(self.store.entries), state)
        return durable(state)

    def start(self) -> None:
        """Start the process: replay the journal, and tell the role."""
        number = open_journal(
            self.store,
            role="client" if self.lsp_node_id else "lsp",
            network=REGTEST,
            fingerprint=seed_fingerprint(self._seed, REGTEST),
            draw_number=lambda: self.rng.randrange(1 << 31),
        )
        keychain = Keychain(self._seed, REGTEST, journal_number=number)
        self.signer = WatchedSigner(keychain, self.notebook)
        self.driver = self._running(self._new_driver())
        self.known_height = self.driver.state.chain.height
        self.driver.facts = self.facts
        self.driver.start(unix_time=self.unix_time)

    def die(self) -> None:
        """Lose everything but the journal."""
        self.driver = None
        self.signer = None

    def handle(self, event: ev.Event) -> None:
        """Handle one event; what the operator may not ask is ignored.

        Raises:
            Crash: If the process dies on the way.
        """
        assert self.driver is not None
        self.driver.facts = self.facts
        try:
            self.driver.handle(event)
        except Rejected:
            return
        if isinstance(event, ev.BlockAdded | ev.BlockRemoved) and self.lsp_node_id is None:
            self._check_sums()
        if self._checkpoint_dice.random() < self.checkpoint_rate:
            self.checkpoint()

    def _check_sums(self) -> None:
        """Check what an LSP adds up, unless its streams have still to hear of one another."""
        assert self.driver is not None
        if not any(pending(self.driver.state)):
            check_sums(self.driver.state, before=self._summed)
            self._summed = self.driver.state

    def checkpoint(self) -> None:
        """Take a checkpoint of every stream, and let those sleep in which nothing happens.

        Raises:
            Crash: If the process dies on the way.
        """
        assert self.driver is not None
        for name in self.driver.open_streams:
            self.driver.keep(self.driver.begin_checkpoint(name)())
        for name in list(self.driver.quiet()):
            assert self.driver.put_to_sleep(name)

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        assert self.driver is not None
        return self.driver.relevant(txs) if txs else ()

    def perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        """Let an effect happen, without fail; return the events it causes at once."""
        return self._perform(self, effect)

    def heard(self, node_id: bytes, message: m.Message) -> ev.Event:
        """Return the event of a message: what is secret of it stays with the signer."""
        assert self.signer is not None
        return heard(self.signer, node_id, message)

    def perform_signing(self, effect: Any) -> tuple[ev.Event, ...]:
        """Perform an effect that needs this node's secrets."""
        assert self.signer is not None
        if isinstance(effect, HandoverEffect):
            return HandedOver(self.signer, self.handed_over_keys).perform(effect)
        return perform_signing(self.signer, lambda: self.rng.randbytes(32), effect)

    def _crashes(self) -> bool:
        """Say whether the process dies here; one that is told nothing else never does."""
        return False

    def _effect(self, effect: fx.Performed) -> Iterable[ev.Event]:
        if self._crashes():
            raise Crash
        return self.perform(effect)

    def _running(self, driver: Driver[Any]) -> Driver[Any]:
        """Return a driver as it runs in this process; one that only reads a journal is as it is."""
        return driver

    def _new_driver(self) -> Driver[Any]:
        role: Role[Any] = self.client_role if self.lsp_node_id else self.lsp_role
        return Driver(role, self.new_state(), self.store, self._effect)

    def new_state(self) -> Any:
        """Return the state before the first record."""
        account = Account(Keychain(self._seed, REGTEST, journal_number=0).wallet_account)
        if self.lsp_node_id is None:
            config = LspConfig(
                network=REGTEST, node_id=self.node_id, policy=self.lsp_policy, account=account
            )
            return lsp_role.new_lsp(config)
        client_config = ClientConfig(
            network=REGTEST,
            node_id=self.node_id,
            lsp_node_id=self.lsp_node_id,
            policy=self.client_policy,
            account=account,
        )
        return client_role.new_client(client_config)
