"""Factories that die as people read them: how long is left, and what will happen."""

from typing import Any, Final

from rich.console import Console

from cromford.cli.shown.output import blocks, cell, msat, short
from cromford.told import counted

Document = dict[str, Any]
_ENDING: Final = {
    "dying": "dies: {left} to move out",
    "late": "is past its exit deadline: it expires in {left}",
    "expired": "expired",
}


def moving(console: Console, answer: Document) -> None:
    """Print how far a client has moved out of one factory."""
    told = _moving_text(answer["factory_id"], answer["moving"])
    console.print(cell(told), soft_wrap=True)


def ending(console: Console, factories: list[Document]) -> None:
    """Print of each factory that dies how long is left of it, and what will happen."""
    for factory in factories:
        told = ending_text(factory)
        if told is not None:
            console.print(cell(told, "bold yellow"), soft_wrap=True)


def ending_text(factory: Document) -> str | None:
    """Return what is to be said of a factory that dies; None of one that does not, or is over."""
    ends = _ENDING.get(factory.get("period") or "")
    is_over = factory.get("aborted") or factory.get("status", "live") not in {"live", "expired"}
    if ends is None or is_over:
        return None
    left = factory["blocks_to_next_period"]
    name = short(factory["factory_id"])
    told = f"factory {name} " + ends.format(left="" if left is None else blocks(left))
    client_moves = factory.get("moving")
    if client_moves is not None:
        return f"{told}; {_moving_text(factory['factory_id'], client_moves)}"
    clauses = [told]
    if factory.get("n_waiting") is not None:
        waiting, elsewhere = factory["n_waiting"], factory["n_elsewhere"]
        clauses.append(
            f"of its {counted(factory['n_clients'], 'client')} "
            f"{counted(waiting, 'waits', 'wait')} for the next one and "
            f"{counted(elsewhere, 'has', 'have')} a channel there"
        )
    return "; ".join([*clauses, *map(_step_text, factory.get("when_dying", ()))])


def _step_text(step: Document) -> str:
    begins, ends = step["from_height"], step["to_height"]
    if begins is None:
        return str(step["what"])
    until = "" if ends is None else f" to {ends:,}"
    return f"from height {begins:,}{until} {step['what']}"


def _moving_text(factory_id: str, moves: Document) -> str:
    """Return how far a client has moved out of a factory, in one clause."""
    to, name = moves["to_factory_id"], short(factory_id)
    target = "" if to is None else f" to factory {short(to)}"
    told = {
        "moved": f"moved {msat(moves['moved_msat'])} from factory {name}{target}",
        "paying": f"moving {msat(moves['left_msat'])} from factory {name}{target}",
        "waiting": "moves by itself",
        "staying": "stays",
        "over": "does not move",
    }[moves["status"]]
    return f"{told}: {moves['why']}" if moves["why"] else told
