"""Answers as people read them: short lists and tables."""

from typing import Any, Final

from rich.console import Console

from cromford.cli.shown import dying, ladder, market
from cromford.cli.shown.closes import closed_in_short, closing_text
from cromford.cli.shown.output import (
    DEADLINE_NEAR_BLOCKS,
    blocks,
    cell,
    expiry_text,
    facts,
    is_over,
    moment,
    msat,
    sat,
    short,
    table,
)
from cromford.told import counted

TWO_COPIES: Final = "does a second copy of the data directory run? Stop one of them"
NOT_LISTENING: Final = "nothing yet: it listens once it has read a block"
NO_ADDRESS: Final = "none yet: it finds what is paid to it once it has read a block"
RESTORED: Final = "marked: restored from a backup, it can only be closed"
_GOES_ON: Final = frozenset({"open", "offline"})  # A channel whose neighbours leave.
Document = dict[str, Any]


def address(console: Console, answer: Document) -> None:
    """Print an address alone, so that it can be copied or piped."""
    console.print(cell(answer["address"]), soft_wrap=True)


def stopping(console: Console, _answer: Document) -> None:
    """Print that the daemon stops."""
    console.print("the daemon is stopping")


def stopped(console: Console, _answer: Document) -> None:
    """Print that the daemon is gone."""
    console.print("the daemon has stopped")


def left(console: Console, _answer: Document) -> None:
    """Print that the wish was taken back."""
    console.print("left the lobby")


def regtest_started(console: Console, where: Document) -> None:
    """Print where the embedded node answers."""
    facts(console, [("url", where["url"]), ("cookie file", where["cookie_file"])])
    console.print(cell(where["warning"]), soft_wrap=True)


def lsp_status(console: Console, status: Document) -> None:
    """Print the LSP's status."""
    building = status["build"]
    rows = _status_rows(status)
    rows += [
        ("clients connect to", status["address"] or NOT_LISTENING),
        ("clients", f"{status['n_connected']} connected, {status['n_waiting']} waiting"),
        ("building", "no" if building is None else building["phase"]),
        ("factories", status["n_factories"]),
        ("must see the chain", f"at least every {blocks(status['look_blocks'])}"),
        *market.capital_rows(status["capital"]),
        *market.price_rows(status["price"]),
    ]
    rows += [
        ("in use twice", f"{node_id} keeps displacing itself; {TWO_COPIES}")
        for node_id in status["contested"]
    ]
    for stopped in status["stopped"]:
        text = (
            f"factory {stopped['factory_id'][:16]}: {stopped['error']}; tried again at each block"
        )
        rows.append(("STOPPED BY A BUG", text))
    rows += [
        (f"factory {closing['factory_id'][:16]}", closing_text(closing))
        for closing in status["closing"]
    ]
    keys = status["handed_over_keys"]
    if keys["n_clients"]:
        rows.append(
            ("keys handed over", f"by {counted(keys['n_clients'], 'client')} that moved out")
        )
    if keys["problem"]:
        told = f"{keys['problem']}; whose are gone is asked again, or signs itself"
        rows.append(("KEYS DAMAGED", told))
    if status["build_dropped"]:
        rows.append(("last build dropped", status["build_dropped"]))
    facts(console, rows)
    for factory in status["capital"]["locked"]:
        left = factory["blocks_to_expiry"]
        when = f"expiry in {blocks(left)}, at height {factory['expiry_height']:,}"
        if left <= 0:
            when = f"EXPIRED at height {factory['expiry_height']:,}"
        style = "bold yellow" if left <= DEADLINE_NEAR_BLOCKS else ""
        told = f"  {sat(factory['amount_sat'])} in {short(factory['factory_id'])}: {when}"
        console.print(cell(told, style), soft_wrap=True)
    dying.ending(console, status["dying"])


