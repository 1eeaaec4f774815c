"""A process dies at every point of a ceremony, and everybody ends well all the same.

A ceremony is a script over a pump. A point of it is a role and a number: of all that one role
appends and does, in order, it dies before or after the n-th. Its journal is all that survives.
Worlds are made once: each point is played in a child of this process, which begins where the
world stands, and ends with a word about how the ceremony ended.
"""

import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from cromford import effects as fx
from cromford.protocol import events as ev
from tests.protocol.money import Auditor
from tests.protocol.pump import LingeringNode, Pump, PumpNode
from tests.simulation.sim_node import Crash, durable

NEVER: Final = 1 << 30
OUTCOME_SIZE_MAX: Final = 4096
LSP: Final = "lsp"


class DrillNode(LingeringNode):
    """A participant that dies before or after each append, checkpoint, and effect.

    And, as its records wait for others, with those that are not written yet.
    """

    def _effect(self, effect: fx.Performed) -> Iterable[ev.Event]:
        if self._crashes():
            raise Crash
        caused = [*self.perform(effect)]
        if self._crashes():
            raise Crash
        return caused


P = TypeVar("P", bound=Pump)


def drilled(pump: type[P], **kinds: type[PumpNode]) -> type[P]:
    """Return a kind of pump whose participants die at more points than its own do."""
    lsp = kinds.get("lsp_kind", pump.lsp_kind)
    client = kinds.get("client_kind", pump.client_kind)
    made = type(
        f"Drilled{pump.__name__}",
        (pump,),
        {
            "lsp_kind": type("DrillLsp", (DrillNode, lsp), {}),
            "client_kind": type("DrillClient", (DrillNode, client), {}),
        },
    )
    return cast("type[P]", made)


