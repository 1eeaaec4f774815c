"""`cromford lsp close`: everybody who has money in an output is paid out of it, at once."""

from decimal import Decimal
from typing import Any, Final

import click

from cromford.cli.asking import confirm
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import closes
from cromford.cli.shown.output import sat, show
from cromford.cli.wallet import digits, feerates_option
from cromford.wire.messages import N_CLOSE_OPTIONS_MAX

ROLE: Final = "lsp"


@click.command(name="close")
@click.argument("factory_id", metavar="ID")
@click.option(
    "--vertex",
    metavar="NAME",
    help="Close what is below a vertex that is on chain: its name, or a transaction's of it, as "
    "`factory show` has them.  [default: the whole factory]",
)
@click.option(
    "--client",
    type=click.IntRange(min=1),
    help="Close this client's channel, whose output is on chain.",
)
@feerates_option
@click.option("--wait", is_flag=True, help="Wait until it is finished, or came to nothing.")
@click.option("--dry-run", is_flag=True, help="Show who would be paid what; ask nobody.")
@click.option("--yes", is_flag=True, help="Do not ask: what is closed stays closed.")
@invocation_options
@click.pass_obj
def close_command(
    invocation: Invocation,
    /,
    *,
    factory_id: str,
    vertex: str | None,
    client: int | None,
    feerates_sat_per_vb: tuple[Decimal, ...],
    wait: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Close a factory, or a part of it, together with its clients.

    Everybody in it is asked to agree to what it is owed, and to sign one transaction for each
    feerate; each pays out all balances, and spends one output. All of them have to be connected,
    without a payment under way. Whoever refuses, even at the last message, freezes nobody: the
    close comes to nothing, and the channels go on.

    The LSP pays the fees, and has back what opening locked. Once everybody signed, the cheaper
    transaction is published, and the dearer one where that is below today's fees.

    Shows who is paid what, and asks first.
    """
    if vertex is not None and client is not None:
        raise click.UsageError("--vertex and --client: expected one of them, received both")
    if len(feerates_sat_per_vb) > N_CLOSE_OPTIONS_MAX:
        n_given = len(feerates_sat_per_vb)
        raise click.UsageError(
            f"--feerate: expected at most {N_CLOSE_OPTIONS_MAX} of them, received {n_given}"
        )
    if dry_run and wait:
        raise click.UsageError("--wait: with --dry-run there is nothing to wait for")
    asked: dict[str, Any] = {
        "factory_id": factory_id,
        "vertex": vertex,
        "client": client,
        "feerates_sat_per_vb": [digits(feerate) for feerate in feerates_sat_per_vb],
    }
    if not dry_run and not yes:
        planned = invocation.call(ROLE, "close", **asked, dry_run=True)
        # What was shown is what is signed, whatever the node says meanwhile.
        asked["feerates_sat_per_vb"] = [
            str(option["feerate_sat_per_vb"]) for option in planned["options"]
        ]
        told = _told(planned)
        confirm(
            invocation,
            f"{told} Close it?",
            yes=False,
            why=f"what is closed stays closed: {told}",
            remediation="Look at it with --dry-run, then add --yes.",
        )
    answer = invocation.call(ROLE, "close", **asked, dry_run=dry_run, wait=wait)
    show(invocation, answer, closes.close)
    if wait and answer["finished"] is None:
        raise CommandFailed(
            "close_under_way",
            "the close is neither finished nor over",
            remediation="`cromford lsp factory show` tells who holds out.",
        )


def _told(planned: dict[str, Any]) -> str:
    """Return who is paid what by a close, and what it costs, in a sentence or two."""
    paid = ", ".join(
        f"client {client['client']} {sat(client['paid_sat'])}" for client in planned["clients"]
    )
    costs = " or ".join(
        f"{sat(option['fee_sat'])} at {option['feerate_sat_per_vb']:g} sat/vB, which leaves the "
        f"LSP {sat(option['lsp_sat'])}"
        for option in planned["options"]
    )
    return f"{planned['name']}, {sat(planned['amount_sat'])}, pays {paid}. The fee is {costs}."
