"""The ceremonies as scripts: a world, what happens in it, and what everybody has in the end."""

import random
from collections.abc import Callable
from typing import Any, Final

from cromford.protocol import events as ev
from tests.drill.points import LSP, Ceremony, Scene, drilled
from tests.protocol.advances import (
    ADVANCING,
    check_nothing_is_left,
    check_payments_work,
    connect_again,
    leaf_of,
    settle,
)
from tests.protocol.closes import QUICK as CLOSING
from tests.protocol.closes import (
    ask_for_close,
    check_all_is_paid,
    check_nobody_is_stuck,
    finished,
    give_money,
    links,
)
from tests.protocol.exit_accounts import Books
from tests.protocol.exits import (
    Ended,
    ExitPump,
    Story,
    _come_to_rest,
    _give_everybody_something,
    all_links,
    ask_to_leave,
)
from tests.protocol.ladders import DEPTH, FEERATES, build_with, candidates
from tests.protocol.money import Auditor
from tests.protocol.movers import BALANCE_MSAT, DYING_SOON, HastyPump, World
from tests.protocol.paying_clients import POLICY, book, make_invoice, newest_link, open_factory, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import QUICK as RESTORING
from tests.protocol.restoring import coins_sat, live_through, put_back
from tests.protocol.shoppers import ask_price, buy_what_is_quoted
from tests.protocol.sleepers import SleepyNode
from tests.protocol.test_closing_crashes import check_the_next_one_is_finished
from tests.protocol.test_restart import check_afterwards, pass_deadlines
from tests.simulation.sim_node import Crash, SimNode

AMOUNT_MSAT: Final = 4_000_000
SOLD_SAT: Final = 30_000
REST_BLOCKS: Final = 8
MOVE_BLOCKS: Final = 3
LEAVE_STORY: Final = Story(
    leavers="client", client=0, gone=None, accidents=0.0, reorgs=0.0, trades=0.0
)


def audited(pump: Pump) -> Scene:
    """Return a scene in which every record and every millisatoshi is accounted for."""
    return Scene(pump=pump, audit=Auditor(pump.lsp, pump.clients, kernel_rate=0.02))


def with_money(policy: Any, kind: type[Pump] = Pump, **kinds: type[PumpNode]) -> Pump:
    """Return a live factory of two clients who have something, and who die where a drill says."""
    pump = drilled(kind, **kinds)(2, policy=policy)
    open_factory(pump)
    give_money(pump)
    return pump


def guarded(pump: Pump, node: PumpNode, act: Callable[[], object]) -> None:
    """Do something in a node's process that is no event; one that dies of it comes back."""
    try:
        act()
    except Crash:
        pump.restart(node)


# Opening


def begin_opening() -> Scene:
    """Return clients and their LSP, connected."""
    return Scene(pump=drilled(Pump)(2))


def open_one(scene: Scene) -> None:
    """Let everybody join, and build."""
    pump = scene.pump
    pump.join()
    pump.build()
    pump.run()


def until_funded(pump: Pump, ask: Callable[[], None]) -> str:
    """Let deadlines pass until there is a factory; whoever forgot a wish makes it again."""
    n_asked = 0
    outcome = "funded" if pump.is_funded() else "funded when asked again"
    while not pump.is_funded():
        assert n_asked < 4, "an honest ceremony ends in a factory"
        n_asked += 1
        pump.join_again()
        if pump.lsp.state.open_attempt is None and pump.lsp.state.house.build is None:
            ask()
        pump.run()
        pass_deadlines(pump)
    return outcome


def end_opening(scene: Scene) -> str:
    """Wait for the factory, and bury its funding."""
    pump = scene.pump
    outcome = until_funded(pump, pump.build)
    pump.mine(pump.policy.min_depth)
    check_afterwards(pump)
    return outcome


# A funding with several candidates, which is replaced


def build_ladder(scene: Scene) -> None:
    """Let everybody join with keys for each candidate; sign all of them, and replace the first."""
    pump = scene.pump
    pump.join()
    ask_for_ladder(pump)
    pump.run()
    replace_funding(pump)