@dataclass(kw_only=True)
class Scene:
    """Where a ceremony takes place: a pump, what a script keeps, and what must not be lost."""

    pump: Pump
    kept: dict[str, Any] = field(default_factory=dict)
    audit: Auditor | None = None

    def node(self, role: str) -> PumpNode:
        """Return who plays a role: `lsp`, or a client by its place."""
        return self.pump.lsp if role == LSP else self.pump.clients[int(role)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """A script.

    Attributes:
        name: What it is called.
        set_up: Makes the world in which it takes place.
        play: Plays it. Whoever dies comes back at once, and nobody asks for anything again.
        end: Brings everybody to rest, checks what the ceremony owes, and names how it ended.
        outcomes: All that it may end like.
        roles: Who dies.
    """

    name: str
    set_up: Callable[[], Scene]
    play: Callable[[Scene], None]
    end: Callable[[Scene], str]
    outcomes: frozenset[str]
    roles: tuple[str, ...] = (LSP, "0")


@dataclass(frozen=True, slots=True)
class Point:
    """Where somebody dies: after so many steps of one role."""

    ceremony: str
    role: str
    step: int

    def __str__(self) -> str:
        return f"{self.ceremony}:{self.role}:{self.step}"


class PointFailed(AssertionError):
    """Something did not end well; the message names the point, and says what."""


def n_points(ceremony: Ceremony, scene: Scene, role: str) -> int:
    """Return at how many points of a ceremony a role can die."""

    def counted() -> str:
        node = scene.node(role)
        node.fuse = NEVER
        ceremony.play(scene)
        assert node.fuse is not None, "nobody dies here"
        return str(NEVER - node.fuse)

    return int(in_a_child(counted, f"{ceremony.name}:{role}"))


def outcome_at(ceremony: Ceremony, scene: Scene, role: str, step: int) -> str:
    """Return how a ceremony ends in which a role dies at a step.

    Raises:
        PointFailed: If it does not end well.
    """

    def played() -> str:
        node = scene.node(role)
        node.fuse = step
        ceremony.play(scene)
        assert node.n_deaths == 1, f"expected one death, received {node.n_deaths}"
        outcome = ceremony.end(scene)
        assert outcome in ceremony.outcomes, f"an outcome without a name: {outcome}"
        check_all(scene)
        return outcome

    return in_a_child(played, str(Point(ceremony.name, role, step)))


def check_all(scene: Scene) -> None:
    """Check what no death may break, whatever the ceremony; nonces are watched by the signers."""
    pump = scene.pump
    for node in (pump.lsp, *pump.clients):
        node.settle()
        node._fold = None  # From the first record on.
        assert durable(node.durable_state()) == durable(node.state), f"{node.name}: another fold"
        check_one_sighash_for_each_thing(pump, node)
    if scene.audit is not None:
        scene.audit.read()
        scene.audit.check_rest()


def check_one_sighash_for_each_thing(pump: Pump, node: PumpNode) -> None:
    """Check that of all that a node signed together with others nothing was signed differently.

    Judged by what was asked of its signer, in all its lives, and by nothing that it remembers. What
    has one name in the candidates of a fee ladder is asked for at once, the lowest first.
    """
    signed: dict[tuple[bytes, bytes, bytes, str, int], bytes] = {}
    for effect in pump.wishes(node, fx.PartialSign):
        named: Counter[str] = Counter()
        for request in effect.requests:
            name = request.task.name
            thing = (effect.attempt_id, effect.close_id, effect.advance_id, name, named[name])
            named[name] += 1
            sighash = signed.setdefault(thing, request.task.sighash)
            assert sighash == request.task.sighash, f"{node.name}: two sighashes for {thing[3]}"


def in_a_child(work: Callable[[], str], what: str) -> str:
    """Return what some work says that is done in a child of this process; all else is undone.

    Raises:
        PointFailed: If it failed.
    """
    sys.stdout.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _do_and_leave(work, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        said = told.read()
    os.waitpid(child, 0)
    is_done, _, outcome = said.partition("\n")
    if is_done != "done":
        raise PointFailed(f"{what}: {outcome or 'the child died'}")
    return outcome


def _do_and_leave(work: Callable[[], str], writing: int) -> None:
    """Do some work, say what it says, and end this process without any of its clean-up."""
    said = "failed\nnothing was said"
    try:
        said = f"done\n{work()}"
    except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
        said = f"failed\n{traceback.format_exc()}"
    finally:
        with os.fdopen(writing, "w", encoding="utf-8") as told:
            told.write(said)
        os._exit(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a ceremony, at all points of one role."""

    ceremony: str
    role: str
    n_points: int
    outcomes: dict[str, int]

    def line(self) -> str:
        """Return it in one line."""
        told = ", ".join(f"{outcome} {n}" for outcome, n in sorted(self.outcomes.items()))
        return f"{self.ceremony:24}{self.role:8}{self.n_points:6} points: {told}"


def sampled(n_sampled: int, *, seed: int) -> Callable[[int], Sequence[int]]:
    """Return what chooses some of so many points, by a seed."""

    def choose(n_all: int) -> Sequence[int]:
        dice = random.Random(f"points {n_all} {seed}")
        return sorted(dice.sample(range(1, n_all + 1), min(n_all, n_sampled)))

    return choose


def all_of(n_all: int) -> Sequence[int]:
    """Return every point."""
    return range(1, n_all + 1)


def run_ceremony(
    ceremony: Ceremony, *, choose: Callable[[int], Sequence[int]] = all_of
) -> Iterator[Result]:
    """Let each role of a ceremony die at all points, or at some that are chosen of so many.

    Raises:
        PointFailed: At the first that does not end well.
    """
    scene = ceremony.set_up()
    for role in ceremony.roles:
        n = n_points(ceremony, scene, role)
        steps = choose(n)
        outcomes = Counter(outcome_at(ceremony, scene, role, step) for step in steps)
        yield Result(
            ceremony=ceremony.name, role=role, n_points=len(steps), outcomes=dict(outcomes)
        )
