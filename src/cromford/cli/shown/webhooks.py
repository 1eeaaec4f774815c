"""Webhooks as people read them."""

from rich.console import Console

from cromford.answers.webhooks import NewWebhook, WebhookState, WebhookStates
from cromford.cli.shown.output import cell, local_time, table
from cromford.told import counted


def made(console: Console, webhook: NewWebhook) -> None:
    """Print the secret of a new webhook: the one time that it is shown."""
    console.print(cell(webhook["secret"]), soft_wrap=True)
    console.print("the secret of its signatures; it is shown this once", soft_wrap=True)
    for warning in webhook["warnings"]:
        console.print(cell(f"WARNING: {warning}"), soft_wrap=True)


def listed(console: Console, answer: WebhookStates) -> None:
    """Print which webhooks there are, and how each goes."""
    if not answer["webhooks"]:
        console.print("no webhooks")
        return
    rows = table("name", "url", "events", "last delivered", "state")
    for webhook in answer["webhooks"]:
        rows.add_row(
            cell(webhook["name"]),
            cell(webhook["url"]),
            cell(", ".join(webhook["only"]) or "all"),
            cell(local_time(webhook["delivered_at"])),
            cell(_state(webhook)),
        )
    console.print(rows)


def removed(console: Console, webhook: WebhookState) -> None:
    """Print that nothing more is posted."""
    console.print(cell(f"{webhook['name']} is removed"), soft_wrap=True)


def _state(webhook: WebhookState) -> str:
    told = []
    if webhook["last_error"] is not None:
        told.append(f"{counted(webhook['failures'], 'failure')}: {webhook['last_error']}")
    if webhook["next_try_at"] is not None:
        told.append(f"next try {local_time(webhook['next_try_at'])}")
    if webhook["missed_after"] is not None:
        told.append(f"missed events after {webhook['missed_after']}")
    return "; ".join(told) or "ok"
