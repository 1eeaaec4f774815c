"""What an LSP's factory is computed from, and what follows: its tree, and every client's channel.

It stays as long as the factory is remembered. What it took to sign it, pools and nonces, does not.
"""

from dataclasses import dataclass
from functools import cached_property

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import Commitment
from cromford.channel.terms import Party
from cromford.factory.branch import Branch, branch_of
from cromford.factory.lifetime import Lifetime, lifetime_of
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import FACTORY_VOUT, Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys, Vertex
from cromford.protocol.journal.first_commitments import ChannelSetting, channel_setting
from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class LspSeat:
    """A client's seat: who, the keys it joined with, and where it wants to be paid."""

    node_id: bytes
    factory_pubkey: bytes
    channel: m.ChannelOffer
    payout_script: bytes


@dataclass(frozen=True, kw_only=True)
class LspBlueprint:
    """A funding transaction, the tree under it, and its channels.

    `rung` is its place in the fee ladder, the lowest feerate first.
    """

    terms: FactoryTerms
    seats: tuple[LspSeat, ...]
    lsp_factory_pubkey: bytes
    channels: tuple[m.ChannelOffer, ...]  # the LSP's keys, one offer per client
    funding_tx: Tx
    rung: int = 0

    def client_of(self, node_id: bytes) -> int | None:
        """Return a client's participant index, or None."""
        return self._clients.get(node_id)

    @cached_property
    def _clients(self) -> dict[bytes, int]:
        """The participant index of each client, by its node id."""
        return {seat.node_id: client for client, seat in enumerate(self.seats, start=1)}

    @cached_property
    def factory_pubkeys(self) -> tuple[bytes, ...]:
        """One per participant, the LSP's first."""
        return (self.lsp_factory_pubkey, *(seat.factory_pubkey for seat in self.seats))

    @property
    def funding_outpoint(self) -> OutPoint:
        """What the root spends."""
        return self.funding_tx.outpoint(FACTORY_VOUT)

    @cached_property
    def lifetime(self) -> Lifetime:
        """The heights at which the factory's life changes, by its slowest path."""
        return lifetime_of(self.terms, plan_of(self.terms).shape.slowest_kinds)

    @cached_property
    def ready_height_max(self) -> int:
        """The last funding confirmation height at which any client uses the factory."""
        shape = plan_of(self.terms).shape
        one_of_each = (leaf.clients[0] for leaf in shape.leaves())
        return max(self.terms.ready_height_max(shape.kinds_to(client)) for client in one_of_each)

    @cached_property
    def tree(self) -> Tree:
        """The whole tree."""
        return build_tree(
            self.terms,
            factory_pubkeys=self.factory_pubkeys,
            channels=[
                ChannelFundingPubkeys(
                    client_funding_pubkey=seat.channel.funding_pubkey,
                    lsp_funding_pubkey=channel.funding_pubkey,
                )
                for seat, channel in zip(self.seats, self.channels, strict=True)
            ],
            funding_outpoint=self.funding_outpoint,
        )

    @property
    def root_name(self) -> str:
        """The name of the transaction that is signed last."""
        return self.tree.root_node.name

    @cached_property
    def leaf_names(self) -> dict[int, str]:
        """The name of each client's leaf."""
        leaves = self.tree.root.shape.leaves()
        return {client: leaf.name for leaf in leaves for client in leaf.clients}

    @cached_property
    def leaf_vertices(self) -> dict[str, Vertex]:
        """The leaves by name, each with the state of the opening."""
        names = frozenset(self.leaf_names.values())
        vertices = self.tree.vertices
        return {one.first.shape.name: one for one in vertices if one.first.shape.name in names}

    @cached_property
    def watched_txids(self) -> frozenset[Txid]:
        """The funding transaction and every tree transaction."""
        return frozenset({self.funding_tx.txid, *(node.tx.txid for node in self.tree.nodes)})

    @cached_property
    def tree_outpoints(self) -> frozenset[OutPoint]:
        """What the tree's transactions spend."""
        return frozenset(node.tx.inputs[0].outpoint for node in self.tree.nodes)

    @cached_property
    def settings(self) -> tuple[ChannelSetting, ...]:
        """Every client's channel."""
        settings: list[ChannelSetting] = []
        for client, (seat, offer) in enumerate(zip(self.seats, self.channels, strict=True), 1):
            branch = self.branch(client)
            settings.append(
                channel_setting(
                    self.terms,
                    outpoint=branch.channel_outpoint,
                    channel=branch.channel,
                    lsp=offer,
                    client=seat.channel,
                )
            )
        return tuple(settings)

    def setting(self, client: int) -> ChannelSetting:
        """Return one client's channel."""
        return self.settings[client - 1]

    @cached_property
    def first_commitments(self) -> dict[tuple[int, Party], Commitment]:
        """Every first commitment, by client and holder."""
        return {
            (client, holder): setting.first_commitment(holder)
            for client, setting in enumerate(self.settings, start=1)
            for holder in Party
        }

    def branch(self, client: int) -> Branch:
        """Return one client's branch.

        Raises:
            ValueError: If there is no such client.
        """
        if client not in self._branches:
            self._branches[client] = branch_of(self.tree, client)
        return self._branches[client]

    @cached_property
    def _branches(self) -> dict[int, Branch]:
        """Those that were asked for, which are vertices of the tree: each step asks for all."""
        return {}
