"""Find what an operator means by the first digits of an id: a factory, or something else."""

from collections.abc import Iterable
from typing import Final

from cromford.daemon.api.failures import ApiFailure

PREFIX_MIN: Final = 4  # Hex digits that may stand for a whole id.


def find_factory(ids: Iterable[bytes], wanted: str) -> bytes:
    """Return the factory id that begins with these hex digits.

    Raises:
        ApiFailure: If none does, or more than one.
    """
    return find_id(ids, wanted, what="factory", many="factories", listed_by="factories")


def find_id(ids: Iterable[bytes], wanted: str, *, what: str, many: str, listed_by: str) -> bytes:
    """Return the id that begins with these hex digits.

    Args:
        ids: All that there are.
        wanted: The digits.
        what: What an id names, for errors.
        many: The same of several.
        listed_by: The command that lists them.

    Raises:
        ApiFailure: If none does, or more than one.
    """
    found = [i for i in ids if len(wanted) >= PREFIX_MIN and i.hex().startswith(wanted.lower())]
    if not found:
        raise ApiFailure(
            f"{what}_not_found",
            f"{what}_id: no {what} begins with {wanted!r}",
            remediation=f"List them with `{listed_by}`; at least {PREFIX_MIN} hex digits.",
            exit_code=4,
        )
    if len(found) > 1:
        raise ApiFailure(
            f"{what}_ambiguous",
            f"{what}_id: {len(found)} {many} begin with {wanted!r}",
            remediation="Give more digits.",
            exit_code=2,
        )
    return found[0]
