"""Find the factory an operator means by the first digits of its id."""

from collections.abc import Iterable
from typing import Final

from cromford.daemon.api.rpc import RpcFailure

PREFIX_MIN: Final = 4  # Hex digits that may stand for a factory's whole id.


def find_factory(ids: Iterable[bytes], wanted: str) -> bytes:
    """Return the factory id that begins with these hex digits.

    Raises:
        RpcFailure: If none does, or more than one.
    """
    found = [i for i in ids if len(wanted) >= PREFIX_MIN and i.hex().startswith(wanted.lower())]
    if not found:
        raise RpcFailure(
            "factory_not_found",
            f"factory_id: no factory begins with {wanted!r}",
            remediation=f"List them with `factories`; at least {PREFIX_MIN} hex digits.",
            exit_code=4,
        )
    if len(found) > 1:
        raise RpcFailure(
            "factory_ambiguous",
            f"factory_id: {len(found)} factories begin with {wanted!r}",
            remediation="Give more digits.",
            exit_code=2,
        )
    return found[0]
