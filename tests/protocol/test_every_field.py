"""Every field of a proposal, found by walking it: what is changed is refused, or known to be free.

Nothing here names a field in order to test it. The walk goes through the message, the terms and the
transactions inside it down to integers and bytes, and changes each in several ways. A field that is
added and not checked is signed whatever stands in it, and then the list of what a client takes as
given is one line too short, and this fails.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, Final

import pytest
from tests.protocol.forge import NOT_A_POINT, Victim, encoded_terms, scene, stranger, with_raw_terms

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX
from cromford.factory.terms import FactoryTerms
from cromford.wire import messages as m

POINT_SIZE: Final = 33
TERMS: Final = scene().attempt.terms
Put = Callable[[Any], Any]  # Puts another value where one was, and returns the whole.


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A proposal with one place changed."""

    place: str
    how: str
    propose: m.Propose


# The walk


def places(value: Any, name: str, put: Put) -> Iterator[tuple[str, Any, Put]]:
    """Yield every place in a value, with what puts another value there; lists as a whole too."""
    if isinstance(value, tuple):
        yield name, value, put
        for index, item in enumerate(value):
            yield from places(item, f"{name}[{index}]", partial(_put_item, put, value, index))
    elif isinstance(value, bytes) and name.endswith("_tx"):
        yield name, value, put
        yield from places(Tx.parse(value), name, partial(_put_tx, put))
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            where = f"{name}.{item.name}" if name else item.name
            inner = getattr(value, item.name)
            yield from places(inner, where, partial(_put_field, put, value, item.name))
    else:
        yield name, value, put


def _put_item(put: Put, items: tuple[Any, ...], index: int, new: Any) -> Any:
    return put((*items[:index], new, *items[index + 1 :]))


def _put_field(put: Put, value: Any, name: str, new: Any) -> Any:
    return put(replace(value, **{name: new}))


def _put_tx(put: Put, tx: Tx) -> Any:
    return put(tx.serialize())


def _put_term(name: str, new: Any) -> m.Propose:
    """Put another term into the scene's proposal, with a hash that agrees."""
    return with_raw_terms(scene().propose, encoded_terms(**{name: new}))


def _the_whole(propose: m.Propose) -> m.Propose:
    return propose


def others(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield other values of the same type, each with what was done."""
    match value:
        case bool():
            yield "turned", not value
        case int():
            near = {"less": value - 1, "more": value + 1, "zero": 0, "huge": U64_MAX}
            yield from ((how, new) for how, new in near.items() if new != value)
        case bytes():
            yield from _other_bytes(value)
        case tuple():
            yield from _other_lists(value)
        case _:
            raise AssertionError(f"no other value of a {type(value).__name__} is known")


def _other_bytes(value: bytes) -> Iterator[tuple[str, bytes]]:
    if value:
        yield "first bit", bytes((value[0] ^ 1,)) + value[1:]
        yield "last bit", value[:-1] + bytes((value[-1] ^ 1,))
        yield "zeros", bytes(len(value))
        yield "cut", value[:-1]
    yield "longer", value + b"\0"
    if len(value) % POINT_SIZE == 0 and value:
        n_points = len(value) // POINT_SIZE
        yield "points", b"".join(stranger(50 + n) for n in range(n_points))
        yield "no points", NOT_A_POINT * n_points


def _other_lists(value: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if value:
        yield "fewer", value[:-1]
        yield "one twice", (*value, value[-1])
        yield "none", ()
    else:
        yield "a number", (1,)
        yield "bytes", (bytes(64),)
    if len(set(value)) > 1:
        yield "turned", (*value[1:], value[0])


def changes() -> Iterator[Changed]:
    """Yield the scene's proposal with each place changed, if it can be said on the wire."""
    found = [*places(scene().propose, "", _the_whole)]
    for item in fields(FactoryTerms):
        value = _plain(getattr(TERMS, item.name))
        found += places(value, f"terms.{item.name}", partial(_put_term, item.name))
    for place, value, put in found:
        for how, new in others(value):
            propose = _said(put, new)
            if propose is not None and propose != scene().propose:
                yield Changed(place=place, how=how, propose=propose)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bytes | tuple) else int(value)


def _said(put: Put, new: Any) -> m.Propose | None:
    """Return what the client reads; None if it is no message, so that the connection ends."""
    try:
        decoded = m.decode_message(m.encode_message(put(new)))
    except (MalformedBytes, OverflowError, TypeError, ValueError):
        return None
    assert isinstance(decoded, m.Propose)
    return decoded


# What becomes of each


@cache
def verdicts() -> dict[tuple[str, str], str]:
    """Return why each was refused; empty if it was signed."""
    return {(one.place, one.how): verdict_of(one) for one in changes()}


def verdict_of(changed: Changed) -> str:
    """Return why a proposal was refused; empty if it was signed."""
    victim = Victim()
    victim.hear(changed.propose)
    where = f"{changed.place}, {changed.how}"
    if changed.propose.attempt_id not in victim.driver.state.attempts:
        assert victim.wished == [], where
        return DROPPED
    reason = victim.attempt.aborted
    if reason is None:
        (asked,) = victim.signing
        check_signed(changed, asked)
        return ""
    assert victim.signing == [], f"{where}: refused and signed"
    return reason


def check_signed(changed: Changed, asked: fx.PartialSign) -> None:
    """Whatever is taken as given, the client signs its own tree; only a neighbour is free in it."""
    if changed.place == NEIGHBOUR:
        return
    honest = {node.name: node.task for node in scene().attempt.tree.nodes_below_root}
    for request in asked.requests[:-2]:
        assert request.task == honest[request.task.name], f"{changed.place}, {changed.how}"