def ask_for_ladder(pump: Pump) -> None:
    """Let the operator ask for keys, and build once everybody brought them."""
    pump.handle(pump.lsp, ev.LadderRequested(n_candidates=len(FEERATES)))
    pump.run()
    pump.handle(pump.lsp, build_with())


def replace_funding(pump: Pump) -> None:
    """Let the operator publish the next candidate of a funding, if there is one that waits."""
    if pump.is_funded():
        asked = ev.FundingReplaceRequested(attempt_id=pump.attempt.attempt_id, rung=None)
        pump.handle(pump.lsp, asked)
        pump.run()


def end_ladder(scene: Scene) -> str:
    """Wait for the factory; what is highest of its fundings is mined."""
    pump = scene.pump
    outcome = until_funded(pump, lambda: ask_for_ladder(pump))
    while pump.attempt.published < len(FEERATES) - 1:
        replace_funding(pump)
    assert pump.chain.mempool.keys() == {candidates(pump)[-1].txid}
    pump.mine(DEPTH)
    assert pump.attempt.rung == len(FEERATES) - 1
    held = [client.state.attempts.get(pump.attempt.attempt_id) for client in pump.clients]
    assert all(one.rung == pump.attempt.rung for one in held if one is not None)
    assert any(held)
    check_afterwards(pump)
    return outcome


# A payment


def begin_payment() -> Scene:
    """Return a live factory with two clients who have something."""
    return audited(with_money(POLICY))


def pay_one(scene: Scene) -> None:
    """Let the first client pay the second."""
    pump = scene.pump
    payer, payee = pump.clients
    scene.kept["request"] = make_invoice(pump, payee, AMOUNT_MSAT)
    pump.handle(payer, scene.kept["request"])
    pump.run()
    pump.pass_holds()


def end_payment(scene: Scene) -> str:
    """Ask again for what was forgotten, and wait until it is over."""
    pump, request = scene.pump, scene.kept["request"]
    payer, payee = pump.clients
    again = ""
    for _ in range(REST_BLOCKS):
        connect_again(pump)
        pump.run()
        if request.payment_hash not in book(payee).invoices:
            request, again = make_invoice(pump, payee, AMOUNT_MSAT), " when asked again"
        if request.payment_hash not in book(payer).payments:
            pump.handle(payer, request)
            again = " when asked again"
        pump.run()
        if book(payer).payments[request.payment_hash].status != "pending":
            break
        pump.mine()
    status = book(payer).payments[request.payment_hash].status
    check_payments_work(pump, 1, 2)
    return f"{status}{again}"


# A sale


def begin_sale() -> Scene:
    """Return a factory whose clients share a leaf."""
    return audited(with_money(ADVANCING))


def buy_one(scene: Scene) -> None:
    """Let the first client ask for a price, and buy."""
    pump = scene.pump
    buyer = pump.clients[0]
    ask_price(handling(pump), buyer, SOLD_SAT)
    pump.run()
    buy_what_is_quoted(handling(pump), buyer)
    pump.run()


def handling(pump: Pump) -> Callable[[SimNode, ev.Event], None]:
    """Return what lets anybody of a pump handle an event."""

    def handle(node: SimNode, event: ev.Event) -> None:
        assert isinstance(node, PumpNode)
        pump.handle(node, event)

    return handle


def end_sale(scene: Scene) -> str:
    """Let everybody come back: it is sold for all of the leaf, or for nobody."""
    pump = scene.pump
    settle(pump)
    check_nothing_is_left(pump)
    assert not any(client.state.purchases for client in pump.clients)
    n_states = {len(leaf_of(pump, seat).states) for seat in (1, 2)}
    n_states |= {len(pump.held(client).leaf.states) for client in pump.clients}
    (n,) = n_states
    check_payments_work(pump, 1, 2)
    return "bought" if n > 1 else "not bought"


# A cooperative close


def begin_close() -> Scene:
    """Return a factory whose clients have something."""
    return Scene(pump=with_money(CLOSING))


