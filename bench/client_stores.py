"""What one client stores of a factory, by how many clients there are in it.

    python -m bench.client_stores 16 64 255 1024

The client is the production role with its driver, its signer and its journal. All others, the LSP
among them, are keys and nonces: the LSP's words are made here, and each signature is one of all.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

from bench.ceremony import Participant
from bench.sizes import (
    CAPACITY_SAT,
    DEFAULT_SHAPE,
    TIP_HASH,
    TIP_HEIGHT,
    Size,
    keychain_of,
    seckey_of,
)

from cromford.adapters.memory import MemoryJournal
from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.commitment import Commitment
from cromford.channel.terms import Party
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, sha256, xonly_of
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.factory.branch import Branch, build_branch
from cromford.factory.funding import CHANGE_MIN_SAT, funding_tx_of
from cromford.factory.shape import plan_of
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import ChannelFundingPubkeys, funding_output_of
from cromford.ports import Checkpoint
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientConfig
from cromford.protocol.journal.first_commitments import channel_setting, offer_of
from cromford.protocol.journal.streams import CLIENT
from cromford.signing.keychain import ChannelKey
from cromford.signing.nonces import NoncePool
from cromford.signing.round import aggregate_nonces
from cromford.signing.task import SigningTask
from cromford.wallet.account import Account
from cromford.wire import messages as m

POOL_SIZE: Final = 64
SIZES_DEFAULT: Final = (16, 64, 255, 1024)
FUNDING_FEE_SAT: Final = 1_000
M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Bytes that one client stores of a factory that everybody signed.

    Attributes:
        n_clients: How many clients the factory has.
        n_txs: How many transactions the client's branch has.
        journal: Of all records, from the first on.
        snapshot: Of a checkpoint, with the rows beside it.
    """

    n_clients: int
    n_txs: int
    journal: int
    snapshot: int


