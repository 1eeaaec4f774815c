"""What is measured: how many clients, in which shape of tree, under which policies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

from bench import floor
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Txid
from cromford.factory.kinds import VertexKind
from cromford.factory.shape import ShapeVertex
from cromford.factory.terms import HASH_SIZE, N_INNER_LEVELS_MAX, FactoryTerms
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.lsp_state import LspConfig, LspState, new_lsp
from cromford.protocol.journal.mail import Found
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.streams import CHAIN
from cromford.protocol.lobby.build import terms_of
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.signing.keychain import Keychain
from cromford.wallet.account import Account

CAPACITY_SAT: Final = 1_000_000
CLIENTS_DEFAULT: Final = (4, 8, 16, 32, 64, 127)
CLIENTS_QUICK: Final = (4, 16)
DEFAULT_SHAPE: Final = "default"
TIP_HEIGHT: Final = 200
TIP_HASH: Final = Txid(b"\x01" * 32)
BINARY_SHAPE: Final = "binary"  # as deep as it takes, whatever the longest way out


@dataclass(frozen=True)
class Size:
    """One size of factory. `shape_name` is one of the two above."""

    n_clients: int
    shape_name: str

    @cached_property
    def lsp_policy(self) -> LspPolicy:
        """The policy that gives this shape, and never drops anybody for being slow."""
        return LspPolicy(
            min_clients=1,
            max_clients=self.n_clients,
            inner_kind=VertexKind.DW if self.shape_name == BINARY_SHAPE else None,
            max_exit_delay_blocks=self.max_exit_delay_blocks,
            deadline_seconds=600,
        )

    @cached_property
    def client_policy(self) -> ClientPolicy:
        """A policy that accepts it."""
        return ClientPolicy(
            exit_delay_blocks_max=self.max_exit_delay_blocks,
            max_cltv_blocks=(1, self.terms(bytes(HASH_SIZE)).max_cltv_blocks),
        )

    @property
    def max_exit_delay_blocks(self) -> int:
        """The limit, which for a binary tree is as long as that needs."""
        policy = LspPolicy()
        if self.shape_name == DEFAULT_SHAPE:
            return policy.max_exit_delay_blocks
        layer_blocks = policy.step_blocks * (policy.states_per_layer - 1)
        n_levels = next(
            n for n in range(N_INNER_LEVELS_MAX) if policy.leaf_arity << n >= self.n_clients
        )
        return (n_levels + 1) * layer_blocks

    @cached_property
    def shape(self) -> ShapeVertex:
        """Its vertices."""
        return shape_by_policy(self.lsp_policy, self.n_clients)[0]

    @property
    def n_transactions(self) -> int:
        """How many transactions the tree has."""
        return floor.n_transactions(self.shape.vertices())

    @property
    def n_signer_sessions(self) -> int:
        """How many sessions all signers open together."""
        return floor.n_signer_sessions(self.shape.vertices())

    def new_lsp(self, keychain: Keychain) -> LspState:
        """Return the state of an LSP that has seen nothing yet."""
        return new_lsp(
            LspConfig(
                network=REGTEST,
                node_id=keychain.node_id,
                policy=self.lsp_policy,
                account=Account(keychain.wallet_account),
            )
        )

    def terms(self, attempt_id: bytes) -> FactoryTerms:
        """Return the terms an LSP would propose."""
        shape, inner = shape_by_policy(self.lsp_policy, self.n_clients)
        block = Found(height=TIP_HEIGHT, block_hash=TIP_HASH, txs=())
        taken = MailTaken(sender=CHAIN, number=1, mail=block)
        return terms_of(
            apply_to_house(self.new_lsp(keychain_of("terms")).house, taken),
            (CAPACITY_SAT,) * self.n_clients,
            shape,
            inner,
            attempt_id=attempt_id,
        )


def sizes_of(clients: Sequence[int]) -> Iterator[Size]:
    """Yield every size in the default shape, and in the binary one where that is another."""
    for n_clients in clients:
        default, binary = Size(n_clients, DEFAULT_SHAPE), Size(n_clients, BINARY_SHAPE)
        if default.shape == binary.shape:
            yield binary
        else:
            yield from (default, binary)


def seckey_of(*names: object) -> bytes:
    """Return a public test key; other names, another key."""
    return sha256(" ".join(map(str, ("bench", *names))).encode()).digest()


def keychain_of(*names: object) -> Keychain:
    """Return the keys of a participant that exists for this benchmark only."""
    return Keychain(seckey_of("seed", *names), REGTEST, journal_number=0)
