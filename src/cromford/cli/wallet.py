"""`wallet`: a daemon's own wallet, its addresses, its coins, sending; alike for both roles."""

from decimal import Decimal
from typing import Any, Final

import click
from rich.console import Console

from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.cli.amounts import sat_of
from cromford.cli.asking import confirm
from cromford.cli.configuration.kinds import (
    FEERATE_MAX_SAT_PER_VB,
    FEERATE_MIN_SAT_PER_VB,
    Integer,
    Number,
    Option,
)
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import Id
from cromford.cli.shown import lists
from cromford.cli.shown.output import blocks, cell, facts, sat, show, table
from cromford.told import counted
from cromford.wallet.spending import N_SPLIT_MAX, N_SPLIT_MIN

ALL: Final = "all"
GIVEN_BEFORE: Final = (
    "WARNING: this address was given before: nobody has paid the last 20, and a wallet that is "
    "restored from its words looks no further"
)
_FEERATE: Final = Number(FEERATE_MIN_SAT_PER_VB, Decimal(FEERATE_MAX_SAT_PER_VB), "sat/vB")
_SAT: Final = Integer(1, MAX_MONEY_SAT, "SAT")
_N_COINS: Final = Integer(N_SPLIT_MIN, N_SPLIT_MAX)
feerate_option = click.option(
    "--feerate",
    "--feerate-sat-per-vb",
    "feerate_sat_per_vb",
    type=Option(_FEERATE),
    metavar=_FEERATE.metavar,
    help="Of the transaction, in sat/vB.  [default: the node's estimate, or the "
    "daemon's fallback if it has none]",
)
together_option = click.option(
    "--feerate",
    "--feerate-sat-per-vb",
    "feerate_sat_per_vb",
    type=Option(_FEERATE),
    metavar=_FEERATE.metavar,
    help="Of both together, in sat/vB.  [default: what the daemon's node asks for 6 blocks]",
)
external_id_option = click.option(
    "--external-id",
    metavar="ID",
    type=Id(),
    help="An id of your own: asked for again with it, the payment is shown, and made once.",
)
feerates_option = click.option(
    "--feerate",
    "--feerate-sat-per-vb",
    "feerates_sat_per_vb",
    type=Option(_FEERATE),
    metavar=_FEERATE.metavar,
    multiple=True,
    help="In sat/vB; a second one, above it, for a day when the first does not confirm.  "
    "[default: what the daemon's node asks for 36 blocks, and three times that]",
)
WITHHELD: Final = {
    "coins_taken": "a coin of it is in use since",
    "change_spent": "the change of what a block had in its place is in use since",
}
Document = dict[str, Any]


