"""The ways to cheat with the states of a leaf of which a client bought.

A replaced state has to lose its race as long as anybody honest in the leaf looks within a step. If
all of them sleep longer, its poisons pay the clients, and the LSP loses by its own sleep alone.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from cromford.bitcoin.tx import Tx
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.factory.branch import SignedBranch
from cromford.protocol.channels.coverage import coverage_in
from cromford.wire import messages as m
from cromford.wire.selling import ALL_OF_IT
from tests.matrix.advances import (
    Parties,
    branch_at,
    buy,
    expect_no_poison,
    expect_poisons,
    expect_state,
    latest_on,
    leaf_of,
    leave_but_state,
    live,
    newest_branch,
    order,
    own_in_leaf_sat,
    parties,
    publish_together,
    quote,
    receive,
    revoked_on,
    sleep_as_allowed,
    sleep_too_long,
    started,
    take_poisons,
    use,
)
from tests.matrix.histories import branch_of, rogue
from tests.matrix.scenario import ASLEEP, CLIENTS, Scenario
from tests.matrix.thief import Thief
from tests.matrix.world import MatrixNode, MatrixWorld
from tests.protocol.paying_clients import lsp_link

OLD, NEWEST = 0, 1
MATE, LSP, BOTH = "the leaf-mate", "the LSP", "LSP and leaf-mate"
NOBODY, BUYER, OTHER = "", "the buyer", "the other"
ALLOWED, TOO_LONG = "all as long as they may", "all too long"
ALONE, TOGETHER, LATER, OWN = "", "revoked commitment in a package", "revoked commitment", "its own"
ON_NEW, REVOKED_ON_NEW = "the newest commitment", "revoked commitments of the newest"


def used(world: MatrixWorld, *, has_htlcs: bool = False) -> Parties:
    """Let a client buy, and use what it bought."""
    both = parties(world)
    live(world, both, has_htlcs=has_htlcs)
    buy(world, both.buyer)
    use(world, both)
    return both


def cheaters_of(world: MatrixWorld, both: Parties, who: str) -> tuple[MatrixNode, ...]:
    lsp = world.node("lsp")
    return {MATE: (both.mate,), LSP: (lsp,), BOTH: (lsp, both.mate)}[who]


# The state that was replaced


def old_state(
    world: MatrixWorld, *, who: str, sleeping: str, below: str, has_htlcs: bool = False
) -> Thief:
    """Publish the state that was replaced, and a commitment below it, while somebody sleeps.

    Args:
        world: Where.
        who: Who cheats.
        sleeping: Who of the others sleeps while the leaf's clock runs, and how long.
        below: What is published of the channels.
        has_htlcs: Whether the commitment of the old state has HTLCs.
    """
    both = used(world, has_htlcs=has_htlcs)
    cheaters = cheaters_of(world, both, who)
    lsp, old = world.node("lsp"), branch_of(world, both.mate)
    thief = rogue(world, *cheaters)
    lands = OLD if sleeping == TOO_LONG else NEWEST
    if lands == OLD and lsp not in cheaters:
        world.at_risk_sat["lsp"] = own_in_leaf_sat(world, both.buyer)
    is_package = below == TOGETHER
    thief.tasks.append(
        partial(
            leave_but_state if is_package else thief.leave,
            *((thief, old) if is_package else (old,)),
        )
    )
    started(world, both.buyer)
    put_to_sleep(world, both, sleeping)
    if lsp in cheaters:
        publish_below(thief, both, below, old, has_htlcs=has_htlcs)
    if both.mate in cheaters:
        publish_mates(thief, both, below)
    expect_state(thief, both.buyer, lands)
    if lands == OLD:
        is_poisoned = below not in {TOGETHER, LATER}
        expect_poisons(thief, both.buyer, channels=is_poisoned)
    else:
        expect_no_poison(thief)
    return thief


def put_to_sleep(world: MatrixWorld, both: Parties, sleeping: str) -> None:
    """Let those sleep of whom a scenario says it; who cheats has no process."""
    lsp = world.node("lsp")
    if sleeping == ALLOWED:
        sleep_as_allowed(world, *world.everybody)
    elif sleeping == TOO_LONG:
        sleep_too_long(world, *world.everybody)
    elif sleeping == BUYER:
        sleep_too_long(world, both.buyer)
    elif sleeping == OTHER:
        sleep_too_long(world, lsp, both.mate)


def publish_below(
    thief: Thief, both: Parties, below: str, old: SignedBranch, *, has_htlcs: bool
) -> None:
    """Let a cheating LSP publish its commitment of the buyer's channel, of whichever state."""
    world, buyer = thief.world, both.buyer
    lsp = world.node("lsp")
    if below in {TOGETHER, LATER}:
        held = revoked_on(world, lsp, buyer, OLD, has_htlcs=has_htlcs)
        if below == TOGETHER:
            thief.tasks.append(partial(publish_together, thief, old, held))
        thief.tasks.append(partial(thief.cheat, held))
    elif below == REVOKED_ON_NEW:
        thief.tasks.append(partial(thief.cheat, revoked_on(world, lsp, buyer, NEWEST)))
    elif below == ON_NEW:
        newest = latest_on(world, lsp, buyer, NEWEST)
        assert newest is not None
        thief.tasks.append(partial(thief.cheat, newest))


