"""An LSP's state as its operator reads it: plain data, computed on demand, never stored."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from cromford.answers.bans import LobbyMembers
from cromford.answers.channels import LspChannel
from cromford.answers.export import FactoryExport
from cromford.answers.factories import (
    FundingChild,
    LspDyingFactory,
    LspFactoryDetail,
    LspFactorySummary,
    NotWorthSweeping,
    PlacedClient,
    SweepDue,
)
from cromford.answers.factory_words import LspFactoryStatus
from cromford.answers.fundings import PlannedFactory, ShapeChoice
from cromford.answers.status import BuildUnderWay, LockedCapital, LspCapital
from cromford.bitcoin.fees import sat_per_vb
from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.views.bans import paused
from cromford.daemon.views.channels import Standing, is_on_chain, show_channel
from cromford.daemon.views.closes import closed_sat, closes_of
from cromford.daemon.views.closing import close_under_way
from cromford.daemon.views.dying import period_of_shown, show_period, show_steps
from cromford.daemon.views.export import export_factory, export_terms
from cromford.daemon.views.ladder import built_rungs, overtaken_as, show_candidates
from cromford.daemon.views.market import advances_of, leaves_of, sold_totals
from cromford.daemon.views.words import phase_word, shape_word, vertex_word
from cromford.factory.lifetime import Period
from cromford.protocol.channels.coverage import limit_in
from cromford.protocol.channels.depth import depth_asked
from cromford.protocol.channels.lsp import is_usable
from cromford.protocol.exiting.channel import has_lost_its_place
from cromford.protocol.exiting.looking import blocks_to_look_away
from cromford.protocol.exiting.lsp import is_over as leads_nowhere
from cromford.protocol.exiting.lsp import is_swept, was_closed
from cromford.protocol.exiting.lsp_sweep import (
    awaited_outputs,
    is_closed,
    is_in_channels,
    is_over,
    left_outputs,
)
from cromford.protocol.facts import Facts
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.entries import DEAD, FUNDED, FactoryEntry
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.gathered import Build
from cromford.protocol.journal.house import House
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.lobby.build import BuildPlan
from cromford.protocol.lobby.bumping import paid_sat_per_kw
from cromford.protocol.lobby.choosing import lasting_entries
from cromford.protocol.lobby.schedule import lifetime_of_entry
from cromford.protocol.lobby.shapes import ShapeCost
from cromford.protocol.opening.funding import is_too_late
from cromford.watch.feerates import OwnFees

SWEPT: Final = "swept"
ON_CHAIN: Final = "on_chain"
CLOSED: Final = "closed"
# Coins of ours are in it.
DISPLACED: Final = "displaced"
LOCKING: Final[frozenset[str]] = frozenset(
    {"funding", "abandoned", "live", "closing", "expired", DISPLACED}
)


def status_of(factory: Factory) -> LspFactoryStatus:
    """Return a factory's status in one word.

    Building, funding, live, closing, closed, expired, on_chain, swept, aborted, abandoned or dead.
    `closing`: all of it was closed together, and waits for a block; `closed`: a block has that.
    `on_chain`: all of it went into its channels, and each of those was spent. `swept`: its output,
    or all that was left of the tree, went elsewhere than into channels. `abandoned`: its
    funding was given up, and another transaction is to spend a coin of it; `dead`: that one is deep
    enough. What the chain shows of the funding outweighs both. `displaced`: another candidate of
    the fee ladder confirmed so deep than the one that channels are in, and only we have anything in
    it.
    """
    attempt, chain = factory.attempt, factory.chain
    if attempt.aborted is not None:
        return "aborted"
    if attempt.funded is None:
        return "building"
    landed = factory.landed
    if landed is not factory and attempt.is_overtaken(chain):
        if is_over(landed):
            return _over(landed)
        return DISPLACED
    if factory.is_dead:
        return "dead"
    depth = chain.depth(attempt.funding_tx.txid)
    if depth == 0 and attempt.funded.replacement is not None:
        return "abandoned"
    if depth < attempt.terms.min_depth:
        return "funding"
    if is_over(factory):
        return _over(factory)
    closing = {close.outpoint for close in factory.closed.values()}
    if attempt.funding_outpoint in closing and attempt.funding_outpoint not in chain.spends:
        return "closing"
    return "live" if chain.height < attempt.terms.expiry_height else "expired"


def _over(factory: Factory) -> LspFactoryStatus:
    """Return where all of a factory went of which nothing is left."""
    if is_in_channels(factory):
        return ON_CHAIN
    return CLOSED if is_closed(factory) else SWEPT


def summary(factory: Factory) -> LspFactorySummary:
    """Return a factory in one line."""
    attempt, chain = factory.attempt, factory.chain
    terms = attempt.terms
    return {
        "factory_id": attempt.attempt_id.hex(),
        "status": status_of(factory),
        "phase": phase_word(attempt.stage),
        "n_clients": terms.n_clients,
        "funding_txid": str(attempt.funding_tx.txid),
        "funding_amount_sat": attempt.tree.funding_amount_sat,
        "confirmations": chain.depth(attempt.funding_tx.txid),
        "min_depth": terms.min_depth,
        "too_late": status_of(factory) == "funding" and is_too_late(factory),
        "expiry_height": terms.expiry_height,
        "blocks_to_expiry": terms.expiry_height - chain.height,
        "exit_deadline_height": factory.lifetime.exit_deadline_height,
        **show_period(factory.lifetime, chain.height, is_funded=is_funded(factory)),
        "when_dying": show_steps(factory.config.policy, factory.lifetime, chain.height),
        "candidates": show_candidates(factory),
        "holdouts": list(attempt.holdouts),
        "aborted": attempt.aborted,
        "ready_clients": 0 if attempt.funded is None else len(attempt.funded.ready_received),
        "channels_failed": failed_channels(factory),
        "is_marked": factory.is_marked,
        "published": published(factory),
        "leaving": leaving(factory),
        "sweeping": sweeping(factory),
        "closing": close_under_way(factory),
        "close_ended": None if factory.close_ended is None else factory.close_ended.reason,
        "closed": closes_of(factory),
        "moved_out": sorted(factory.held_keys),
        "advances": advances_of(factory),
    }


def is_funded(factory: Factory) -> bool:
    """Say whether a factory's funding is as deep as its terms ask for."""
    attempt = factory.attempt
    return factory.chain.depth(attempt.funding_tx.txid) >= attempt.terms.min_depth