def client_status(console: Console, status: Document) -> None:
    """Print a client's status."""
    wish = status["wish"]
    rows = _status_rows(status)
    rows.append(("LSP", f"{status['lsp']} ({_yes(status['connected'], 'connected')})"))
    if status["connections_are_short"]:
        rows.append(("connections", f"end soon after they begin; {TWO_COPIES}"))
    offer = status["lobby"]
    if offer is not None:
        offered = (
            f"{sat(offer['capacity_min_sat'])} to {sat(offer['capacity_max_sat'])}, "
            f"{offer['min_clients']} to {counted(offer['max_clients'], 'client')}, "
            f"{offer['deadline_seconds']} s to answer"
        )
        price = f"{msat(offer['fee_base_msat'])} and {offer['fee_proportional_millionths']:,} ppm"
        rows += [("LSP offers", offered), ("price of a payment", price)]
    wished = "nothing" if wish is None else sat(wish["capacity_sat"])
    if wish is not None and wish["moves_from"]:
        wished += f", to move out of factory {short(wish['moves_from'])}"
    if wish is not None and wish["capacity_least_sat"] != wish["capacity_sat"]:
        wished += f", at least {sat(wish['capacity_least_sat'])}"
    rows.append(("wish", wished))
    rows.append(("in the lobby", "yes" if status["joined"] else "no"))
    if status["refusal"]:
        rows.append(("refused", status["refusal"]))
    if status["paused_until_height"] is not None:
        why = "" if status["refusal"] else "after too many that came to nothing: "
        rows.append(("joins again", f"{why}at height {status['paused_until_height']:,}"))
    facts(console, rows)
    market.liquidity(console, status["channels"])
    dying.ending(console, status["dying"])


def _status_rows(status: Document) -> list[tuple[str, object]]:
    wallet = status["wallet"]
    height = "unknown" if status["height"] < 0 else f"{status['height']:,}"
    held = (
        f"{sat(wallet['confirmed_sat'])} confirmed, {sat(wallet['free_sat'])} free, "
        f"{sat(wallet['reserved_sat'])} reserved"
    )
    if wallet["arriving_sat"]:
        held += f", {sat(wallet['arriving_sat'])} arriving from factories"
    if wallet["change_sat"]:
        held += f", {sat(wallet['change_sat'])} coming back as change"
    if wallet["immature_sat"]:
        held += f", {sat(wallet['immature_sat'])} immature"
    return [
        ("network", status["network"]),
        ("node id", status["node_id"]),
        ("height", height),
        ("chain", status["chain_url"]),
        ("chain is", _freshness(status["chain"])),
        ("data directory", status["datadir"]),
        ("wallet", held),
        ("wallet address", wallet["address"] or NO_ADDRESS),
        *(("refused by the node", refused_text(refused)) for refused in status["refused"]),
        *(("BUG MET", _failed_text(failed)) for failed in status["failed_decisions"]),
        *(("the store", warning) for warning in status["backup_warnings"]),
    ]


def _failed_text(failed: Document) -> str:
    """Return what a daemon could not decide, and whom it let go for it."""
    who = "a request" if failed["node_id"] is None else f"peer {short(failed['node_id'])}"
    alarm = "a second signature was PREVENTED; " if failed["alarm"] else ""
    return (
        f"{alarm}{failed['error']} at {failed['place']} about {failed['event']} of {who} "
        f"({counted(failed['count'], 'time')}, last {moment(failed['last_time'])}); "
        "nothing was remembered; please report the log's traceback"
    )


def _freshness(chain: Document) -> str:
    if chain["fresh"]:
        return "fresh"
    return f"STALE since {moment(chain['stale_since'])}: {chain['stale_reason']}"


def refused_text(refused: Document) -> str:
    """Return which transaction the node does not take, why, and since when."""
    return (
        f"{refused['name']} {short(refused['txid'])}, {refused['reason']} "
        f"({counted(refused['count'], 'time')} since height {refused['first_height']:,})"
    )