def publish_mates(thief: Thief, both: Parties, below: str) -> None:
    """Let a cheating leaf-mate take its poisons, or publish a commitment of its own."""
    world, mate = thief.world, both.mate
    if below == OWN:
        thief.tasks.append(partial(thief.cheat, revoked_on(world, mate, mate, OLD)))
    is_revoked = below == REVOKED_ON_NEW
    newest = latest_on(world, mate, mate, NEWEST)
    assert newest is not None
    on_new = revoked_on(world, mate, mate, NEWEST) if is_revoked else newest
    thief.tasks.append(partial(thief.cheat, on_new))
    thief.tasks.append(partial(take_poisons, thief, mate, but_channel=below == OWN))


def order_of_sales(world: MatrixWorld, *, state_index: int, below: str) -> Thief:
    """The leaf-mate buys most of the L-stock, then the buyer the rest, and receives what it may.

    Of the first state's L-stock the leaf-mate's growth is paid before all else. So what poisons
    cover is less than what the channel holds, and the buyer owns exactly that when it sleeps.
    """
    both = parties(world)
    live(world, both)
    buy(world, both.mate)
    buy(world, both.buyer, ALL_OF_IT)
    receive(world, both.buyer)
    link = world.link_of(both.buyer)
    covered_msat = (coverage_in(both.buyer.state, link) or 0) * MSAT_PER_SAT
    assert 0 <= covered_msat - link.state.accepter_msat < MSAT_PER_SAT
    lsp = world.node("lsp")
    thief = rogue(world, lsp, both.mate)
    old = branch_at(world, both.buyer, state_index)
    is_package = below == TOGETHER
    if is_package:
        held = revoked_on(world, lsp, both.buyer, state_index)
        thief.tasks.append(partial(leave_but_state, thief, old))
        thief.tasks.append(partial(publish_together, thief, old, held))
        thief.tasks.append(partial(thief.cheat, held))
    else:
        thief.tasks.append(partial(thief.leave, old))
    thief.tasks.append(partial(take_poisons, thief, both.mate))
    started(world, both.buyer)
    sleep_too_long(world, both.buyer, state_index=state_index)
    expect_state(thief, both.buyer, state_index)
    expect_poisons(thief, both.buyer, channels=not is_package, state_index=state_index)
    return thief


# Revoked commitments of the newest state


def old_commitment_on_new(world: MatrixWorld, *, lsp_cheats: bool, is_asleep: bool) -> Thief:
    """The newest state is on chain, and with it a commitment that was revoked since."""
    both = used(world)
    lsp, buyer = world.node("lsp"), both.buyer
    cheater, victim = (lsp, buyer) if lsp_cheats else (buyer, lsp)
    thief = rogue(world, cheater)
    thief.tasks.append(partial(thief.leave, newest_branch(world, buyer)))
    started(world, buyer)
    outpoint = world.channel_outpoint(buyer)
    assert world.mine_until(lambda: outpoint.txid in world.chain.confirmed, most=8)
    if is_asleep:
        world.sleep(victim, world.absence_blocks(victim))
    held = revoked_on(world, cheater, buyer, NEWEST)
    assert held.funding.outpoint == outpoint
    thief.tasks.append(partial(thief.cheat, held))
    thief.act()
    expect_state(thief, buyer, NEWEST)
    expect_no_poison(thief)
    return thief


# In the middle of the rebase


