"""What must be true of every refusal, whatever was wrong, and how the cases are told."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from tests.protocol.forge import Change, Victim, scene, with_funding, with_input, with_tx
from tests.protocol.pump import LEAST_SAT, WANTED_SAT

from cromford import told
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.journal import opening_records as op
from cromford.wire import messages as m


def check_refused(
    propose: m.Propose,
    field: str,
    *,
    expected: object = None,
    received: object = None,
    victim: Victim | None = None,
) -> None:
    """Let the victim hear a proposal, and check that it refuses it by name and lives on.

    `expected` and `received` are compared as they are shown; None stands for anything.
    """
    victim = victim or Victim()
    victim.hear(propose)

    reason = victim.attempt.aborted
    assert reason is not None, "it was accepted"
    assert reason.startswith(f"refused: {field}: expected "), reason
    shown_expected, _, shown_received = reason.partition(": expected ")[2].partition(", received ")
    assert shown_expected != shown_received, "a refusal shows what differs"
    if expected is not None:
        assert shown_expected == told.shown(field, expected)
    if received is not None:
        assert shown_received == told.shown(field, received)

    assert victim.signing == [], "the signer was asked"
    assert not any(isinstance(record, op.SigningIntended) for record in victim.records)
    assert victim.sent == [m.Abort(attempt_id=propose.attempt_id, reason=reason)]
    assert victim.driver.state.wish is None, "the operator decides whether to try again"

    wish = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
    victim.handle(wish)
    assert isinstance(victim.sent[-1], m.Join), "it can join again, with fresh keys"
    assert victim.sent[-1].factory_pool.pubkey != victim.attempt.join.factory_pool.pubkey


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claim, the one thing that is changed, and what the client calls it."""

    claim: str
    change: Change
    field: str
    expected: object = None
    received: object = None


def parametrized(cases: list[Case]) -> pytest.MarkDecorator:
    assert len({case.claim for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.claim.replace(" ", "_"))


def check(case: Case) -> None:
    propose = case.change(scene().propose)
    assert propose != scene().propose, "something is changed"
    check_refused(propose, case.field, expected=case.expected, received=case.received)


def on_tx(name: str, change: Callable[[Tx], Tx]) -> Change:
    return partial(with_tx, name=name, change=change)


def on_funding(change: Callable[[Tx], Tx]) -> Change:
    return partial(with_funding, change=change)


def with_unknown_parent(tx: Tx) -> Tx:
    return with_input(tx, outpoint=OutPoint(txid=Txid(b"\x05" * 32), vout=0))