def rescanning(console: Console, answer: Document) -> None:
    """Print from where to where blocks are read again."""
    console.print(
        f"reading the blocks from height {answer['from_height']:,} to {answer['to_height']:,} "
        "again; `status` says when it is through"
    )


def lobby(console: Console, answer: Document) -> None:
    """Print who waits, and what clients connect to."""
    facts(
        console,
        [
            ("clients connect to", answer["address"]),
            (
                "a factory takes",
                f"{answer['min_clients']} to {counted(answer['max_clients'], 'client')}",
            ),
        ],
    )
    if answer["waiting"]:
        rows = table("client", "capacity", "at least", "uptime", "moves")
        for member in answer["waiting"]:
            rows.add_row(
                cell(member["node_id"]),
                cell(sat(member["capacity_sat"])),
                cell(sat(member["capacity_least_sat"])),
                cell(blocks(member["uptime_blocks"])),
                cell("yes" if member["is_moving"] else "no"),
            )
        console.print(rows)
    else:
        console.print("nobody waits")
    for banned in answer["banned"]:
        told = f"banned until height {banned['until_height']:,}: {banned['node_id']}"
        console.print(cell(told), soft_wrap=True)


def build(console: Console, answer: Document) -> None:
    """Print what a build does, or would do."""
    started = "building" if answer["started"] else "dry run: nothing was built"
    if answer.get("factory_id") is not None:
        started = f"built: factory {answer['factory_id']}; `lsp factories` shows its funding"
    console.print(cell(started), soft_wrap=True)
    placement(console, answer["placed"])
    facts(
        console,
        [
            ("funding output", sat(answer["funding_amount_sat"])),
            ("funding fee", sat(answer["funding_fee_sat"])),
            ("change", sat(answer["change_sat"])),
        ],
    )
    if not answer["started"] or len(answer["candidates"]) > 1:
        ladder.planned(console, answer)
    if not answer["started"]:
        shapes(console, answer["shapes"])


def shapes(console: Console, choices: list[Document]) -> None:
    """Print what each choice of shape costs; the chosen one is marked."""
    rows = table("shape", "inner levels", "blocks to leave", "lock", "branch", "tree")
    for choice in choices:
        name = f"{choice['choice']} *" if choice["is_chosen"] else choice["choice"]
        if choice["refusal"] is not None:
            rows.add_row(cell(name), cell(choice["refusal"]), *[cell("")] * 4)
            continue
        levels = zip(choice["inner_kinds"], choice["inner_arities"], strict=True)
        rows.add_row(
            cell(name),
            cell(", ".join(f"{kind} {arity}" for kind, arity in levels) or "none"),
            cell(f"{choice['exit_blocks']:,}"),
            cell(blocks(choice["lock_blocks"])),
            cell(f"{choice['branch_vsize']:,} vB"),
            cell(f"{choice['tree_vsize']:,} vB"),
        )
    console.print(rows)
    told = "lock: how long a payment between two clients here may hold its payer's money; * chosen"
    console.print(cell(told, "dim"), soft_wrap=True)


def placement(console: Console, placed: list[Document]) -> None:
    """Print who sits where, and why."""
    rows = table("client", "node id", "leaf", "capacity", "why")
    for seat in placed:
        rows.add_row(
            cell(seat["client"]),
            cell(short(seat["node_id"])),
            cell(seat["leaf"]),
            cell(sat(seat["capacity_sat"])),
            cell(seat["reason"]),
        )
    console.print(rows)


def lsp_factories(console: Console, answer: Document) -> None:
    """Print the LSP's factories."""
    if not answer["factories"]:
        console.print("no factories")
        return
    rows = table("factory", "status", "clients", "funding", "confirmed", "time left")
    for factory in answer["factories"]:
        rows.add_row(
            cell(short(factory["factory_id"])),
            cell(_lsp_stage(factory)),
            cell(f"{factory['ready_clients']} of {factory['n_clients']} ready"),
            cell(f"{sat(factory['funding_amount_sat'])}, {short(factory['funding_txid'])}"),
            cell(_depth(factory)),
            _time_left(factory),
        )
    console.print(rows)
    dying.ending(console, answer["factories"])


