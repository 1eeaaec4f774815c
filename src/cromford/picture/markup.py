"""Markup, kept apart from text: what is not `Markup` is escaped before it becomes some."""

from collections.abc import Iterable
from html import escape
from typing import NewType

Markup = NewType("Markup", str)


def escaped(text: str) -> Markup:
    """Return text as markup: a peer may have written it.

    What XML forbids, and what would turn the direction of a line, becomes a question mark.
    """
    return Markup(escape("".join(c if c.isprintable() else "?" for c in text), quote=True))


def element(name: str, *children: Markup, **attributes: str | float) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        children: Markup, one after the other.
        attributes: Their values are escaped. An underscore in a name stands for a hyphen, and at
            its end for nothing, as in `class_`.
    """
    told = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    if not children:
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{joined(children)}</{name}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Return some markup, one after the other."""
    return Markup("".join(parts))


def words(name: str, text: str, **attributes: str | float) -> Markup:
    """Return an element that holds text."""
    return element(name, escaped(text), **attributes)


def _value(value: str | float) -> str:
    if isinstance(value, float):
        # Two decimals are finer than any screen, and the same on every machine.
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escaped(str(value))