def between(world: MatrixWorld, *, who: str, sleeping: str, below: str) -> Thief:
    """The buyer has its commitment n+1, and revoked n; the LSP stops, and has n on both states."""
    both = parties(world)
    live(world, both)
    quoted = quote(world, both.buyer)
    assert isinstance(quoted, m.Quote), quoted
    order(world, both.buyer, quoted)
    lsp_number = lsp_link(world, world.link_of(both.buyer)).state.own_signed

    def has_revoked() -> bool:
        link = world.link_of(both.buyer)
        latest = link.state.content(Party.ACCEPTER, Edition.SIGNED)
        lsps = lsp_link(world, link)
        return latest.is_rebased and lsps.state.peer_revoked == link.state.own_signed

    world.run(until=has_revoked)
    assert has_revoked()
    lsps = lsp_link(world, world.link_of(both.buyer))
    assert lsps.state.own_revoked <= lsp_number
    cheaters = cheaters_of(world, both, who)
    lsp, old = world.node("lsp"), branch_of(world, both.mate)
    thief = rogue(world, *cheaters)
    thief.tasks.append(partial(thief.leave, old))
    started(world, both.buyer)
    put_to_sleep(world, both, sleeping)
    lands = OLD if sleeping == TOO_LONG else NEWEST
    if below:
        held = latest_on(world, lsp, both.buyer, lands)
        assert held is not None
        thief.tasks.append(partial(thief.cheat, held))
    if both.mate in cheaters:
        thief.tasks.append(partial(take_poisons, thief, both.mate))
    expect_state(thief, both.buyer, lands)
    if lands == OLD:
        expect_poisons(thief, both.buyer, channels=not below)
    else:
        expect_no_poison(thief)
    return thief


# A kickoff in the middle of it

STEPS: Final[Sequence[type[m.Message]]] = (
    m.AdvancePropose,
    m.AdvanceAgree,
    m.AdvanceCommit,
    m.AdvanceSign,
    m.AdvanceDone,
    m.AdvanceHeld,
    m.UpdateRebase,
)
COMMITTED, POISONED = 4, 5  # Whose message is on its way: v+1 may land; poisons were given.
BEFORE, AFTER = 0, len(STEPS) + 1


def kickoff_at(world: MatrixWorld, *, step: int, buyer_cheats: bool, lands: int) -> Thief:
    """A client begins to leave, and its leaf is sold of all the same, or is not.

    Args:
        world: Where.
        step: Which message of the advance is on its way when the kickoff gets into a block.
        buyer_cheats: Whether the one who leaves is the buyer.
        lands: The state that is to land. The old one: all others sleep longer than a step.
    """
    both = parties(world)
    live(world, both)
    cheater = both.buyer if buyer_cheats else both.mate
    old = branch_of(world, cheater)
    if step == BEFORE:
        confirm(world, old.txs[0])
        assert isinstance(quote(world, both.buyer), m.QuoteRefused)
    else:
        quoted = quote(world, both.buyer)
        assert isinstance(quoted, m.Quote), quoted
        order(world, both.buyer, quoted)
        if step == AFTER:
            world.run()
        else:
            world.run_to(STEPS[step - 1])
            assert world.wire
        confirm(world, old.txs[0])
        if step == COMMITTED and lands == NEWEST and not buyer_cheats:
            # Nobody has poisons: it is paid for once what was sold is six blocks deep.
            world.prices_msat[both.buyer.name] = quoted.price_msat
    world.run()
    thief = rogue(world, cheater)
    lsp_risks = step >= POISONED and lands == OLD
    if lsp_risks:
        world.at_risk_sat["lsp"] = own_in_leaf_sat(world, both.buyer)
    if lands == OLD:
        sleep_too_long(world, *world.everybody)
        thief.tasks.append(partial(thief.leave, old))
    for state_index in range(len(leaf_of(world, cheater).states)):
        held = latest_on(world, cheater, cheater, state_index)
        if held is not None:
            thief.tasks.append(partial(thief.cheat, held))
    thief.tasks.append(partial(take_poisons, thief, cheater))
    thief.act()
    expect_state(thief, cheater, lands)
    if lsp_risks:
        other = both.mate if buyer_cheats else both.buyer
        expect_poisons(thief, other, channels=True)
    else:
        expect_no_poison(thief)
    return thief


def confirm(world: MatrixWorld, kickoff: Tx) -> None:
    """Let a kickoff be in the next block, which everybody sees; no message arrives meanwhile."""
    world.chain.broadcast(kickoff)
    world.chain.mine()
    assert kickoff.txid in world.chain.confirmed
    world.sync()


