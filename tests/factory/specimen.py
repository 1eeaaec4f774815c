"""Trees to test with: test keys, any terms, one funding outpoint."""

from collections.abc import Sequence
from typing import Final

from tests.factory import oracle

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.factory.allocation import lstock_sat_min
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys

DW, STATIC = VertexKind
FUNDING: Final = OutPoint(txid=Txid(b"\x77" * 32), vout=0)


def dw(arities: Sequence[int]) -> InnerLevels:
    """Return levels that all have states."""
    return InnerLevels(arities=tuple(arities), kinds=(DW,) * len(arities))


def channel_keys(client: int) -> ChannelFundingPubkeys:
    return ChannelFundingPubkeys(
        client_funding_pubkey=oracle.pubkey("client funding", client),
        lsp_funding_pubkey=oracle.pubkey("lsp funding", client),
    )


def tree_of(terms: FactoryTerms, *, funding_outpoint: OutPoint = FUNDING) -> Tree:
    n_clients = len(terms.capacity_sat)
    return build_tree(
        terms,
        factory_pubkeys=oracle.factory_pubkeys(n_clients),
        channels=[channel_keys(client) for client in range(1, n_clients + 1)],
        funding_outpoint=funding_outpoint,
    )


def sellable(terms: FactoryTerms) -> FactoryTerms:
    """Return terms whose channels and L-stocks are large enough for a poison at any feerate."""
    leaves = oracle.spot_of(terms).leaves()
    return oracle.with_field(
        terms,
        capacity_sat=tuple(capacity_sat + 12_000 for capacity_sat in terms.capacity_sat),
        lstock_sat=tuple(
            lstock_sat + lstock_sat_min(terms, n_clients=len(leaf.clients))
            for lstock_sat, leaf in zip(terms.lstock_sat, leaves, strict=True)
        ),
    )
