"""`lsp build --wait`: what becomes of a build, by the events that follow it."""

import time
from typing import Any, Final

import click

from cromford.bitcoin.tx import Tx
from cromford.cli.events import FOLLOW_WAIT_SECONDS, events_after
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation
from cromford.cli.shown.output import one_line

ROLE: Final = "lsp"
# Each try ends by its own deadlines, and there are no more of them than clients to leave out.
BUILD_WAIT_SECONDS_MAX: Final = 3600.0
PROPOSED: Final = "attempt_proposed"
ABORTED: Final = "attempt_aborted"
FUNDED: Final = "funding_signed"
DROPPED: Final = "build_dropped"
AWAITED: Final = "rebuild_awaited"
GOES_ON: Final = ("build_started", AWAITED)
TOLD: Final = (PROPOSED, ABORTED, FUNDED, DROPPED, *GOES_ON)

wait_option = click.option(
    "--wait", is_flag=True, help="Wait for the factory's funding, or for the end of the build."
)


def await_factory(invocation: Invocation, cursor: str) -> str:
    """Return the id of the factory that a build made, once its funding is signed and published.

    What happens meanwhile is told on stderr.

    Args:
        invocation: The run of the command.
        cursor: The place in the events where the build began.

    Raises:
        CommandFailed: If nothing came of it, or nothing after `BUILD_WAIT_SECONDS_MAX`.
        ApiFailure: If the daemon is gone.
    """
    give_up = time.monotonic() + BUILD_WAIT_SECONDS_MAX
    while time.monotonic() < give_up:
        found, cursor = events_after(
            invocation, ROLE, cursor, wait_seconds=FOLLOW_WAIT_SECONDS, only=list(TOLD)
        )
        dropped: str | None = None
        for event in found:
            if event["event"] == FUNDED:
                return str(event["attempt_id"])
            if event["event"] == DROPPED:
                dropped = event["reason"]
            elif event["event"] in GOES_ON:
                dropped = None  # Where clients are gone before the proposal, others go on.
            _tell(invocation, event)
        if dropped is not None:
            raise CommandFailed(
                "build_dropped",
                f"nothing was built: {dropped}",
                retryable=True,
                remediation="`cromford lsp lobby` shows who waits; build again with them.",
            )
    raise CommandFailed(
        "build_pending",
        f"no factory after {BUILD_WAIT_SECONDS_MAX:g} s, and the build goes on",
        retryable=True,
        remediation="`cromford lsp factories` shows how far it is.",
    )


def built_before(answer: dict[str, Any]) -> str | None:
    """Return the id of the factory that was built before by an external id; None if none was."""
    attempt_id = str(answer["terms"]["attempt_id"])
    return attempt_id if attempt_id.strip("0") else None


def built(invocation: Invocation, factory_id: str) -> dict[str, Any]:
    """Return what was built, in the words of what was planned: clients may have left meanwhile.

    Raises:
        ApiFailure: If the daemon is gone.
    """
    shown = invocation.call(ROLE, "factory_show", factory_id=factory_id)
    fees = [line["amount_sat"] for line in shown["ledger"] if line["item"] == "funding_fee"]
    funding = shown["funding"]
    outputs = Tx.parse(bytes.fromhex(funding["tx_hex"])).outputs
    return {
        "factory_id": factory_id,
        "terms": shown["terms"],
        "placed": shown["placed"],
        "funding_amount_sat": funding["amount_sat"],
        "funding_fee_sat": sum(fees),
        "change_sat": sum(out.amount_sat for out in outputs) - funding["amount_sat"],
    }


def _tell(invocation: Invocation, event: dict[str, Any]) -> None:
    """Say on stderr what happens, to a person."""
    if invocation.is_json:
        return
    if event["event"] == PROPOSED:
        told = f"factory {event['attempt_id']} is proposed, and is being signed"
    elif event["event"] == ABORTED:
        told = f"factory {event['attempt_id']} is given up: {event['reason']}"
    elif event["event"] == AWAITED:
        told = "tried again with those who stay"
    else:
        return
    click.echo(one_line(told), err=True)
