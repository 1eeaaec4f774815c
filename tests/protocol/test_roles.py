"""A role that meets the other role's records or events stops: it would be a bug of ours."""

from typing import Any

import pytest
from tests.protocol.pump import LEAST_SAT, WANTED_SAT
from tests.simulation.sim_node import CLIENT_ROLE, LSP_ROLE

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.driver import Role
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r

NO_TX = Tx(version=2, inputs=(), outputs=())
ATTEMPT_ID = b"\x01" * 32
# None of them is looked at, so no state is needed to refuse them.
NO_STATE: Any = None
CLIENTS_EVENTS = [
    ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT),
    ev.LeaveRequested(),
    ev.CoinsLookedUp(asked=fx.LookUpCoins(attempt_id=ATTEMPT_ID, outpoints=()), coins=()),
]
LSPS_EVENTS = [
    ev.BuildRequested(min_clients=1, max_clients=1),
    ev.FundingSigned(
        asked=fx.SignFunding(attempt_id=ATTEMPT_ID, tx=NO_TX, prevouts=(), paths=()), tx=NO_TX
    ),
]


@pytest.mark.parametrize(
    ("role", "record"),
    [
        (CLIENT_ROLE, lr.ClientLeft(node_id=b"\x02" * 33)),
        (CLIENT_ROLE, op.Acknowledged(attempt_id=ATTEMPT_ID, client=1)),
        (LSP_ROLE, lr.WishMade(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)),
        (LSP_ROLE, op.WaitGivenUp(attempt_id=ATTEMPT_ID)),
    ],
)
def test_a_role_does_not_go_on_with_the_other_roles_journal(
    role: Role[Any], record: r.AnyRecord
) -> None:
    """Two daemons would share a file, and each would sign by half of what was signed."""
    with pytest.raises(AssertionError, match=f"{type(record).__name__} in a"):
        role.apply(NO_STATE, record)


@pytest.mark.parametrize(
    ("role", "whose", "event"),
    [
        *((CLIENT_ROLE, "an LSP's", event) for event in LSPS_EVENTS),
        *((LSP_ROLE, "a client's", event) for event in CLIENTS_EVENTS),
    ],
)
def test_a_role_does_not_guess_what_the_other_roles_event_means(
    role: Role[Any], whose: str, event: ev.Event
) -> None:
    with pytest.raises(AssertionError, match=f"{type(event).__name__} is {whose} event"):
        role.decide(NO_STATE, event, FRESH)
