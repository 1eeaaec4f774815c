"""Bearer tokens as people read them."""

import time

from rich.console import Console

from cromford.answers.tokens import BearerToken, BearerTokens, NewBearerToken
from cromford.cli.shown.output import cell, table


def made(console: Console, token: NewBearerToken) -> None:
    """Print a new token: the one time that it is shown."""
    console.print(cell(token["token"]), soft_wrap=True)
    console.print(f"for {', '.join(token['scopes'])}; it is shown this once", soft_wrap=True)
    for warning in token["warnings"]:
        console.print(cell(f"WARNING: {warning}"), soft_wrap=True)


def listed(console: Console, answer: BearerTokens) -> None:
    """Print which tokens there are."""
    if not answer["tokens"]:
        console.print("no tokens")
        return
    rows = table("name", "scopes", "made")
    for token in answer["tokens"]:
        made_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(token["made_at"]))
        rows.add_row(cell(token["name"]), cell(", ".join(token["scopes"])), cell(made_at))
    console.print(rows)


def revoked(console: Console, token: BearerToken) -> None:
    """Print that a token is none any more."""
    console.print(cell(f"{token['name']} is revoked"), soft_wrap=True)
