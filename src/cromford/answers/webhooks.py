"""Webhooks: where a daemon posts what happens, and how far each is."""

from typing import TypedDict

from cromford.answers.units import Count, UnixTime


class WebhookState(TypedDict):
    """A webhook, without its secret: where it posts which events, and how that goes.

    `only` names the events, none for all. `cursor` is that of the last event it is done with. Where
    the next one fails, `failures` says how often in a row, `last_error` why, and `next_try_at` when
    it is tried again. After `missed_after` events were gone before they were taken.
    """

    name: str
    url: str
    only: list[str]
    made_at: UnixTime
    cursor: str
    delivered_at: UnixTime | None
    failures: Count
    next_try_at: UnixTime | None
    last_error: str | None
    missed_after: str | None


class NewWebhook(WebhookState):
    """A webhook that was just made, with the secret of its signatures, which is shown this once.

    `warnings` says that its host is not known now, where it is not.
    """

    secret: str
    warnings: list[str]


class WebhookStates(TypedDict):
    """The webhooks there are, in the order in which they were made, without their secrets."""

    webhooks: list[WebhookState]
