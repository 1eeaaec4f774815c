"""What the local API can be asked: a line an operation, for whoever serves, calls or describes it.

What is read is a GET; what changes something a POST, a PATCH or a DELETE. Which daemon has which of
them: `schemas`, with the parameters of each. This module imports nothing of ours, so that a command
line can name what it asks for at no cost.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

VERSION: Final = "v1"
JSON: Final = "application/json"
SVG: Final = "image/svg+xml"
ROLE_HEADER: Final = "cromford-role"  # Whose daemon a request is meant for.
_PLACE: Final = re.compile(r"\{(\w+)\}")


class Scope(StrEnum):
    """What a token may be used for; each includes those that follow from it."""

    READ = "read"
    RECEIVE = "receive"
    SPEND = "spend"
    OPERATE = "operate"


# A shop that makes invoices has to see whether they are paid; who pays may as well be paid.
INCLUDED: Final = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.RECEIVE: frozenset({Scope.READ, Scope.RECEIVE}),
    Scope.SPEND: frozenset({Scope.READ, Scope.RECEIVE, Scope.SPEND}),
    Scope.OPERATE: frozenset(Scope),
}


class Operation(NamedTuple):
    """One thing that can be asked for.

    Attributes:
        name: What commands and the document (`operationId`) call it.
        verb: The method of HTTP. Parameters of a GET and a DELETE stand in the query, those of a
            POST and a PATCH in a JSON body.
        path: Below the address of the daemon; `{name}` is a parameter, too.
        scope: What a token needs for it; None where no token is enough: only over the unix socket.
        summary: What it does, in a line.
        media_type: What it answers with, where it does not fail: `JSON`, or a text of another type.
    """

    name: str
    verb: str
    path: str
    scope: Scope | None
    summary: str
    media_type: str = JSON

    @property
    def has_body(self) -> bool:
        """Whether its parameters stand in a JSON body."""
        return self.verb in {"POST", "PATCH"}

    @property
    def places(self) -> tuple[str, ...]:
        """The parameters that stand in the path."""
        return tuple(_PLACE.findall(self.path))


def _read(name: str, path: str, summary: str, *, scope: Scope | None = Scope.READ) -> Operation:
    return Operation(name, "GET", f"/{VERSION}/{path}", scope, summary)


def _picture(name: str, path: str, summary: str) -> Operation:
    return Operation(name, "GET", f"/{VERSION}/{path}", Scope.READ, summary, SVG)


def _act(
    name: str, path: str, scope: Scope | None, summary: str, *, verb: str = "POST"
) -> Operation:
    return Operation(name, verb, f"/{VERSION}/{path}", scope, summary)


_OPERATE: Final = Scope.OPERATE
_EVERY: Final = (
    _read("status", "status", "What the daemon is, and how it stands."),
    _act("stop", "stop", _OPERATE, "Stop the daemon."),
)
_BOTH: Final = (
    _read("events", "events", "What happened after a cursor; waits for it where asked to."),
    _act("rescan", "rescan", _OPERATE, "Read blocks again from a height."),
    _read("backup_status", "backup", "How safely the store is kept."),
    _act("backup_create", "backup", _OPERATE, "Write a backup to a file of the daemon's machine."),
    _act("backup_begin_mark", "backup/mark", _OPERATE, "Begin the high-water mark anew."),
    _act("address", "wallet/addresses", Scope.RECEIVE, "Make an address of the wallet."),
    _read("wallet_balance", "wallet", "The wallet in numbers."),
    _read("wallet_coins", "wallet/coins", "The coins of the wallet."),
    _act("wallet_send", "wallet/sends", Scope.SPEND, "Send coins of the wallet to an address."),
    _act("wallet_split", "wallet/splits", Scope.SPEND, "Split coins of the wallet."),
    _act(
        "wallet_bump", "wallet/sends/{txid}/bump", Scope.SPEND,
        "Let a payment without a block pay a higher feerate.",
    ),
    _act(
        "wallet_abandon", "wallet/sends/{txid}/abandon", Scope.SPEND,
        "Give up a payment that the node refuses.",
    ),
    _act("pay", "payments", Scope.SPEND, "Pay an invoice, once, however often it is asked for."),
    _read("payments", "payments", "A page of payments, newest first."),
    _read("payment_show", "payments/{payment_hash}", "What there is of one payment hash."),
    _read("factories", "factories", "Every factory, oldest first."),
    _act("exit_start", "exit", _OPERATE, "Begin to publish what leads to a channel."),
    _act("token_add", "tokens", None, "Make a bearer token, which is shown this once."),
    _read("tokens", "tokens", "The tokens there are, without what they are.", scope=None),
    _act("token_revoke", "tokens/{name}", None, "Let a token be none.", verb="DELETE"),
    _act("webhook_add", "webhooks", None, "Post events to an address as they happen, signed."),
    _read("webhooks", "webhooks", "The webhooks there are, and how each goes.", scope=None),
    _act("webhook_remove", "webhooks/{name}", None, "Post nothing more there.", verb="DELETE"),
)  # fmt: skip
_CLIENT: Final = (
    _act("join", "lobby/join", _OPERATE, "Wait in the LSP's lobby for a factory."),
    _act("leave", "lobby/leave", _OPERATE, "Leave the LSP's lobby."),
    _act("move", "factories/move", _OPERATE, "Move out of a factory that dies."),
    _read("factory", "factory", "One factory: by default the newest that lives."),
    _picture("factory_picture", "factory/picture", "One factory as a picture."),
    _read("verify", "factory/checks", "Check a factory against the chain, from its terms on."),
    _read(
        "exit_export", "exit/package", "All that it takes to leave without this daemon.",
        scope=_OPERATE,
    ),
    _read("exit_plan", "exit/plan", "What leaving would take, step by step."),
    _read("exit_status", "exit", "How far an exit is."),
    _act("exit_pause", "exit/pause", _OPERATE, "Publish no further step of an exit."),
    _act("invoice", "invoices", Scope.RECEIVE, "Make an invoice."),
    _read("invoices", "invoices", "A page of the invoices made here, newest first."),
    _read("invoice_show", "invoices/{payment_hash}", "One invoice that was made here."),
    _picture("qr", "qr", "An invoice or an address as a QR code."),
    _read("balance", "balance", "What each channel holds."),
    _act(
        "liquidity_quote", "liquidity/quotes", Scope.RECEIVE,
        "Ask the LSP what inbound liquidity costs.",
    ),
    _act("liquidity_buy", "liquidity/purchases", Scope.SPEND, "Buy what was quoted."),
)  # fmt: skip
_LSP: Final = (
    _read("lobby", "lobby", "Who waits for a factory, and where clients find this LSP."),
    _act("build", "factories", _OPERATE, "Build a factory of those who wait."),
    _picture("factories_picture", "factories/picture", "All factories that live, on a time line."),
    _read("factory_show", "factories/{factory_id}", "One factory."),
    _picture("factory_show_picture", "factories/{factory_id}/picture", "One factory as a picture."),
    _read(
        "factory_export", "factories/{factory_id}/export",
        "A factory, so that others can verify it.", scope=_OPERATE,
    ),
    _act(
        "factory_abandon", "factories/{factory_id}/abandon", _OPERATE,
        "Give up a funding that no block can have.",
    ),
    _act(
        "factory_bump", "factories/{factory_id}/bump", _OPERATE,
        "Let a funding pay more, by a child of its change.",
    ),
    _act(
        "factory_replace", "factories/{factory_id}/replace", _OPERATE,
        "Publish a higher candidate of a funding.",
    ),
    _act("close", "factories/{factory_id}/close", _OPERATE, "Close a factory, or a part of it."),
    _read("forwards", "forwards", "A page of what went through, by factory, newest first."),
    _read("forward_show", "forwards/{payment_hash}", "What went through of one payment hash."),
    _read("plan", "plan", "What a factory would cost, before it exists."),
    _picture("plan_picture", "plan/picture", "What it would cost over its lifetime, as a plot."),
    _read("balances", "balances", "What every channel holds."),
    _read("price", "price", "What is asked for inbound liquidity."),
    _act("set_price", "price", _OPERATE, "Change what is asked for it.", verb="PATCH"),
    _read("ledger", "ledger", "What was sold, and what forwarding earned."),
    _read("bans", "bans", "To whom the lobby is closed."),
    _act("ban_add", "bans", _OPERATE, "Close the lobby to a node."),
    _act("ban_remove", "bans/{node_id}", _OPERATE, "Open it again.", verb="DELETE"),
)  # fmt: skip
_AGENT: Final = (
    _read("list", "packages", "The exit packages it holds."),
    _act("add", "packages", _OPERATE, "Take an exit package."),
    _act("withdraw", "packages/{package_id}", _OPERATE, "Give one back.", verb="DELETE"),
)  # fmt: skip

# What each role serves. A name means one thing, whoever serves it.
BY_ROLE: Final = {
    "lsp": (*_EVERY, *_BOTH, *_LSP),
    "client": (*_EVERY, *_BOTH, *_CLIENT),
    "agent": (*_EVERY, *_AGENT),
}
OPERATIONS: Final = {
    operation.name: operation for operations in BY_ROLE.values() for operation in operations
}