def _old_states() -> Iterator[Scenario]:
    for who, sleeping, below, clients in (
        (MATE, NOBODY, ALONE, (2,)),
        (MATE, BUYER, ALONE, (2,)),
        (MATE, OTHER, ALONE, (2,)),
        (MATE, ALLOWED, REVOKED_ON_NEW, CLIENTS),
        (MATE, TOO_LONG, ALONE, (2,)),
        (MATE, TOO_LONG, OWN, (2,)),
        (LSP, NOBODY, ALONE, (2,)),
        (LSP, BUYER, ON_NEW, (2,)),
        (LSP, OTHER, ALONE, (2,)),
        (LSP, ALLOWED, REVOKED_ON_NEW, (2,)),
        (LSP, TOO_LONG, ALONE, (2,)),
        (LSP, TOO_LONG, TOGETHER, (2,)),
        (LSP, TOO_LONG, LATER, (2,)),
        (BOTH, NOBODY, ALONE, (2,)),
        (BOTH, ALLOWED, ON_NEW, CLIENTS),
        (BOTH, ALLOWED, REVOKED_ON_NEW, (2,)),
        (BOTH, TOO_LONG, ALONE, CLIENTS),
        (BOTH, TOO_LONG, TOGETHER, CLIENTS),
        (BOTH, TOO_LONG, LATER, (2,)),
        (BOTH, TOO_LONG, OWN, (2,)),
    ):
        for has_htlcs in (False, True) if (who, below) == (BOTH, TOGETHER) else (False,):
            extra = f" with {below}" * bool(below) + ", HTLCs" * has_htlcs
            asleep = f", {sleeping} asleep" if sleeping else ""
            yield Scenario(
                name=f"replaced state of {who}{extra}{asleep}",
                cheat=partial(
                    old_state, who=who, sleeping=sleeping, below=below, has_htlcs=has_htlcs
                ),
                happens="kickoff",
                clients=clients,
            )


def _all() -> Iterator[Scenario]:
    yield from _old_states()
    for (who, lsp_cheats), is_asleep in (
        (one, other) for one in (("buyer", False), ("LSP", True)) for other in (False, True)
    ):
        yield Scenario(
            name=f"after a sale, old commitment of the {who}{ASLEEP * is_asleep}",
            cheat=partial(old_commitment_on_new, lsp_cheats=lsp_cheats, is_asleep=is_asleep),
            happens="old commitment",
            clients=(2,),
        )
    for who, sleeping, below in (
        (LSP, NOBODY, ""),
        (LSP, TOO_LONG, ""),
        (BOTH, TOO_LONG, ""),
        (BOTH, TOO_LONG, "n"),
        (BOTH, ALLOWED, "n"),
    ):
        extra = " with its latest commitment" * bool(below)
        asleep = f", {sleeping} asleep" if sleeping else ""
        yield Scenario(
            name=f"rebase cut short by {who}{extra}{asleep}",
            cheat=partial(between, who=who, sleeping=sleeping, below=below),
            happens="kickoff",
            clients=(2,),
        )
    for state_index, below in ((0, ALONE), (0, TOGETHER), (1, ALONE), (1, TOGETHER)):
        extra = f" with {below}" * bool(below)
        yield Scenario(
            name=f"state {state_index} after two sales{extra}{ASLEEP}",
            cheat=partial(order_of_sales, state_index=state_index, below=below),
            happens="kickoff",
            clients=(2,),
            n_states=3,
        )
    for step in range(AFTER + 1):
        for buyer_cheats in (True, False):
            for lands in (OLD, NEWEST):
                if lands == NEWEST and step < COMMITTED:
                    continue
                yield _kickoff(step, buyer_cheats=buyer_cheats, lands=lands)


def _kickoff(step: int, *, buyer_cheats: bool, lands: int) -> Scenario:
    names = {BEFORE: "before the quote", AFTER: "after the sale"}
    when = names.get(step, f"at {STEPS[min(max(step, 1), len(STEPS)) - 1].__name__}")
    who = "buyer" if buyer_cheats else "leaf-mate"
    return Scenario(
        name=f"kickoff of the {who} {when}, {'newest' if lands else 'old'} state lands",
        cheat=partial(kickoff_at, step=step, buyer_cheats=buyer_cheats, lands=lands),
        happens="state",
        clients=(2,),
        markets=("low",),
        n_states=3,  # So the newest has a delay, and does not land as soon as it is signed.
    )


ADVANCE_SCENARIOS: Final = tuple(_all())