def _lsp_stage(factory: Document) -> str:
    if factory["aborted"]:
        return f"aborted: {factory['aborted']}"
    if factory["too_late"]:
        return f"{factory['status']}, too late: give it up"
    if factory["refused"]:
        return f"{factory['status']}, {_refused_in_short(factory)}"
    if factory["status"] != "building":
        if factory["closing"] is not None:
            return f"{factory['status']}, {closing_text(factory['closing'])}"
        if factory["closed"]:
            return _closed(factory["status"], closed_in_short(factory["closed"][-1]))
        failed = ", ".join(f"client {client}'s" for client in factory["channels_failed"])
        failed = f", failed: {failed} channel" if failed else ""
        marked = f", {RESTORED}" if factory["is_marked"] else ""
        selling = "".join(f", {market.advance_text(one)}" for one in factory["advances"])
        known = f"{selling}{_left_text(factory)}{_moved_text(factory)}{_swept_text(factory)}"
        return f"{factory['status']}{marked}{failed}{known}"
    waits = ", ".join(map(str, factory["holdouts"]))
    return f"{factory['phase']}, waits for {waits}" if waits else str(factory["phase"])


def _closed(status: str, told: str) -> str:
    return told if status == "closed" else f"{status}, {told}"  # Or it would be said twice.


def _refused_in_short(factory: Document) -> str:
    refused = factory["refused"][0]
    return f"the node refuses {refused['name']}: {refused['reason']}"


def _left_text(factory: Document) -> str:
    """Return how far the tree is published, and which clients are known to be out."""
    if not factory["published"]:
        return ""
    n = len(factory["published"])
    out = ", ".join(map(str, factory["leaving"]))
    told = f", being left: {counted(n, 'transaction')} of the tree on chain"
    return f"{told}, clients leaving or out: {out}" if out else told


def _moved_text(factory: Document) -> str:
    """Return which clients moved out, so that a close does not need them."""
    out = ", ".join(map(str, factory["moved_out"]))
    return f", moved out: {out}" if out else ""


def _swept_text(factory: Document) -> str:
    """Return what is on its way to the wallet out of the tree."""
    sweeping = factory["sweeping"]
    if not sweeping:
        return ""
    n = len(sweeping)
    amount_sat = sum(output["amount_sat"] for output in sweeping)
    return f", to be swept: {sat(amount_sat)} in {counted(n, 'output')}"


def client_factories(console: Console, answer: Document) -> None:
    """Print a client's factories."""
    if not answer["factories"]:
        console.print("no factories")
        return
    rows = table("factory", "status", "you", "channel", "confirmed", "time left")
    for factory in answer["factories"]:
        status = factory["status"]
        if factory["aborted"]:
            status = f"aborted: {factory['aborted']}"
        elif status == "building":
            status = f"building, {factory['stage']}"
        elif status == "moved_out":
            status = _moved_out(factory["keys_handed_over"])
        elif factory["refused"]:
            status += f", {_refused_in_short(factory)}"
        elif factory["closed"]:
            status = _closed(status, closed_in_short(factory["closed"][-1], factory["close"]))
        elif factory["closing"] is not None:
            status += f", {closing_text(factory['closing'])}"
        elif factory["channel_status"] == "marked":
            status += f", channel {RESTORED}: ask your LSP"
        elif factory["channel_failed"]:
            status += f", channel failed: {factory['channel_failed']}"
        elif factory["published"] and factory["channel_status"] in _GOES_ON:
            on_chain = ", ".join(factory["published"])
            status += f", channel {factory['channel_status']}; somebody leaves: {on_chain} on chain"
        rows.add_row(
            cell(short(factory["factory_id"])),
            cell(status),
            cell(f"client {factory['client']} of {_known(factory['n_clients'])}"),
            cell(sat(factory["capacity_sat"])),
            cell(_depth(factory)),
            _time_left(factory),
        )
    console.print(rows)
    dying.ending(console, answer["factories"])
    looks = [factory["look_blocks"] for factory in answer["factories"] if factory["look_blocks"]]
    if looks:
        told = f"your node must see the chain at least every {blocks(min(looks))}"
        console.print(cell(told, "dim"), soft_wrap=True)


