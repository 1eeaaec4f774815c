"""A frozen value made of another: what a fold does for every record.

`dataclasses.replace` hands every field to the constructor, which sets each by name. For values of
many fields, made hundreds of times for a payment, that is most of what the fold costs. Of a value
in slots each field is set by its name here, too, so those that are changed often are in none.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

__all__ = ["changed", "computed"]

V = TypeVar("V")

if TYPE_CHECKING:
    from dataclasses import replace as changed  # Its names and types are checked as they are there.
    from functools import cached_property as computed
else:

    class computed:  # noqa: N801 - as `cached_property`
        """A property that is computed once, and kept beside the fields of its value.

        What `functools.cached_property` is from Python 3.12 on; before, one lock was taken for all
        values of a class. Two threads may compute the same.
        """

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, _owner: type, name: str) -> None:
            self._name = name

        def __get__(self, value: object | None, _owner: type | None = None) -> Any:  # noqa: ANN401 - what it computes
            if value is None:
                return self
            found = value.__dict__[self._name] = self._compute(value)
            return found

    def changed(value: V, **changes: Any) -> V:  # noqa: ANN401 - as `replace`
        """Return a value with some fields changed: what `dataclasses.replace` returns.

        Raises:
            TypeError: If there is no such field, or the class checks its values when it is made.
        """
        cls = type(value)
        setters, read, set_dict = _shapes.get(cls) or _shape_of(cls)
        made = object.__new__(cls)
        if read is None:
            # A copy shares its keys with the dicts of all such values: an update would hash each.
            kept = value.__dict__.copy()
            kept.update(changes)
            if len(kept) > len(setters):
                # What is kept beside the fields was computed of the value before: it stays there.
                _check_names(cls, changes, setters)
                for name in kept.keys() - setters.keys():
                    del kept[name]
            set_dict(made, kept)
            return made
        _check_names(cls, changes, setters)
        for set_field, field_value in zip(setters.values(), read(value), strict=True):
            set_field(made, field_value)
        for name, field_value in changes.items():
            setters[name](made, field_value)
        return made


def _check_names(cls: type, changes: Mapping[str, object], known: Mapping[str, object]) -> None:
    if not changes.keys() <= known.keys():
        unknown = ", ".join(sorted(changes.keys() - known.keys()))
        raise TypeError(f"{cls.__name__} has no {unknown}")


class _Shape(NamedTuple):
    """The fields of a class by name, in order, and what sets them; `read` reads all of them.

    Where fields are in no slots, `read` is None and `set_dict` sets all of them: the setters are
    not used.
    """

    setters: Mapping[str, Callable[..., None]]
    read: Callable[[object], tuple[object, ...]] | None
    set_dict: Callable[..., None] = object.__setattr__


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
        place = next(vars(base)["__dict__"] for base in cls.__mro__ if "__dict__" in vars(base))
        shape = _Shape(dict.fromkeys(names, object.__setattr__), None, place.__set__)
    _shapes[cls] = shape
    return shape