def period_of(factory: Factory) -> str:
    """Return the period of its life that a factory is in; empty where it has none, or no more."""
    if status_of(factory) not in {"live", "expired"}:
        return ""
    return factory.lifetime.period_at(factory.chain.height, is_funded=is_funded(factory)).label


def closes_waiting(factory: Factory) -> int:
    """Return how many closes of a factory wait for a block with all signatures."""
    return sum(close.is_waiting(factory.chain) for close in factory.closed.values())


def dying(house: House, entry: FactoryEntry) -> LspDyingFactory | None:
    """Return what is to be said of a factory that dies, awake or not; None of any other."""
    if not (entry.lent_to and house.is_standing(entry) and house.is_confirmed(entry)):
        return None
    lifetime, height = lifetime_of_entry(entry), house.chain.height
    period = lifetime.period_at(height)
    if period not in {Period.DYING, Period.LATE}:
        return None
    waiting = [node_id for node_id in entry.lent_to if node_id in house.members]
    moved = [node_id for node_id in entry.lent_to if lasting_entries(house, node_id)]
    return {
        "factory_id": entry.attempt_id.hex(),
        **show_period(lifetime, height, is_funded=True),
        "n_clients": len(entry.lent_to),
        "n_waiting": len(waiting),
        "n_elsewhere": len(moved),
        "when_dying": show_steps(house.config.policy, lifetime, height),
    }


def leads_to(factory: Factory, client: int) -> bool:
    """Say whether there still is a way to a client's channel: else nothing is in it any more."""
    is_lost = has_lost_its_place(factory.attempt, factory.chain)
    return not is_lost and not leads_nowhere(factory, client)


