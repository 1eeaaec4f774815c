"""A leaf with all its states: what a sale makes of it, and what protects from the old ones.

Everything follows from one vertex, as an LSP has it of its tree and a client of its branch, and
from the factory keys: scripts never change, so a client needs of its neighbours' channels no more.
"""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.crypto.keys import TaggedHash
from cromford.factory.allocation import (
    Allocation,
    Purchase,
    after_sale,
    channel_poison_fee_sat,
    next_state_index,
    sale_between,
    sales_in_stock,
    stock_poison_fee_sat,
)
from cromford.factory.outputs import OutputKind
from cromford.factory.poison import Poison, Pubkeys, poison_of, shares_of
from cromford.factory.terms import GeneralTerms
from cromford.factory.vertices import TreeNode, Vertex, state_of

_hash_advance: Final = TaggedHash("cromford/advance")


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A leaf and every state that was agreed for it, unsigned.

    Attributes:
        terms: The agreement.
        factory_pubkeys: By participant index, those of the LSP and of its clients.
        kickoff: What all its states spend.
        states: Index 0 first. The last is live; each of the others is superseded by the next.
    """

    terms: GeneralTerms
    factory_pubkeys: Pubkeys
    kickoff: TreeNode
    states: tuple[TreeNode, ...]

    @property
    def state(self) -> TreeNode:
        """The live state."""
        return self.states[-1]

    @property
    def clients(self) -> range:
        """The participant indices of its clients, in placement order."""
        return self.kickoff.shape.clients

    @property
    def allocation(self) -> Allocation:
        """What the live state pays."""
        return self.allocation_at(len(self.states) - 1)

    def allocation_at(self, state_index: int) -> Allocation:
        """Return what one of its states pays."""
        return allocation_of(self.states[state_index])

    @property
    def sales_left(self) -> int:
        """How many more sales there can be: by the indices left, and by what the L-stock holds."""
        indices_left = self.terms.states_per_layer - len(self.states)
        return min(indices_left, sales_in_stock(self.allocation, self.terms))

    def sold(self, purchase: Purchase) -> "Leaf":
        """Return the leaf after a sale.

        Raises:
            AdvanceRefused: If no index is left, the buyer is not in the leaf, or so much cannot be
                sold.
        """
        after = after_sale(self.allocation, purchase, clients=self.clients, terms=self.terms)
        return self._with(after)

    def advanced(self, after: Allocation) -> "Leaf":
        """Return the leaf after an advance to what somebody else says of its next state.

        Raises:
            AdvanceRefused: If no index is left, or no sale to one client leads there.
        """
        sale_between(self.allocation, after, clients=self.clients, terms=self.terms)
        return self._with(after)

    def growths_sat(self, state_index: int) -> tuple[int, ...]:
        """Return what each channel gained when a state was superseded, in placement order.

        Later advances do not change it: they supersede other states.

        Raises:
            ValueError: If that state is not superseded.
        """
        return self._replacing(state_index).growths_sat(self.allocation_at(state_index))

    def channel_poison(self, state_index: int, client: int) -> Poison:
        """Return the poison of one client's channel in a superseded state: all to that client.

        Raises:
            ValueError: If that state is not superseded, the client is not in the leaf, or the keys
                of its channel are not known.
        """
        self._replacing(state_index)
        state = self.states[state_index]
        vout = self.clients.index(client)
        paid_sat = state.outputs[vout].amount_sat - channel_poison_fee_sat(self.terms)
        return poison_of(
            state, vout=vout, shares_sat={client: paid_sat}, factory_pubkeys=self.factory_pubkeys
        )

    def stock_poison(self, state_index: int) -> Poison:
        """Return the poison of the L-stock of a superseded state.

        Raises:
            ValueError: If that state is not superseded.
        """
        shares = zip(self.clients, self.shares_sat(state_index), strict=True)
        return poison_of(
            self.states[state_index],
            vout=len(self.clients),
            shares_sat={client: share_sat for client, share_sat in shares if share_sat},
            factory_pubkeys=self.factory_pubkeys,
        )

    def shares_sat(self, state_index: int) -> tuple[int, ...]:
        """Return what the poison of a state's L-stock pays each client, in placement order.

        Raises:
            ValueError: If that state is not superseded.
        """
        growths = self.growths_sat(state_index)
        fee_sat = stock_poison_fee_sat(self.terms, n_clients=len(growths))
        return shares_of(self.allocation_at(state_index).lstock_sat - fee_sat, growths)

    def poisons(self, state_index: int) -> tuple[Poison, ...]:
        """Return a superseded state's poisons that can be signed here: channels', then L-stock's.

        Of a client's leaf that is its own channel's, for it does not know other channels' keys.

        Raises:
            ValueError: If that state is not superseded.
        """
        stock = self.stock_poison(state_index)
        channels = (
            self.channel_poison(state_index, output.client)
            for output in self.states[state_index].outputs
            if output.client is not None and output.signers_output is not None
        )
        return (*channels, stock)

    def _replacing(self, state_index: int) -> Allocation:
        if not 0 <= state_index < len(self.states) - 1:
            raise ValueError(
                f"state_index: a superseded state, below {len(self.states) - 1}, was expected, "
                f"received {state_index}"
            )
        return self.allocation_at(state_index + 1)

    def _with(self, after: Allocation) -> "Leaf":
        """Return the leaf with one more state, of a checked allocation.

        Raises:
            AdvanceRefused: If no index is left.
        """
        amounts_sat = (*after.capacities_sat, after.lstock_sat)
        paid = tuple(
            changed(output, amount_sat=amount_sat)
            for output, amount_sat in zip(self.state.outputs[:-1], amounts_sat, strict=True)
            if amount_sat
        )
        state = state_of(
            self.kickoff,
            terms=self.terms,
            paid=paid,
            state_index=next_state_index(self.terms, len(self.states) - 1),
        )
        return changed(self, states=(*self.states, state))


def opening_leaf(vertex: Vertex, *, terms: GeneralTerms, factory_pubkeys: Pubkeys) -> Leaf:
    """Return a leaf of which nothing was sold yet.

    Args:
        vertex: Its vertex, of a whole tree or of a client's branch.
        terms: The agreement.
        factory_pubkeys: By participant index, those of the LSP and of its clients.

    Raises:
        ValueError: If the vertex is no leaf, or its state was advanced.
    """
    if vertex.last.shape.children or vertex.last.state_index != 0:
        raise ValueError(f"{vertex.last.name}: a leaf's first state was expected")
    return Leaf(
        terms=terms, factory_pubkeys=factory_pubkeys, kickoff=vertex.first, states=(vertex.last,)
    )


def state_in(leaf: Leaf, tx: Tx) -> TreeNode | None:
    """Return the state of a leaf that a transaction is, though it was not agreed here; else None.

    A store that was put back may lack states that it signed. Scripts never change, so a state is
    known by its form, whatever it pays.

    Args:
        leaf: With the states that are known.
        tx: What spent its kickoff.
    """
    paid = tuple(
        changed(output, amount_sat=txout.amount_sat)
        for output, txout in zip(leaf.states[0].outputs[:-1], tx.outputs[:-1], strict=False)
    )
    for state_index in range(len(leaf.states), leaf.terms.states_per_layer):
        if leaf.terms.odometer.delay_blocks(state_index) != tx.inputs[0].nsequence:
            continue
        try:
            state = state_of(leaf.kickoff, terms=leaf.terms, paid=paid, state_index=state_index)
        except ValueError:
            return None
        return state if state.tx.txid == tx.txid else None
    return None


def advance_id_of(
    leaf: Leaf, *, attempt_id: bytes, state_index: int, allocation: Allocation
) -> bytes:
    """Return the name of an advance: the hash of what the next state pays, and where.

    Not of the price: it is the same for all who take part. The factory's name is followed by the
    leaf's path, its length and then its digits, a byte each; the state's index, the channels'
    capacities in placement order and the L-stock follow, eight bytes each, big-endian.
    """
    path = leaf.kickoff.shape.path
    numbers = (state_index, *allocation.capacities_sat, allocation.lstock_sat)
    return _hash_advance(
        attempt_id
        + bytes((len(path), *path))
        + b"".join(number.to_bytes(8, "big") for number in numbers)
    )


def allocation_of(state: TreeNode) -> Allocation:
    """Return what a leaf's state pays."""
    paid = {kind: [o.amount_sat for o in state.outputs if o.kind is kind] for kind in OutputKind}
    return Allocation(
        capacities_sat=tuple(paid[OutputKind.CHANNEL]), lstock_sat=sum(paid[OutputKind.LSTOCK])
    )


def advance_height_max(*, exit_deadline_height: int, patience_blocks: int) -> int:
    """Return the last height at which an advance may begin.

    What was bought has to be of use for longer than the advance may take.
    """
    return exit_deadline_height - patience_blocks - 1


def usable_blocks(*, height: int, exit_deadline_height: int, patience_blocks: int) -> int:
    """Return for how many blocks a purchase of now is of use; 0 if it is too late to buy.

    From the exit deadline on no HTLC is added, so nothing is received.
    """
    last_height = advance_height_max(
        exit_deadline_height=exit_deadline_height, patience_blocks=patience_blocks
    )
    return exit_deadline_height - height if height <= last_height else 0
