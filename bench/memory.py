"""One process as if it were several: each participant finds again only what it computed itself.

Functions of the product that remember their results do so for a whole process. Where several
participants share a process, one would get for nothing what another has paid for.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

_Remembering: Final = functools._lru_cache_wrapper  # noqa: SLF001 - the type has no public name
PACKAGE: Final = "cromford"


class OwnMemory:
    """What one participant's process would remember."""

    _used: ClassVar["OwnMemory | None"] = None

    def __init__(self) -> None:
        own: dict[Any, Callable[..., Any]] = {}
        self._places: list[tuple[dict[str, Any], str, Callable[..., Any]]] = []
        for names, name, function in _remembering_functions():
            if function not in own:
                parameters = function.cache_parameters()
                own[function] = functools.lru_cache(**parameters)(function.__wrapped__)
            self._places.append((names, name, own[function]))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use this memory, and nobody else's, inside the block; nothing is done if it is in use."""
        if OwnMemory._used is self:
            yield
            return
        others, OwnMemory._used = OwnMemory._used, self
        before = [names[name] for names, name, _ in self._places]
        for names, name, function in self._places:
            names[name] = function
        try:
            yield
        finally:
            OwnMemory._used = others
            for (names, name, _), function in zip(self._places, before, strict=True):
                names[name] = function


def _remembering_functions() -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield every place that names such a function: the module's names, the name, the function."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == PACKAGE:
            names = vars(module)
            for name, value in list(names.items()):
                if isinstance(value, _Remembering):
                    yield names, name, value
