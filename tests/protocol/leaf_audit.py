"""What must be true of leaves that are advanced, whatever happens: read from folded journals."""

from collections.abc import Mapping, Sequence
from typing import Final

from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.factory.leaf import Leaf
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.leaf_states import AgreedStates
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_state import LspState

SIGNATURE_SIZE: Final = 64


def check_own_claims(link: Link) -> None:
    """Check on which fundings a side has an unrevoked commitment of its own.

    On the present one alone, or on it and the next, or on the next alone once it is rebased; on
    both from where both may confirm.
    """
    own = [funding for funding in link.fundings if link.finished_on(funding) is not None]
    if link.next is None:
        assert own == [link.present], "a claim on another funding than the present one"
    elif link.state.content(link.me, Edition.SIGNED).is_rebased:
        assert own == [link.next.funding], "a rebased commitment leaves a claim behind"
    else:
        assert own in ([link.present], [link.present, link.next.funding]), "no claim on a funding"
        # A client holds its own as it signs; the LSP as soon as what the client signed is finished.
        holds_next = link.next.is_dual
        if link.me is Party.OPENER:
            holds_next = holds_next and link.next.own is not None
        assert (len(own) > 1) == holds_next, "a claim was revoked too early, or is there too early"


def check_reserve(link: Link) -> None:
    """Check that a price is set aside only while an advance is open, and no other."""
    reserved_msat = link.state.reserved_msat
    if link.next is None:
        assert not reserved_msat, "a price is set aside for nothing"
    else:
        assert reserved_msat in (0, link.next.price_msat), "another price is set aside"


def check_lsps_leaves(state: LspState) -> None:
    """Check that every state of every leaf pays out its input to the satoshi, channels included."""
    for factory in state.all_factories():
        if factory.begun is None or factory.begun.funded is None:
            continue
        attempt = factory.attempt
        leaves = {attempt.leaf_name(seat): attempt.leaf(seat) for seat in _seats(attempt.seats)}
        for name, leaf in leaves.items():
            _check_leaf(leaf, attempt.leaves.get(name, ()))
        for advance in factory.advances.values():
            leaf = attempt.leaf(advance.buyer)
            now = leaf.allocation
            assert advance.allocation.input_sat(leaf.terms) == now.input_sat(leaf.terms)
            assert advance.state_index - len(leaf.states) in (-1, 0), "an advance of another state"


def check_clients_leaves(state: ClientState) -> None:
    """Check the same of what a client holds, and that its channel is where its leaf says."""
    links = {link.attempt_id: link for link in state.book.links.values()}
    for attempt_id, link in links.items():
        held = state.attempts[attempt_id]
        if not held.leaf_states:
            continue
        leaf = held.leaf
        _check_leaf(leaf, held.leaf_states)
        index = {one.tx.txid: n for n, one in enumerate(leaf.states)}[link.present.outpoint.txid]
        place = leaf.clients.index(link.client)
        assert link.present.capacity_sat == leaf.allocation_at(index).capacities_sat[place]


def _check_leaf(leaf: Leaf, agreed: AgreedStates) -> None:
    input_sat = leaf.allocation_at(0).input_sat(leaf.terms)
    kickoff_sat = leaf.kickoff.tx.outputs[leaf.state.tx.inputs[0].outpoint.vout].amount_sat
    assert input_sat == kickoff_sat
    for index, state in enumerate(leaf.states):
        allocation = leaf.allocation_at(index)
        assert allocation.input_sat(leaf.terms) == input_sat, "satoshis appeared or disappeared"
        assert sum(output.amount_sat for output in state.tx.outputs) + state.fee_sat == input_sat
        if index:
            assert min(leaf.growths_sat(index - 1)) >= 0, "a channel shrank"
    for state, signed in zip(leaf.states[1:], agreed, strict=True):
        assert state.task.is_signed_by(signed.signature, state.task.key_agg.output_key)


def check_rest(lsp: LspState, clients: Sequence[ClientState]) -> None:
    """Check that nothing of an advance is left once nothing moves, and that all hold the same."""
    for factory in lsp.all_factories():
        assert not factory.advances, "an advance never ends"
        for link in factory.book.links.values():
            _check_is_over(link)
    for client in clients:
        assert not client.advances, "a client waits for an advance"
        for link in client.book.links.values():
            _check_is_over(link)
            held = client.attempts[link.attempt_id]
            attempt = lsp.attempts[link.attempt_id]
            theirs = attempt.leaves.get(attempt.leaf_name(link.client), ())
            _check_same(held.leaf_states, theirs, link.client)


def _check_is_over(link: Link) -> None:
    assert link.next is None, "a channel waits for its rebase"
    assert not link.quiet_for, "a channel stays quiet"
    assert not link.state.reserved_msat, "a price stays set aside"
    assert link.state.rebase is None, "a rebase is under way"


def _check_same(own: AgreedStates, lsps: AgreedStates, client: int) -> None:
    assert [one.allocation for one in own] == [one.allocation for one in lsps]
    for mine, theirs in zip(own, lsps, strict=True):
        assert mine.signature == theirs.signature
        if mine.poisons is not None:
            assert theirs.poisons is not None
            assert mine.poisons.stock == theirs.poisons.stock
            assert _of(mine.poisons.channels, client) == _of(theirs.poisons.channels, client)


def _of(channels: Mapping[int, bytes], client: int) -> bytes:
    assert len(channels[client]) == SIGNATURE_SIZE
    return channels[client]


def _seats(seats: Sequence[object]) -> range:
    return range(1, len(seats) + 1)
