"""Fundings with a fee ladder: feerates on the command line, waiting for keys, replacing."""

import time
from decimal import Decimal
from typing import Any, Final

import click

from cromford.cli.asking import confirm_fee
from cromford.cli.configuration.kinds import (
    FEERATE_MAX_SAT_PER_VB,
    FEERATE_MIN_SAT_PER_VB,
    Number,
)
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.shown import ladder
from cromford.cli.shown.output import sat, show
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol.lobby.ladder import JOIN_AGAIN
from cromford.protocol.policy import CANDIDATES_MAX

ROLE: Final = "lsp"
TRIES: Final = 40  # How often a build is asked for again while its clients join with more keys,
PAUSE_SECONDS: Final = 0.5  # and how long each time.


class Feerates(click.ParamType[list[str]]):
    """Feerates in sat/vB, with commas between them."""

    name = "sat/vB,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """Return them as a daemon is told them."""
        kind = Number(FEERATE_MIN_SAT_PER_VB, Decimal(FEERATE_MAX_SAT_PER_VB), "sat/vB")
        try:
            return [f"{kind.of_text(one.strip()):f}" for one in str(value).split(",")]
        except ValueError as error:
            self.fail(str(error), param, ctx)


feerates_option = click.option(
    "--funding-feerates",
    "funding_feerates",
    type=Feerates(),
    metavar="SAT/VB,...",
    help=f"A fee ladder: sign up to {CANDIDATES_MAX} candidates of the funding transaction, each "
    "at least 1.25 times and 1 sat/vB above the one before. `factory replace` publishes a higher "
    "one without a client.  [default: one, at the daemon's feerate]",
)


def build_patiently(invocation: Invocation, **asked: object) -> Any:  # noqa: ANN401 - any JSON value
    """Ask for a build, and again for a while where its clients have to join with more keys.

    Raises:
        ApiFailure: If it is refused, or they did not join in time.
    """
    for _ in range(TRIES):
        try:
            return invocation.call(ROLE, "build", **asked)
        except ApiFailure as failure:
            if failure.code != JOIN_AGAIN:
                raise
        time.sleep(PAUSE_SECONDS)
    return invocation.call(ROLE, "build", **asked)


@click.command(name="replace")
@click.argument("factory_id", metavar="ID")
@click.option(
    "--candidate",
    type=click.IntRange(1, CANDIDATES_MAX - 1),
    help="Its place in the ladder, the first being 0: asked for again, it is published once.  "
    "[default: the lowest that may, which is asked about]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be published; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask: a fee that is paid stays paid.")
@invocation_options
@click.pass_obj
def replace_command(
    invocation: Invocation,
    /,
    *,
    factory_id: str,
    candidate: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Publish a higher candidate of a factory's funding in the place of the one that waits.

    It was signed when the factory was built, with everything below it: no client is asked. It has
    to pay more than the candidate that is published, a child of that one, and its own relay. A
    child that `bump` made ends with the candidate that it pays for. Should a lower candidate
    confirm all the same, the factory lives in that one.

    Shows what it would pay, and asks first; with --yes, --candidate says which. `bump` comes
    first: it costs no ceremony.
    """
    if yes and candidate is None and not dry_run:
        raise click.UsageError(
            "--yes: expected --candidate beside it, as --dry-run shows it: the lowest that may is "
            "another one each time it is asked for"
        )
    asked = {"factory_id": factory_id, "candidate": candidate}
    if not dry_run and not yes:
        planned = invocation.call(ROLE, "factory_replace", **asked, dry_run=True)
        asked["candidate"] = planned["candidate"]
        told = (
            f"candidate {planned['candidate']} pays {sat(planned['fee_sat'])}, "
            f"{planned['feerate_sat_per_vb']} sat/vB, in the place of candidate "
            f"{planned['replaces']}"
        )
        if not planned["replaced"]:  # Else it was before, and pays nothing a second time.
            confirm_fee(invocation, told, add=f"--candidate {planned['candidate']} --yes")
    answer = invocation.call(ROLE, "factory_replace", **asked, dry_run=dry_run)
    show(invocation, answer, ladder.replaced_factory)