def look_blocks(state: LspState) -> int:
    """Return after how many blocks the LSP has to look at the chain again, of all its factories."""
    most = state.config.policy.look_blocks
    for factory in state.all_factories():
        for link in factory.book.links.values():
            if link.state.htlcs and leads_to(factory, link.client):
                most = blocks_to_look_away(
                    factory.book, link, factory.chain, most_blocks=most, expires=False
                )
    return most


def published(factory: Factory) -> list[str]:
    """Return what is on chain of the tree, whoever published it."""
    confirmed = factory.chain.confirmed
    nodes = factory.landed.attempt.tree_on(factory.chain).nodes
    return [node.name for node in nodes if node.tx.txid in confirmed]


def leaving(factory: Factory) -> list[int]:
    """Return the clients whose channels the LSP brings on chain, or whose output is spent."""
    factory = factory.landed
    attempt = factory.attempt
    if attempt.funded is None:
        return []
    return [
        client
        for client in range(1, len(attempt.seats) + 1)
        if client in factory.exits
        or factory.funding_on_chain(client).outpoint in factory.chain.spends
    ]


def sweeping(factory: Factory) -> list[SweepDue]:
    """Return what of the tree is the LSP's and not taken yet, and the first block that can do it.

    From the expiry on; before, L-stocks on chain.
    """
    return [
        {
            "name": output.name,
            "outpoint": str(output.outpoint),
            "amount_sat": output.prevout.amount_sat,
            "height": output.height,
        }
        for output in awaited_outputs(factory)
    ]


def not_worth_sweeping(factory: Factory, fees: OwnFees) -> list[NotWorthSweeping]:
    """Return what could be taken now, and waits for lower fees."""
    return [
        {"name": left.name, "outpoint": str(left.outpoint), "amount_sat": left.amount_sat}
        for left in left_outputs(factory, fees)
    ]


def failed_channels(factory: Factory) -> dict[str, str]:
    """Return why channels take no update any more, by the client's participant index."""
    links = sorted(factory.book.links.values(), key=lambda link: link.client)
    return {str(link.client): link.failure for link in links if link.failure is not None}


def standing_of(factory: Factory, link: Link, facts: Facts) -> Standing:
    """Return how a channel stands to the chain."""
    attempt, chain = factory.attempt, factory.chain
    return Standing(
        is_usable=is_usable(factory, link),
        is_fresh=facts.is_fresh,
        is_markable=facts.unmarkable is None,
        is_exiting=link.client in factory.exits or is_on_chain(link, chain),
        depth=chain.depth(attempt.funding_tx.txid),
        min_depth=depth_asked(attempt, link),
        is_swept=is_swept(factory, link.client),
        is_closed=was_closed(factory, link.client),
        is_closing=is_frozen(link.closes, chain),
        has_moved_out=link.client in factory.held_keys,
        overtaken=overtaken_as(attempt, chain),
    )


def show(factory: Factory) -> LspFactoryDetail:
    """Return everything about a factory."""
    exported = export(factory)
    return {
        **summary(factory),
        "placed": placed(factory.attempt),
        "leaves": leaves_of(factory),
        "participants": exported["participants"],
        "funding": exported["funding"],
        "transactions": exported["transactions"],
        "ledger": exported["ledger"],
        "terms": exported["terms"],
    }


def placed(attempt: LspAttempt) -> list[PlacedClient]:
    """Return who sits where."""
    leaves = {
        client: leaf.name for leaf in attempt.tree.root.shape.leaves() for client in leaf.clients
    }
    return [
        {
            "client": client,
            "node_id": seat.node_id.hex(),
            "leaf": leaves[client],
            "capacity_sat": attempt.terms.capacity_sat[client - 1],
            "reason": attempt.reasons[client - 1],
        }
        for client, seat in enumerate(attempt.seats, start=1)
    ]


def export(factory: Factory) -> FactoryExport:
    """Return the export document."""
    funding_tx = factory.attempt.funding_tx
    in_sat = sum(coin.txout.amount_sat for coin in factory.coins)
    return export_factory(
        factory.attempt,
        network=factory.config.network,
        status=status_of(factory),
        confirmations=factory.chain.depth(funding_tx.txid),
        funding_fee_sat=in_sat - sum(out.amount_sat for out in funding_tx.outputs),
    )