class SatOrAll(click.ParamType[int | str]):
    """An amount in sat, or `all`."""

    name = f"AMOUNT_SAT|{ALL}"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the amount, or the word."""
        if value == ALL:
            return ALL
        amount_sat = sat_of(str(value))
        if amount_sat is None or not _SAT.low <= amount_sat <= _SAT.high:
            expected = f"a whole number in {_SAT.low}..{_SAT.high}"
            received = f'"{value}"' if amount_sat is None else amount_sat
            self.fail(f"expected {expected}, received {received}, or {ALL}", param, ctx)
        return amount_sat


def wallet_group(role: str) -> click.Group:
    """Return the group `wallet` of a role."""
    group = click.Group(name="wallet", help="The daemon's wallet: addresses, coins, sending.")
    for make in (_address, _balance, _coins, _send, _split, _bump, _abandon):
        group.add_command(make(role))
    return group


def _address(role: str) -> click.Command:
    @click.command()
    @invocation_options
    @click.pass_obj
    def address(invocation: Invocation) -> None:
        """Show a fresh address; after 20 that nobody paid, the last of them again."""
        answer = invocation.call(role, "address")
        show(invocation, answer, lists.address)
        if not answer["is_new"] and not invocation.is_json:
            click.echo(GIVEN_BEFORE, err=True)

    return address


def _balance(role: str) -> click.Command:
    @click.command()
    @invocation_options
    @click.pass_obj
    def balance(invocation: Invocation) -> None:
        """Show what is confirmed, free, reserved, immature, being paid, and arriving from exits."""
        show(invocation, invocation.call(role, "wallet_balance"), print_balance)

    return balance


def _coins(role: str) -> click.Command:
    @click.command()
    @invocation_options
    @click.pass_obj
    def coins(invocation: Invocation) -> None:
        """List the coins, and what they are reserved for."""
        show(invocation, invocation.call(role, "wallet_coins"), print_coins)

    return coins


def _send(role: str) -> click.Command:
    @click.command()
    @click.argument("address", metavar="ADDRESS")
    @click.argument("amount", metavar="AMOUNT_SAT|all", type=SatOrAll())
    @feerate_option
    @external_id_option
    @click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask: what is sent stays sent.")
    @invocation_options
    @click.pass_obj
    def send(
        invocation: Invocation,
        /,
        *,
        address: str,
        amount: int | str,
        feerate_sat_per_vb: Decimal | None,
        external_id: str | None,
        dry_run: bool,
        yes: bool,
    ) -> None:
        """Pay to an address from the coins that are free. `all` sends all of them, less the fee.

        A coin that costs more to spend than it holds stays where it is.

        Shows what it would send, and asks first.
        """
        asked = {
            "address": address,
            "amount_sat": None if amount == ALL else amount,
            "feerate_sat_per_vb": digits(feerate_sat_per_vb),
            "external_id": external_id,
        }
        if dry_run:
            show(
                invocation,
                invocation.call(role, "wallet_send", **asked, dry_run=True),
                print_payment,
            )
            return
        if not yes:
            planned = invocation.call(role, "wallet_send", **asked, dry_run=True)
            if planned["sent"]:
                show(invocation, planned, print_payment)  # By this id, before: nobody is asked.
                return
            # What was shown is what is sent: the estimate may move while somebody thinks.
            asked["feerate_sat_per_vb"] = str(planned["feerate_sat_per_vb"])
            _ask(invocation, address, planned)
        show(
            invocation, invocation.call(role, "wallet_send", **asked, dry_run=False), print_payment
        )

    return send


def _split(role: str) -> click.Command:
    @click.command()
    @click.argument("n_coins", metavar=_N_COINS.metavar, type=Option(_N_COINS))
    @click.option(
        "--amount-sat",
        type=Option(_SAT),
        metavar=_SAT.metavar,
        help="What each coin is to hold.  [default: all that is free, divided]",
    )
    @feerate_option
    @external_id_option
    @click.option("--dry-run", is_flag=True, help="Show what would be split; split nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask: the fee stays paid.")
    @invocation_options
    @click.pass_obj
    def split(
        invocation: Invocation,
        /,
        *,
        n_coins: int,
        amount_sat: int | None,
        feerate_sat_per_vb: Decimal | None,
        external_id: str | None,
        dry_run: bool,
        yes: bool,
    ) -> None:
        """Make N coins of one amount, 2 to 20, from the coins that are free; the rest is change.

        In an exit one coin bumps one transaction, and only a confirmed one does: coins are split
        ahead. `client exit plan` says what a coin must hold.

        Shows what it would split, and asks first.
        """
        asked = {
            "n_coins": n_coins,
            "amount_sat": amount_sat,
            "feerate_sat_per_vb": digits(feerate_sat_per_vb),
            "external_id": external_id,
        }
        if not dry_run and not yes:
            planned = invocation.call(role, "wallet_split", **asked, dry_run=True)
            if planned["split"]:
                show(invocation, planned, print_split)  # By this id, before: nobody is asked.
                return
            # What was shown is what is split: coins and estimate may move while somebody thinks.
            asked["amount_sat"] = planned["amount_sat"]
            asked["feerate_sat_per_vb"] = str(planned["feerate_sat_per_vb"])
            _ask_split(invocation, planned)
        answer = invocation.call(role, "wallet_split", **asked, dry_run=dry_run)
        show(invocation, answer, print_split)

    return split


def _bump(role: str) -> click.Command:
    @click.command()
    @click.argument("txid", metavar="TXID")
    @feerate_option
    @click.option(
        "--from-amount",
        is_flag=True,
        help="Pay for it out of the amount: its payee gets less, and all else is as it was.",
    )
    @click.option("--dry-run", is_flag=True, help="Show what would be paid; change nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask: a fee stays paid.")
    @invocation_options
    @click.pass_obj
    def bump(
        invocation: Invocation,
        /,
        *,
        txid: str,
        feerate_sat_per_vb: Decimal | None,
        from_amount: bool,
        dry_run: bool,
        yes: bool,
    ) -> None:
        """Let a payment that no block takes pay a higher feerate.

        Another takes its place, with a txid of its own: it spends the same coins, and pays the
        same. The change pays for it, then coins that are free. Either may confirm, never both.

        `wallet balance` lists the payments that wait. Shows what it would pay, and asks first.
        """
        asked = {
            "txid": txid,
            "feerate_sat_per_vb": digits(feerate_sat_per_vb),
            "from_amount": from_amount,
        }
        if not dry_run and not yes:
            planned = invocation.call(role, "wallet_bump", **asked, dry_run=True)
            # What was shown is what is paid: the estimate may move while somebody thinks.
            asked["feerate_sat_per_vb"] = str(planned["feerate_sat_per_vb"])
            _ask_bump(invocation, planned)
        answer = invocation.call(role, "wallet_bump", **asked, dry_run=dry_run)
        show(invocation, answer, print_bumped)

    return bump


def _abandon(role: str) -> click.Command:
    @click.command()
    @click.argument("txid", metavar="TXID")
    @click.option("--dry-run", is_flag=True, help="Show what would be free again; change nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask: the payment may confirm all the same.")
    @invocation_options
    @click.pass_obj
    def abandon(invocation: Invocation, /, *, txid: str, dry_run: bool, yes: bool) -> None:
        """Give up a payment that the node refuses: its coins are free again.

        It is handed to the node once more, and given up only if it is refused at this moment.
        Whoever else has the transaction may still publish it: until its coins are spent otherwise,
        a second payment to the same payee may be one too many.

        Shows why it is refused, and asks first.
        """
        if not dry_run and not yes:
            planned = invocation.call(role, "wallet_abandon", txid=txid, dry_run=True)
            told = f"the node refuses it: {planned['reason']}; who else has it may publish it"
            confirm(
                invocation,
                f"{told}. Give it up, for {sat(planned['freed_sat'])} in coins?",
                yes=False,
                why=f"a payment that is given up may confirm all the same: {told}",
                remediation="Look at it with --dry-run, then add --yes.",
            )
        answer = invocation.call(role, "wallet_abandon", txid=txid, dry_run=dry_run)
        show(invocation, answer, print_abandoned)

    return abandon


def digits(number: Decimal | None) -> str | None:
    """Return a number as a daemon is told it."""
    return None if number is None else f"{number:f}"


def _ask(invocation: Invocation, address: str, planned: Document) -> None:
    told = f"{sat(planned['amount_sat'])} to {address}, and a fee of {sat(planned['fee_sat'])}"
    confirm(
        invocation,
        f"{told} ({planned['feerate_sat_per_vb']} sat/vB, {planned['feerate_source']}). Send it?",
        yes=False,
        why=f"what is sent cannot be taken back: {told}",
        remediation="Look at it with --dry-run, then add --yes.",
    )


def _ask_split(invocation: Invocation, planned: Document) -> None:
    told = (
        f"{counted(planned['n_coins'], 'coin')} of {sat(planned['amount_sat'])}, for a fee of "
        f"{sat(planned['fee_sat'])}"
    )
    confirm(
        invocation,
        f"{told} ({planned['feerate_sat_per_vb']} sat/vB, {planned['feerate_source']}). Split?",
        yes=False,
        why=f"the fee cannot be taken back: {told}",
        remediation="Look at it with --dry-run, then add --yes.",
    )


def _ask_bump(invocation: Invocation, planned: Document) -> None:
    told = f"{sat(planned['amount_sat'])} to its payee, and a fee of {sat(planned['fee_sat'])}"
    confirm(
        invocation,
        f"{told} ({planned['feerate_sat_per_vb']} sat/vB, {planned['feerate_source']}). Bump it?",
        yes=False,
        why=f"the fee cannot be taken back: {told}",
        remediation="Look at it with --dry-run, then add --yes.",
    )


def print_balance(console: Console, balance: Document) -> None:
    """Print a wallet in numbers."""
    facts(
        console,
        [
            ("confirmed", sat(balance["confirmed_sat"])),
            ("free", sat(balance["free_sat"])),
            ("reserved", f"{sat(balance['reserved_sat'])} for fundings and children"),
            ("immature", f"{sat(balance['immature_sat'])} mined, and not yet 100 blocks deep"),
            (
                "arriving",
                f"{sat(balance['arriving_sat'])} out of factories, before the sweeps' fees",
            ),
            (
                "being paid",
                f"{sat(_leaving_sat(balance))} sent with fees, in no block yet",
            ),
            ("coming back", f"{sat(balance['change_sat'])}, the change of that"),
            *((_waiting_name(one), _waiting_text(one)) for one in balance["waiting"]),
            *(
                ("refused by the node", lists.refused_text(refused))
                for refused in balance["refused"]
            ),
            ("next address", balance["address"] or lists.NO_ADDRESS),
        ],
    )


def _waiting_name(waiting: Document) -> str:
    return "waits for a block" if waiting["withheld"] is None else "is not published"


def _waiting_text(waiting: Document) -> str:
    told = str(waiting["txid"])
    if waiting["fee_sat"] is not None:
        told += f", at {waiting['feerate_sat_per_vb']} sat/vB"
    why = WITHHELD.get(waiting["withheld"])
    return told if why is None else f"{told}: it came back by a reorganisation, and {why}"


def _leaving_sat(balance: Document) -> int:
    """Return what payments without a block take out of the wallet, their fees included."""
    return int(balance["paying_sat"] - balance["change_sat"])


def print_coins(console: Console, answer: Document) -> None:
    """Print the coins of a wallet."""
    if not answer["coins"]:
        console.print("no coins")
        return
    rows = table("coin", "amount", "status", "depth", "address")
    for coin in answer["coins"]:
        status = coin["status"]
        if coin["reserved_for"] is not None:
            status += f" for {coin['reserved_for'][:12]}"
        rows.add_row(
            cell(coin["outpoint"]),
            cell(sat(coin["amount_sat"])),
            cell(status),
            cell(blocks(coin["confirmations"])),
            cell(coin["address"]),
        )
    console.print(rows)


def print_payment(console: Console, payment: Document) -> None:
    """Print what was sent, or would be."""
    console.print("sent" if payment["sent"] else "dry run: nothing was sent")
    facts(console, [("amount", sat(payment["amount_sat"])), *_facts_of(payment)])


def print_split(console: Console, split: Document) -> None:
    """Print what coins were made, or would be."""
    console.print(
        "split: the coins are free once this is in a block"
        if split["split"]
        else "dry run: nothing was split"
    )
    coins = f"{split['n_coins']} of {sat(split['amount_sat'])}"
    facts(console, [("coins", coins), *_facts_of(split)])


def _facts_of(spending: Document) -> list[tuple[str, str]]:
    feerate = f"{spending['feerate_sat_per_vb']} sat/vB, {spending['feerate_source']}"
    return [
        ("fee", f"{sat(spending['fee_sat'])} ({feerate})"),
        ("change", sat(spending["change_sat"])),
        ("transaction", spending["txid"]),
    ]


def print_bumped(console: Console, answer: Document) -> None:
    """Print what is paid in a payment's place, or would be."""
    console.print("bumped" if answer["bumped"] else "dry run: nothing was bumped")
    replaced = ("in the place of", answer["replaces"])
    facts(console, [("amount", sat(answer["amount_sat"])), *_facts_of(answer), replaced])


def print_abandoned(console: Console, answer: Document) -> None:
    """Print which payment was given up, or would be."""
    console.print("given up" if answer["abandoned"] else "dry run: nothing was given up")
    facts(
        console,
        [
            ("transaction", answer["txid"]),
            ("refused by the node", answer["reason"]),
            ("free again", f"{sat(answer['freed_sat'])} in coins"),
        ],
    )