def _moved_out(handed_over: Document) -> str:
    """Return that the client is out, and whether the LSP can close without it."""
    if handed_over["taken"]:
        return "moved out, its keys are with the LSP"
    refused = handed_over["refused"]
    return f"moved out, keys {'not taken: ' + refused if refused else 'sent to the LSP'}"


def _depth(factory: Document) -> str:
    depth, needed = factory["confirmations"], factory["min_depth"]
    if needed is not None and depth >= needed:
        return f"{depth:,} deep"
    return f"{depth} of {_known(needed)}"


def _known(number: int | None) -> str:
    # Before it has checked a proposal, a client knows nothing that it would repeat.
    return "?" if number is None else str(number)


def _time_left(factory: Document) -> Any:  # noqa: ANN401 - rich's Text
    return cell(None) if factory["aborted"] or is_over(factory) else expiry_text(factory)


def joined(console: Console, answer: Document) -> None:
    """Print what became of a wish."""
    wish = answer["wish"]
    where = "waiting in the lobby"
    if answer.get("is_building"):
        where = "a factory is being built with it"
    if not answer["joined"]:
        where = "the LSP has not answered yet; the wish is kept (see `cromford client status`)"
    console.print(cell(f"asked for {sat(wish['capacity_sat'])}; {where}"), soft_wrap=True)


def verification(console: Console, answer: Document) -> None:
    """Print every check and its outcome."""
    rows = table("", "check", "")
    for check in answer["checks"]:
        rows.add_row(_mark_of(check), cell(check["check"]), cell(check["detail"]))
    console.print(rows)
    n_checks = len(answer["checks"])
    if answer["ok"]:
        console.print(f"all {n_checks} checks passed")
    else:
        waits = "nothing is wrong; not all is there yet"
        console.print(waits if answer["waits"] else "verification FAILED")


def _mark_of(check: Document) -> Any:  # noqa: ANN401 - rich's Text
    if check["ok"]:
        return cell("ok", "green")
    return cell("waits", "bold yellow") if check["waits"] else cell("FAILED", "bold red")


def _yes(fact: bool, word: str) -> str:  # noqa: FBT001 - one fact and its word
    return word if fact else f"not {word}"


def abandoned_factory(console: Console, answer: Document) -> None:
    """Print which factory was given up, or would be, and by which payment."""
    console.print("given up" if answer["abandoned"] else "dry run: nothing was given up")
    feerate = f"{answer['feerate_sat_per_vb']} sat/vB, {answer['feerate_source']}"
    facts(
        console,
        [
            ("factory", answer["factory_id"]),
            ("refused by the node", answer["reason"]),
            ("paid back", sat(answer["amount_sat"])),
            ("fee", f"{sat(answer['fee_sat'])} ({feerate})"),
            ("transaction", answer["txid"]),
            ("dead once it is", f"{blocks(answer['min_depth'])} deep"),
        ],
    )


def bumped_factory(console: Console, answer: Document) -> None:
    """Print which child pays for a funding, or would, and what it costs."""
    console.print("bumped" if answer["bumped"] else "dry run: nothing was published")
    feerate = f"{answer['feerate_sat_per_vb']} sat/vB with its funding, {answer['feerate_source']}"
    facts(
        console,
        [
            ("factory", answer["factory_id"]),
            ("fee", f"{sat(answer['fee_sat'])} ({feerate})"),
            ("before", f"{answer['paid_sat_per_vb']} sat/vB"),
            ("left of the change", sat(answer["change_sat"])),
            ("coins beside it", str(answer["n_coins"])),
            ("transaction", answer["txid"]),
        ],
    )
