"""A client's side of an advance: check everything, be quiet, agree, sign, hold what protects us."""

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def take(turn: Turn[ClientState], event: ev.AdvanceEvent) -> None:
    """Take an answer of our signer."""


def take_message(turn: Turn[ClientState], message: m.AdvanceMessage) -> None:
    """Take what the LSP says about an advance; what only a client says ends the connection."""


def on_partial_signed(turn: Turn[ClientState], event: ev.PartialSigned) -> None:
    """Send our partial signatures. The record that allows it was there before they were made."""


def on_signing_failed(turn: Turn[ClientState], event: ev.SigningFailed) -> None:
    """End the connection: the LSP asks again in the next one, with fresh nonces."""


def void_connection(turn: Turn[ClientState]) -> None:
    """Let go what needs the nonces of this connection; before the record that it is over."""


def on_deadline(turn: Turn[ClientState], deadline: fx.AdvanceDeadline) -> None:
    """Wait no longer for the LSP's next word."""


def on_block(turn: Turn[ClientState]) -> None:
    """Do what a new height makes due, or possible."""


def go_on(turn: Turn[ClientState]) -> None:
    """Do all that can be done now: agree once the channel is quiet."""
