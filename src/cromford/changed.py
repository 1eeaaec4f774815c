"""A frozen value made of another: what a fold does for every record.

`dataclasses.replace` hands every field to the constructor, which sets each by name. For values of
many fields, made hundreds of times for a payment, that is most of what the fold costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

__all__ = ["changed"]

V = TypeVar("V")

if TYPE_CHECKING:
    from dataclasses import replace as changed  # Its names and types are checked as they are there.
else:

    def changed(value: V, **changes: Any) -> V:  # noqa: ANN401 - as `replace`
        """Return a value with some fields changed: what `dataclasses.replace` returns.

        Raises:
            TypeError: If there is no such field, or the class checks its values when it is made.
        """
        cls = type(value)
        shape = _shapes.get(cls) or _shape_of(cls)
        if not changes.keys() <= shape.setters.keys():
            unknown = ", ".join(sorted(changes.keys() - shape.setters.keys()))
            raise TypeError(f"{cls.__name__} has no {unknown}")
        made = object.__new__(cls)
        if shape.read is None:
            kept = made.__dict__
            kept.update(value.__dict__, **changes)
            # What is kept beside the fields was computed of the value before, and stays there.
            if len(kept) > len(shape.setters):
                for name in [name for name in kept if name not in shape.setters]:
                    del kept[name]
            return made
        for set_field, field_value in zip(shape.setters.values(), shape.read(value), strict=True):
            set_field(made, field_value)
        for name, field_value in changes.items():
            shape.setters[name](made, field_value)
        return made


class _Shape(NamedTuple):
    """The fields of a class by name, in order, and what sets them; `read` reads all of them.

    Where fields are in no slots, `read` is None and the setters are not used.
    """

    setters: Mapping[str, Callable[..., None]]
    read: Callable[[object], tuple[object, ...]] | None


_shapes: Final[dict[type, _Shape]] = {}  # No more than there are classes.


def _shape_of(cls: Any) -> _Shape:  # noqa: ANN401 - any dataclass
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} checks its values when it is made: use replace")
    names = [field.name for field in fields(cls)]
    if "__slots__" in vars(cls):  # Not those of a base: an abstract one has empty ones.
        # Of one name, `attrgetter` returns what is there and no tuple of it.
        read = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
        shape = _Shape({name: getattr(cls, name).__set__ for name in names}, read)
    else:
        shape = _Shape(dict.fromkeys(names, object.__setattr__), None)
    _shapes[cls] = shape
    return shape
