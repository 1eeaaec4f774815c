"""The LSP's side of an advance: everybody agrees, everybody signs, then each channel is rebased."""

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def begin(turn: Turn[Factory], sale: Sale) -> None:
    """Ask the clients of a leaf to agree to a sale.

    Raises:
        NotSold: If it cannot begin now.
    """
    raise NotSold("not_sellable", f"{turn.stream}: client {sale.buyer} cannot buy yet")


def take(turn: Turn[Factory], event: ev.AdvanceEvent) -> None:
    """Take an answer of our signer."""


def take_message(turn: Turn[Factory], node_id: bytes, message: m.AdvanceMessage) -> None:
    """Take what a client says about an advance of its leaf."""


def on_partial_signed(turn: Turn[Factory], event: ev.PartialSigned) -> None:
    """Take our own partial signatures."""


def on_signing_failed(turn: Turn[Factory], event: ev.SigningFailed) -> None:
    """Begin again with fresh nonces: what is signed stays signed."""


def on_start(turn: Turn[Factory]) -> None:
    """Drop what a restart voids; what is committed goes on once its clients are back."""


def on_disconnection(turn: Turn[Factory], node_id: bytes) -> None:
    """End what needs the nonces of a client's connection; before the record that it is over."""


def on_deadline(turn: Turn[Factory], deadline: fx.AdvanceDeadline) -> None:
    """End, or begin again, what was not finished in time, naming the holdouts."""


def on_block(turn: Turn[Factory]) -> None:
    """Do what a new height makes due, or possible."""


def go_on(turn: Turn[Factory]) -> None:
    """Do all that can be done now: ask whom is to be asked, rebase what can be rebased."""