def close_one(scene: Scene) -> None:
    """Let the operator close, and find the block that has it."""
    pump = scene.pump
    scene.kept["due"] = {
        seat: link.state.accepter_msat // 1000 for seat, (link, _) in links(pump).items()
    }
    ask_for_close(pump)
    pump.run()
    pump.mine(1)


def end_close(scene: Scene) -> str:
    """Check that it is closed for everybody, or for nobody; then the next one is."""
    pump = scene.pump
    connect_again(pump)
    pump.run()
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    n_finished = {len(finished(one)) for one in (pump.lsp, *pump.clients)}
    assert n_finished in ({0}, {1}), n_finished
    if n_finished == {0}:
        check_the_next_one_is_finished(pump)
    pump.mine(2)
    for seat, due_sat in scene.kept["due"].items():
        assert coins_sat(pump.client_at(seat)) == due_sat, f"client {seat} is not paid what is due"
    return "closed" if n_finished == {1} else "closed when asked again"


# Handing keys over


def begin_handover() -> Scene:
    """Return clients of a factory that dies, with channels in the next."""
    pump = drilled(HastyPump)(2, policy=DYING_SOON)
    open_factory(pump)
    old = pump.factory
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, BALANCE_MSAT).status == "paid"
    pump.mine(DYING_SOON.active_blocks)
    pump.join()
    pump.build()
    pump.run()
    pump.mine(DYING_SOON.min_depth)
    return Scene(pump=pump, kept={"world": World(pump, old)})


def move_one(scene: Scene) -> None:
    """Let the first client move; a block later it hands its keys over."""
    pump, world = scene.pump, scene.kept["world"]
    pump.handle(pump.clients[0], ev.MoveRequested(attempt_id=world.old_id))
    pump.run()
    pump.mine(MOVE_BLOCKS)


def end_handover(scene: Scene) -> str:
    """See that all of it moved, and that the LSP has the keys; whoever forgot it is asked again."""
    pump, world = scene.pump, scene.kept["world"]
    mover = pump.clients[0]
    outcome = "moved"
    for _ in range(REST_BLOCKS):
        connect_again(pump)
        pump.run()
        if world.attempt(mover).keys_taken:
            break
        if world.link(mover).state.accepter_msat and not world.attempt(mover).is_retired:
            pump.handle(mover, ev.MoveRequested(attempt_id=world.old_id))
            outcome = "moved when asked again"
        pump.run()
        pump.mine()
    assert world.attempt(mover).keys_taken, "the keys are not handed over"
    assert world.new_link(mover).state.accepter_msat == BALANCE_MSAT, "not all of it moved"
    assert world.factory.held_keys == {world.seat(mover)}
    kept = pump.lsp.handed_over_keys.entries[world.old.number, world.seat(mover)]
    assert kept.factory_pubkey == world.old.attempt.seats[world.seat(mover) - 1].factory_pubkey
    return outcome


# Leaving


def begin_exit() -> Scene:
    """Return a factory whose clients have something."""
    pump = drilled(ExitPump)(0, n_clients=2)
    _give_everybody_something(pump, random.Random("exit"))
    return Scene(pump=pump)


def leave_one(scene: Scene) -> None:
    """Let the first client leave, and find blocks until its coin is in its wallet."""
    pump = scene.pump
    assert isinstance(pump, ExitPump)
    ask_to_leave(pump, LEAVE_STORY.leavers, pump.clients[0])
    pump.run()
    pump.mine(max(link.exit_blocks for link in all_links(pump)) + 10)


def end_exit(scene: Scene) -> str:
    """Draw up the accounts by the chain; whoever forgot the wish makes it again."""
    pump = scene.pump
    assert isinstance(pump, ExitPump)
    outcome = "left"
    if not pump.held(pump.clients[0]).is_exiting:
        leave_one(scene)
        outcome = "left when asked again"
    _come_to_rest(pump)
    books = Books(Ended(pump=pump, story=LEAVE_STORY))
    books.check()
    assert books.settled[0].commitment is not None, "its channel is not on chain"
    return outcome