def capital(state: LspState, locking: Iterable[FactoryEntry]) -> LspCapital:
    """Return where the LSP's money is: free, reserved, locked until which expiry, earned.

    Args:
        state: The LSP's.
        locking: The factories that hold coins of ours, as `is_locking` says.
    """
    house = state.house
    by_expiry = sorted(locking, key=lambda entry: entry.expiry_height)
    locked: list[LockedCapital] = [
        {
            "factory_id": entry.attempt_id.hex(),
            "amount_sat": entry.locked_sat,
            "expiry_height": entry.expiry_height,
            "blocks_to_expiry": entry.expiry_height - house.chain.height,
        }
        for entry in by_expiry
    ]
    wallet = house.wallet
    free_sat = sum(coin.txout.amount_sat for coin in wallet.free(house.chain.height))
    owners = ((coin, wallet.reserved.get(coin.outpoint)) for coin in wallet.unspent.values())
    reserved_sat = sum(
        coin.txout.amount_sat
        for coin, owner in owners
        if owner is not None and owner not in wallet.payments
    )
    earned_msat = state.book.earned_msat
    return {
        "free_sat": free_sat,
        "reserved_sat": reserved_sat,
        "lacking_sat": house.lacking_sat(),
        "locked_sat": sum(entry.locked_sat for entry in by_expiry),
        "locked": locked,
        "earned_sat": earned_msat // MSAT_PER_SAT,
        "earned_msat": earned_msat,
        **sold_totals(house),
    }


def locked_in(factory: Factory) -> int:
    """Return how much of the LSP's coins a factory in memory holds."""
    if factory.begun is None or status_of(factory) not in LOCKING:
        return 0
    settled_sat = sum(factory.settled.values())
    return factory.attempt.tree.funding_amount_sat - closed_sat(factory) - settled_sat


def is_locking(state: LspState, entry: FactoryEntry) -> bool:
    """Say whether a factory holds coins of ours: it was funded, and has not gone elsewhere."""
    if entry.status not in {FUNDED, DEAD}:
        return False
    asleep = state.asleep.get(entry.number)
    if asleep is not None:
        return asleep.status in LOCKING
    return status_of(state.factory(entry.number)) in LOCKING


def as_it_slept(house: House, shown: Mapping[str, Any]) -> LspFactorySummary:
    """Return a factory that sleeps in one line: as it went to sleep, at the height of today.

    Its funding is the candidate that was the present one then: what changes that wakes it.
    """
    entry = house.entries[bytes.fromhex(shown["factory_id"])]
    depths = {str(txid): house.chain.depth(txid) for txid in entry.funding_txids}
    depth = depths[shown["funding_txid"]]
    candidates = [
        {**one, "confirmations": depths[one["funding_txid"]]} for one in shown.get("candidates", ())
    ]
    slept: dict[str, Any] = {
        # Where it went to sleep in an older version.
        "sweeping": [],
        "closing": None,
        "close_ended": None,
        "moved_out": [],
        "advances": [],
        "too_late": False,
        **shown,
        "closed": _closes_as_they_slept(shown, house, entry),
        "when_dying": show_steps(house.config.policy, lifetime_of_entry(entry), house.chain.height),
        "candidates": candidates,
        **period_of_shown(shown, house.chain.height, is_funded=depth > 0),
        "confirmations": depth,
        "blocks_to_expiry": entry.expiry_height - house.chain.height,
    }
    return cast("LspFactorySummary", slept)  # It was one when it was written down.


def _closes_as_they_slept(
    shown: Mapping[str, Any], house: House, entry: FactoryEntry
) -> list[dict[str, Any]]:
    """Return a sleeping factory's closes as deep as they are today: what undoes one wakes it."""
    blocks_left = entry.expiry_height - house.chain.height
    deeper = shown.get("blocks_to_expiry", blocks_left) - blocks_left
    return [
        {**one, "confirmations": one["confirmations"] + deeper} if one["confirmations"] else one
        for one in shown.get("closed", ())
    ]


