"""The API for webhooks: who is told what happens without asking, and how that goes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from cromford.answers.webhooks import NewWebhook, WebhookState, WebhookStates
from cromford.daemon.api.failures import EXIT_NOT_FOUND, ApiFailure, InvalidParam
from cromford.daemon.api.handlers import (
    Handler,
    Params,
    check_name,
    read_params,
    without_params,
)
from cromford.daemon.event_filter import KNOWN_EVENTS, BadFilter, EventFilter
from cromford.daemon.webhooks import delivering, kept, posting

WEBHOOKS_MAX: Final = 16  # Each has a thread while it posts.
LookUp = Callable[[kept.Target], Awaitable[str | None]]


class _WebhookParams(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    url: str
    only: list[str] = []


class _WebhookName(msgspec.Struct, forbid_unknown_fields=True):
    name: str


PARAMS: Final[Params] = {"webhook_add": _WebhookParams, "webhook_remove": _WebhookName}


def webhook_methods(
    webhooks: delivering.Webhooks,
    *,
    known: frozenset[str] = KNOWN_EVENTS,
    look_up: LookUp = posting.look_up,
) -> dict[str, Handler]:
    """Return the operations, by name.

    Args:
        webhooks: Those there are.
        known: The names of the events that may happen here.
        look_up: Says why a host is not known now; None if it is.
    """
    changing = asyncio.Lock()  # One name is not given twice, nor one webhook removed twice.

    async def add(params: dict[str, Any]) -> NewWebhook:
        wanted, target = _checked(read_params(params, _WebhookParams), known)
        # Whoever is away now may be here with the first event, so this is no refusal; a name that
        # is misspelt would be noticed with the first event that nobody hears of.
        unknown = await look_up(target)
        warnings = [] if unknown is None else [_not_known(target, unknown)]
        async with changing:
            _check_place(webhooks, wanted.name)
            made = kept.Webhook(
                name=wanted.name,
                url=wanted.url,
                only=tuple(sorted(set(wanted.only))),
                secret=kept.drawn_secret(),
                made_at=int(time.time()),
                cursor=webhooks.newest_cursor,
            )
            try:
                added = await webhooks.add(made)
            except OSError as error:
                raise _not_written(error) from error
        return {**_shown(added), "secret": made.secret, "warnings": warnings}

    async def listed() -> WebhookStates:
        return {"webhooks": [_shown(delivery) for delivery in webhooks.deliveries]}

    async def remove(params: dict[str, Any]) -> WebhookState:
        name = read_params(params, _WebhookName).name
        async with changing:
            delivery = webhooks.named(name)
            if delivery is None:
                raise ApiFailure(
                    "webhook_not_found",
                    f"there is no webhook {name!r}",
                    remediation="`webhook list` shows them.",
                    exit_code=EXIT_NOT_FOUND,
                )
            try:
                await webhooks.remove(delivery)
            except OSError as error:
                raise _not_written(error) from error
        return _shown(delivery)

    return {
        "webhook_add": add,
        "webhooks": without_params(listed),
        "webhook_remove": remove,
    }


def _checked(wanted: _WebhookParams, known: frozenset[str]) -> tuple[_WebhookParams, kept.Target]:
    check_name(wanted.name)
    try:
        target = kept.new_target_of(wanted.url)
    except kept.BadUrl as error:
        raise InvalidParam("url", str(error)) from error
    try:
        EventFilter(names=frozenset(wanted.only), known=known)
    except BadFilter as error:
        raise InvalidParam(error.field, str(error)) from error
    return wanted, target


def _not_known(target: kept.Target, reason: str) -> str:
    return (
        f"{target.host} is not known now: {reason}. Events are kept, and tried again; if the name "
        "is wrong, remove the webhook and add another"
    )


def _check_place(webhooks: delivering.Webhooks, name: str) -> None:
    if webhooks.named(name) is not None:
        raise ApiFailure(
            "webhook_exists",
            f"there is a webhook {name!r} already",
            remediation="Name another, or remove that one first.",
        )
    if len(webhooks.deliveries) >= WEBHOOKS_MAX:
        raise ApiFailure(
            "too_many_webhooks",
            f"there are {WEBHOOKS_MAX} webhooks, the most there may be",
            remediation="Remove those that nobody needs: `webhook list` shows them.",
        )


def _not_written(error: OSError) -> ApiFailure:
    return ApiFailure("webhooks_not_written", f"{kept.FILE_NAME}: {error.strerror}", retryable=True)


def _shown(delivery: delivering.WebhookWork) -> WebhookState:
    webhook = delivery.webhook
    return {
        "name": webhook.name,
        "url": webhook.url,
        "only": list(webhook.only),
        "made_at": webhook.made_at,
        "cursor": webhook.cursor,
        "delivered_at": webhook.delivered_at,
        "failures": delivery.n_failures,
        "next_try_at": delivery.next_try_at,
        "last_error": delivery.last_error or None,
        "missed_after": webhook.missed_after,
    }
