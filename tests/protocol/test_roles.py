"""A role that meets the other role's records or events stops: it would be a bug of ours."""

from typing import Any

import pytest
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump
from tests.simulation.sim_node import CLIENT_ROLE, LSP_ROLE

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.driver import Role
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal.lsp_state import new_lsp
from cromford.protocol.journal.mail import AnyMail, FactoryDied, Lost, Watched
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.streams import CHAIN, CLIENT, HOUSE, factory_stream

NO_TX = Tx(version=2, inputs=(), outputs=())
ATTEMPT_ID = b"\x01" * 32
FACTORY = factory_stream(0)
# None of them is looked at, so no state of a client is needed to refuse them.
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


CLIENTS_RECORDS = [
    lr.WishMade(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT),
    op.WaitGivenUp(attempt_id=ATTEMPT_ID),
]
LSPS_RECORDS = [
    (HOUSE, lr.ClientLeft(node_id=b"\x02" * 33)),
    (FACTORY, op.Acknowledged(attempt_id=ATTEMPT_ID, client=1)),
    (CHAIN, sc.ScanUndone(height=7)),
    (FACTORY, MailTaken(sender=CHAIN, number=1, mail=Lost(height=7))),
]


def new_lsp_state() -> Any:
    """Return the state that an LSP begins with."""
    lsp = Pump(0).lsp
    return new_lsp(lsp.state.config)


@pytest.mark.parametrize(("stream", "record"), LSPS_RECORDS)
def test_a_client_does_not_go_on_with_an_lsps_journal(stream: str, record: r.AnyRecord) -> None:
    """Two daemons would share a file, and each would sign by half of what was signed."""
    for where in (stream, CLIENT):
        with pytest.raises(AssertionError, match=f"{type(record).__name__} in a client's journal"):
            CLIENT_ROLE.apply(NO_STATE, where, record, 0)


@pytest.mark.parametrize("stream", [HOUSE, CHAIN, FACTORY, CLIENT])
@pytest.mark.parametrize("record", CLIENTS_RECORDS)
def test_an_lsp_does_not_go_on_with_a_clients_journal(stream: str, record: r.AnyRecord) -> None:
    refused = "client is no stream of an LSP|" + f"{type(record).__name__} is no record of "
    with pytest.raises(AssertionError, match=refused):
        LSP_ROLE.apply(new_lsp_state(), stream, record, 0)


@pytest.mark.parametrize("stream", [HOUSE, CHAIN, FACTORY])
@pytest.mark.parametrize(("owner", "record"), LSPS_RECORDS)
def test_a_stream_does_not_take_another_streams_records(
    stream: str, owner: str, record: r.AnyRecord
) -> None:
    """Of mail that every stream takes, none takes what is not for it."""
    if stream == owner or isinstance(record, MailTaken):
        return
    with pytest.raises(AssertionError, match=f"{type(record).__name__} is no record of "):
        LSP_ROLE.apply(new_lsp_state(), stream, record, 0)


@pytest.mark.parametrize(
    ("stream", "content"),
    [
        (HOUSE, Watched(height=7)),
        (CHAIN, Lost(height=7)),
        (FACTORY, FactoryDied(attempt_id=ATTEMPT_ID)),
    ],
)
def test_a_stream_does_not_take_mail_that_is_not_for_it(stream: str, content: AnyMail) -> None:
    taken = MailTaken(sender=CHAIN, number=1, mail=content)
    with pytest.raises(AssertionError, match=f"{type(content).__name__} is no mail for "):
        LSP_ROLE.apply(new_lsp_state(), stream, taken, 0)


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
        role.decide(new_lsp_state() if role is LSP_ROLE else NO_STATE, event, FRESH)