def bump_of(house: House, attempt_id: bytes) -> FundingChild | None:
    """Return which child pays for a factory's funding, and what both pay; None without one."""
    bump, paid = house.bumps.get(attempt_id), paid_sat_per_kw(house, attempt_id)
    if bump is None or paid is None:
        return None
    return {
        "txid": str(bump.child.txid),
        "fee_sat": bump.fee_sat,
        "feerate_sat_per_vb": sat_per_vb(paid),
    }


def payment_statuses(house: House) -> dict[tuple[str, str], int]:
    """Return how many payments of the LSP's there are of each status, wherever they are."""
    return {
        ("out", status): count
        for status, count in Counter(one.status for one in house.payments.values()).items()
    }


def channels_of(house: House, factory: Factory, facts: Facts) -> list[LspChannel]:
    """Return the channels of a factory that are not on chain, nor over, by client."""
    return [
        {
            "node_id": link.node_id.hex(),
            "client": link.client,
            "connected": link.node_id in house.connected,
            **show_channel(
                link,
                standing_of(factory, link, facts),
                factory.chain,
                covered_sat=limit_in(factory, link),
            ),
        }
        for link in sorted(factory.book.links.values(), key=lambda link: link.client)
        if not is_on_chain(link, factory.chain) and leads_to(factory, link.client)
    ]


def lobby(house: House) -> LobbyMembers:
    """Return who waits, and who may not."""
    policy = house.config.policy
    return {
        "node_id": house.config.node_id.hex(),
        "min_clients": policy.min_clients,
        "max_clients": policy.max_clients,
        "waiting": [
            {
                "node_id": member.node_id.hex(),
                "capacity_sat": member.join.capacity_sat,
                "capacity_least_sat": member.join.capacity_least_sat,
                "is_moving": member.is_moving,
                "uptime_blocks": house.uptime_blocks(member.node_id),
            }
            for member in house.members.values()
        ],
        "banned": [
            {"node_id": node_id.hex(), "until_height": pause.until_height}
            for node_id, pause in paused(house)
        ],
    }


def show_plan(plan: BuildPlan) -> PlannedFactory:
    """Return a planned build as plain data."""
    return {
        "funding_amount_sat": plan.funding_amount_sat,
        "funding_fee_sat": plan.selection.fee_sat,
        "change_sat": plan.selection.change_sat,
        "terms": export_terms(plan.terms),
        "placed": [
            {
                "client": seat.client,
                "node_id": seat.applicant.node_id.hex(),
                "leaf": seat.leaf,
                "capacity_sat": plan.terms.capacity_sat[seat.client - 1],
                "reason": seat.reason,
            }
            for seat in plan.placed
        ],
    }


def show_built(factory: Factory) -> PlannedFactory:
    """Return a factory in the words of the plan that it was built by; its terms name it."""
    first, attempt = built_rungs(factory)[0], factory.attempt
    return {
        "funding_amount_sat": attempt.tree.funding_amount_sat,
        "funding_fee_sat": first.fee_sat,
        "change_sat": first.change_sat,
        "terms": export_terms(attempt.terms),
        "placed": placed(attempt),
    }


def show_shape_cost(cost: ShapeCost) -> ShapeChoice:
    """Return what a choice of shape costs as plain data."""
    inner = cost.inner
    return {
        "choice": shape_word(cost),
        "is_chosen": cost.is_chosen,
        "inner_arities": None if inner is None else list(inner.arities),
        "inner_kinds": None if inner is None else [vertex_word(kind) for kind in inner.kinds],
        "exit_blocks": cost.exit_blocks,
        "lock_blocks": cost.lock_blocks,
        "branch_vsize": cost.branch_vsize,
        "tree_vsize": cost.tree_vsize,
        "refusal": cost.refusal,
    }


def show_build(build: Build | None, attempt: LspAttempt | None) -> BuildUnderWay | None:
    """Return what a build under way waits for."""
    if build is None or attempt is not None:
        return None
    return {"phase": "awaiting_clients" if build.attempt is None else "preparing"}