# A restored store


def begin_restore() -> Scene:
    """Return clients with a past, and a backup of the first one that lacks its newest update."""
    pump = drilled(Pump)(2, policy=RESTORING)
    open_factory(pump)
    past = live_through(pump, [-2_000_000, 3_000_000])
    return Scene(pump=pump, kept={"past": past})


def restore_one(scene: Scene) -> None:
    """Let the first client lose its store and put back an older one; then all is closed."""
    pump, past = scene.pump, scene.kept["past"]
    client = pump.clients[0]
    for one in pump.clients:
        pump.disconnect(one)
    client.die()
    put_back(client, past.alice[-2])
    guarded(pump, client, client.start)
    connect_again(pump)
    pump.run()
    ask_for_close(pump)
    pump.run()
    pump.mine(1)


def end_restore(scene: Scene) -> str:
    """Check that everybody is paid the balance of the store that lost nothing."""
    pump, past = scene.pump, scene.kept["past"]
    alice, bob = pump.clients
    bob_sat = newest_link(bob).state.accepter_msat // 1000
    connect_again(pump)
    pump.run()
    n_finished = len(finished(pump.lsp))
    if not n_finished:
        ask_for_close(pump)
        pump.run()
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    pump.mine(3)
    assert coins_sat(alice) == past.alice_msat[-1] // 1000
    assert coins_sat(bob) == bob_sat
    return "closed" if n_finished else "closed when asked again"


# Sleeping and waking


def begin_sleep() -> Scene:
    """Return a factory with an LSP that lets it sleep at every chance."""
    return audited(with_money(POLICY, lsp_kind=SleepyNode))


def sleep_one(scene: Scene) -> None:
    """Let everybody go, and the factory sleep; blocks pass, they come back, and one pays."""
    pump = scene.pump
    for client in pump.clients:
        pump.disconnect(client)
    guarded(pump, pump.lsp, pump.lsp.checkpoint)
    pump.mine(2)
    for client in pump.clients:
        if client.name not in pump.links:
            pump.connect(client)
    pump.run()
    pay_one(scene)


CEREMONIES: Final = (
    Ceremony(
        name="opening",
        set_up=begin_opening,
        play=open_one,
        end=end_opening,
        outcomes=frozenset({"funded", "funded when asked again"}),
    ),
    Ceremony(
        name="ladder",
        set_up=begin_opening,
        play=build_ladder,
        end=end_ladder,
        outcomes=frozenset({"funded", "funded when asked again"}),
    ),
    Ceremony(
        name="payment",
        set_up=begin_payment,
        play=pay_one,
        end=end_payment,
        outcomes=frozenset({"paid", "paid when asked again", "failed"}),
        roles=(LSP, "0", "1"),
    ),
    Ceremony(
        name="sale",
        set_up=begin_sale,
        play=buy_one,
        end=end_sale,
        outcomes=frozenset({"bought", "not bought"}),
        roles=(LSP, "0", "1"),
    ),
    Ceremony(
        name="close",
        set_up=begin_close,
        play=close_one,
        end=end_close,
        outcomes=frozenset({"closed", "closed when asked again"}),
    ),
    Ceremony(
        name="handover",
        set_up=begin_handover,
        play=move_one,
        end=end_handover,
        outcomes=frozenset({"moved", "moved when asked again"}),
        roles=(LSP, "0", "1"),
    ),
    Ceremony(
        name="exit",
        set_up=begin_exit,
        play=leave_one,
        end=end_exit,
        outcomes=frozenset({"left", "left when asked again"}),
    ),
    Ceremony(
        name="restore",
        set_up=begin_restore,
        play=restore_one,
        end=end_restore,
        outcomes=frozenset({"closed", "closed when asked again"}),
    ),
    Ceremony(
        name="sleep",
        set_up=begin_sleep,
        play=sleep_one,
        end=end_payment,
        outcomes=frozenset({"paid", "paid when asked again", "failed"}),
    ),
)