# What a client takes as given, by place, and why it may. Terms are those of which its own policy
# allows the other value, and of which no transaction of the tree can tell.
DROPPED: Final = "dropped"
NEIGHBOUR: Final = "candidates[0].vertices[1].state_tx.outputs[0].script_pubkey"
GIVEN: Final[dict[str, str]] = {
    re.escape(NEIGHBOUR): "its neighbour's channel, which that one checks",
    r"candidates\[0\]\.channel\.\w+_basepoint": "keys that the LSP chooses for itself",
    r"candidates\[0\]\.channel\.\w+_per_commitment_point": "the same, and revoked by the LSP alone",
    r"candidates\[0\]\.(commitment_)?nonces": "each session has an unused nonce, in whatever order",
    r"candidates\[0\]\.(commitment_)?nonces\[\d\]\.index": "the same",
    r"candidates\[0\]\.(commitment_)?nonces\[\d\]\.aggnonce": "a wrong sum makes a bad signature, "
    "and for that nothing is released",
    r"terms\.(build_height|active_blocks|dying_blocks|ready_min_blocks|patience_blocks)": "periods",
    r"terms\.(max_exit_delay_blocks|max_cltv_blocks|min_depth)": "limits",
    r"terms\.(to_self_delay_lsp|to_self_delay_client|dust_limit_sat)": "of the channel alone",
    r"terms\.(max_accepted_htlcs|max_in_flight_msat)": "of the channel alone",
    r"terms\.inner_arities(\[0\])?": "more places than these clients are for",
    r"terms\.tree_feerate_sat_per_kw": "one that is rounded to the same fees",
}


def test_whatever_is_changed_is_refused_by_a_name_with_both_values() -> None:
    """A refusal says what was expected and what was received, and the two differ."""
    refused = {key: why for key, why in verdicts().items() if why not in {"", DROPPED}}
    assert len(refused) > 400
    for (place, how), reason in refused.items():
        where = f"{place}, {how}: {reason}"
        assert reason.startswith("refused: "), where
        expected, _, received = reason.partition(": expected ")[2].rpartition(", received ")
        assert expected, where
        assert expected != received, where


def test_a_client_takes_as_given_what_the_list_says_and_nothing_else() -> None:
    taken = {place for (place, _), why in verdicts().items() if not why}
    unlisted = {place for place in taken if not any(re.fullmatch(one, place) for one in GIVEN)}
    assert not unlisted, "nobody checks it: refuse it by its name, or say why it may be free"
    for one in GIVEN:
        assert any(re.fullmatch(one, place) for place in taken), f"{one} is not free any more"


def test_what_answers_another_join_is_dropped_and_nothing_else_is() -> None:
    dropped = {place for (place, _), why in verdicts().items() if why == DROPPED}
    assert dropped == {"factory_pubkey"}


def test_the_walk_reaches_every_field_of_the_message_and_of_the_terms() -> None:
    tried = {place for place, _ in verdicts()}
    for cls, prefix in (
        (m.Propose, ""),
        (FactoryTerms, "terms."),
        (m.CandidateProposal, "candidates[0]."),
        (m.BranchVertex, "candidates[0].vertices[1]."),
        (m.NonceUse, "candidates[0].nonces[0]."),
        (m.NonceUse, "candidates[0].commitment_nonces[1]."),
        (m.ChannelOffer, "candidates[0].channel."),
        (Tx, "candidates[0].funding_tx."),
        (Tx, "candidates[0].vertices[1].state_tx."),
        (TxIn, "candidates[0].vertices[0].kickoff_tx.inputs[0]."),
        (TxOut, "candidates[0].vertices[1].kickoff_tx.outputs[0]."),
    ):
        for item in fields(cls):
            where = f"{prefix}{item.name}"
            assert any(place.startswith(where) for place in tried), where


@dataclass(frozen=True, kw_only=True)
class LaterOffer(m.ChannelOffer):
    """A channel offer of a later version, with a field that nobody has thought of yet."""

    later: bytes = b"new"


def test_a_field_that_is_added_is_walked_without_being_named() -> None:
    offer = scene().propose.candidates[0].channel
    later = LaterOffer(**{item.name: getattr(offer, item.name) for item in fields(offer)})
    found = {name: value for name, value, _ in places(later, "channel", _the_whole)}
    assert found["channel.later"] == b"new"
    assert [how for how, _ in others(b"new")][:2] == ["first bit", "last bit"]


@pytest.mark.parametrize(
    ("check", "place"),
    [
        ("check_tree_tx", "candidates[0].vertices[0].state_tx.outputs[0].script_pubkey"),
        ("check_nonces_of_ladder", "candidates[0].nonces[1].index"),
        ("check_channel_offer", "candidates[0].channel.htlc_basepoint"),
        ("check_signers", "factory_pubkeys[2]"),
    ],
)
def test_a_check_that_is_missing_is_noticed(
    check: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one check less, something that is refused by name is not, or not by that name."""
    before = {key: why for key, why in verdicts().items() if key[0] == place}
    monkeypatch.setattr(f"cromford.protocol.opening.verification.{check}", lambda *_, **__: None)
    after = {}
    for changed in changes():
        if changed.place == place:
            try:
                after[changed.place, changed.how] = verdict_of(changed)
            except (AssertionError, ValueError) as error:
                after[changed.place, changed.how] = repr(error)
    assert after != before