class LoneClient:
    """A client, the last in its factory, and an LSP whose every other signer is a key.

    Args:
        size: The factory.
    """

    def __init__(self, size: Size) -> None:
        self.client = self.place = size.n_clients
        self._keychain = keychain_of("lone LSP")
        self.terms = size.terms(sha256(f"lone {size}".encode()))
        names = ["LSP", *range(1, size.n_clients)]
        self._seckeys = {
            pubkey_of(seckey): seckey for seckey in (seckey_of("lone", name) for name in names)
        }
        self.store = MemoryJournal()
        keychain = keychain_of("lone client")
        config = ClientConfig(
            network=REGTEST,
            node_id=keychain.node_id,
            lsp_node_id=self._keychain.node_id,
            policy=size.client_policy,
            account=Account(keychain.wallet_account),
        )
        self.participant = Participant(
            keychain,
            CLIENT_ROLE,
            client_role.new_client(config),
            {self.coin.outpoint: self.coin}.get,
            self.store,
        )
        self._join = self._joined()
        self.others = tuple(self._seckeys)
        self.factory_pubkeys = (*self.others, self._join.factory_pool.pubkey)

    @cached_property
    def coin(self) -> Coin:
        """What the funding spends."""
        amount_sat = plan_of(self.terms).input_sat + CHANGE_MIN_SAT + FUNDING_FEE_SAT
        return Coin(
            outpoint=OutPoint(txid=Txid(sha256(b"lone coin")), vout=0),
            txout=TxOut(amount_sat=amount_sat, script_pubkey=b"\x00\x14" + bytes(20)),
            confirmations=1,
        )

    @property
    def attempt(self) -> ClientAttempt:
        """What the client remembers of the factory."""
        attempts: list[ClientAttempt] = [*self.participant.driver.state.attempts.values()]
        return attempts[-1]

    @property
    def records(self) -> list[bytes]:
        """All that the client journalled."""
        return list(self.store.replay(CLIENT, after=0))

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of the client's state."""
        made: Checkpoint = self.participant.driver.begin_checkpoint(CLIENT)()
        return made

    def sign_all(self) -> None:
        """Let everybody sign, to the client's acknowledgement.

        Raises:
            AssertionError: If the client says something else.
        """
        self._say(self._propose())
        halves = self._heard(m.SignBelow).candidates[0]
        below = dict(
            zip(
                [node.name for node in self.branch.nodes_below_root],
                halves.partial_sigs,
                strict=True,
            )
        )
        ids = {"attempt_id": self.terms.attempt_id, "terms_hash": self.terms.terms_hash}
        own_commitment = self._commitments[Party.ACCEPTER].signing_task
        signatures = m.BranchSignatures(
            signatures=tuple(
                self._signed(node.task, below[node.name]) for node in self.branch.nodes_below_root
            ),
            commitment_partial_sig=self._lsp_pool.partial_sign(
                Party.ACCEPTER, own_commitment, self._commitment_aggnonce(Party.ACCEPTER)
            ),
        )
        self._say(m.SignedBelow(**ids, candidates=(signatures,)))
        (root,) = self._heard(m.SignRoot).partial_sigs
        signed_root = self._signed(self.branch.root_node.task, root)
        self._say(m.SignedRoot(**ids, signatures=(signed_root,)))
        self._heard(m.Acknowledge)

    def _joined(self) -> m.Join:
        client, lsp = self.participant, self._keychain.node_id
        client.handle(ev.BlockAdded(height=TIP_HEIGHT, block_hash=TIP_HASH, txs=()))
        client.handle(ev.ConnectionOpened(node_id=lsp))
        wish = ev.JoinRequested(capacity_sat=CAPACITY_SAT, capacity_least_sat=CAPACITY_SAT)
        client.handle(wish)
        self._say(
            m.Lobby(
                network=REGTEST.genesis_hash,
                candidates=1,
                capacity_min_sat=CAPACITY_SAT,
                capacity_max_sat=CAPACITY_SAT,
                min_clients=1,
                max_clients=self.client,
                pool_size=POOL_SIZE,
                deadline_seconds=60,
                fee_base_msat=0,
                fee_proportional_millionths=0,
            )
        )
        join = self._heard(m.Join)
        self._say(m.Joined(factory_pubkey=join.factory_pool.pubkey, waiting=1))
        return join

    def _say(self, message: m.Message) -> None:
        self.participant.receive(self._keychain.node_id, m.encode_message(message))

    def _heard(self, kind: type[M]) -> M:
        _, data = self.participant.outbox.popleft()
        message = m.decode_message(data)
        if not isinstance(message, kind):
            raise AssertionError(f"expected {kind.__name__}, heard {message}")
        return message

    @cached_property
    def _channel(self) -> m.ChannelOffer:
        """The LSP's keys of the client's channel."""
        return offer_of(self._keychain.channel_pubkeys(self._channel_key))

    @property
    def _channel_key(self) -> ChannelKey:
        return ChannelKey(attempt=0, channel=self.client)

    @cached_property
    def _lsp_pool(self) -> NoncePool:
        keypair = self._keychain.keypair(self._channel_key)
        return NoncePool(keypair, size=m.N_FIRST_COMMITMENTS)

    @cached_property
    def _funding_tx(self) -> bytes:
        script = funding_output_of(self.factory_pubkeys, self.terms).script_pubkey
        paid = TxOut(amount_sat=plan_of(self.terms).input_sat, script_pubkey=script)
        change = TxOut(amount_sat=CHANGE_MIN_SAT, script_pubkey=b"\x51\x20" + _xonly("change"))
        tx = funding_tx_of(inputs=[self.coin.outpoint], factory_output=paid, change_output=change)
        return tx.serialize()

    @cached_property
    def branch(self) -> Branch:
        """The client's branch, with everybody's keys."""
        leaf = plan_of(self.terms).path_to(self.client)[-1].shape.clients
        return build_branch(
            self.terms,
            client=self.client,
            factory_pubkeys=self.factory_pubkeys,
            channel_keys=self.channel_keys,
            neighbour_scripts={
                other: b"\x51\x20" + _xonly("neighbour", other)
                for other in leaf
                if other != self.client
            },
            funding_outpoint=Tx.parse(self._funding_tx).outpoint(FACTORY_VOUT),
        )

    @property
    def channel_keys(self) -> ChannelFundingPubkeys:
        """The funding keys of the client's channel."""
        return ChannelFundingPubkeys(
            client_funding_pubkey=self._offer.channel.funding_pubkey,
            lsp_funding_pubkey=self._channel.funding_pubkey,
        )

    @property
    def _offer(self) -> m.CandidateOffer:
        return self._join.candidates[0]

    @cached_property
    def _commitments(self) -> dict[Party, Commitment]:
        """The first commitments of the client's channel, by holder."""
        setting = channel_setting(
            self.terms,
            outpoint=self.branch.channel_outpoint,
            channel=self.branch.channel,
            lsp=self._channel,
            client=self._offer.channel,
        )
        return {holder: setting.first_commitment(holder) for holder in Party}

    def _commitment_aggnonce(self, holder: Party) -> bytes:
        pools = (self._lsp_pool.public, self._offer.pool)
        return aggregate_nonces({pool.pubkey: pool.pubnonces[holder] for pool in pools})

    @cached_property
    def _pools(self) -> dict[bytes, NoncePool]:
        """The nonces of all but the client: of each as many as there are transactions for it."""
        counts = Counter(signer for node in self.branch.nodes for signer in node.task.signers)
        return {
            pubkey: NoncePool(Keypair(seckey), size=counts[pubkey])
            for pubkey, seckey in self._seckeys.items()
            if counts[pubkey]
        }

    @cached_property
    def _sessions(self) -> dict[str, tuple[int, bytes]]:
        """The place of each transaction in its branch, which is its nonce, and its aggregate."""
        own = self._join.factory_pool
        sessions = {}
        for index, node in enumerate(self.branch.nodes):
            pubnonces = {
                signer: own.pubnonces[index]
                if signer == own.pubkey
                else self._pools[signer].public.pubnonces[index]
                for signer in node.task.signers
            }
            sessions[node.name] = (index, aggregate_nonces(pubnonces))
        return sessions

    def _signed(self, task: SigningTask, own: bytes) -> bytes:
        """Return everybody's signature, with the client's part in it."""
        index, aggnonce = self._sessions[task.name]
        parts = [
            self._pools[signer].partial_sign(index, task, aggnonce)
            if signer in self._pools
            else own
            for signer in task.signers
        ]
        return task.session(aggnonce).partial_sig_agg(parts)

    def _propose(self) -> m.Propose:
        nonces = [m.NonceUse(index=i, aggnonce=nonce) for i, nonce in self._sessions.values()]
        candidate = m.CandidateProposal(
            funding_tx=self._funding_tx,
            vertices=tuple(
                m.BranchVertex(
                    kickoff_tx=b"" if vertex.is_static else vertex.first.tx.serialize(),
                    state_tx=vertex.last.tx.serialize(),
                )
                for vertex in self.branch.vertices
            ),
            nonces=tuple(nonces),
            channel=self._channel,
            commitment_nonces=tuple(
                m.NonceUse(index=holder, aggnonce=self._commitment_aggnonce(holder))
                for holder in Party
            ),
        )
        return m.Propose(
            factory_pubkey=self._join.factory_pool.pubkey,
            attempt_id=self.terms.attempt_id,
            terms_hash=self.terms.terms_hash,
            terms=self.terms.encode(),
            client=self.client,
            factory_pubkeys=self.factory_pubkeys,
            candidates=(candidate,),
        )


def _xonly(*names: object) -> bytes:
    return xonly_of(pubkey_of(seckey_of("lone", *names)))


def stored_by(lone: LoneClient) -> Stored:
    """Return what a client stores, once everybody signed."""
    checkpoint = lone.checkpoint()
    rows = sum(len(row.key) + len(row.value or b"") for row in checkpoint.rows)
    return Stored(
        n_clients=lone.client,
        n_txs=len(lone.branch.nodes),
        journal=sum(map(len, lone.records)),
        snapshot=len(checkpoint.snapshot) + rows,
    )


def main(arguments: Sequence[str]) -> None:
    """Print what a client stores of factories with so many clients."""
    print("| clients | transactions | records, bytes | checkpoint and rows, bytes |")
    print("|---|---|---|---|")
    for n_clients in map(int, arguments or SIZES_DEFAULT):
        lone = LoneClient(Size(n_clients, DEFAULT_SHAPE))
        lone.sign_all()
        row = stored_by(lone)
        print(f"| {row.n_clients:,} | {row.n_txs} | {row.journal:,} | {row.snapshot:,} |")


if __name__ == "__main__":
    main(sys.argv[1:])
