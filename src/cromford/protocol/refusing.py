"""The two checks that most others are made of: a value is the expected one, or in a range."""

from cromford import told
from cromford.protocol.faults import Refusal


def check_equal(field: str, *, expected: object, received: object) -> None:
    """Refuse a difference.

    Raises:
        Refusal: Naming the field, with both values.
    """
    if expected != received:
        raise Refusal(field, expected=expected, received=received)


def check_range(field: str, limits: tuple[int, int], received: int) -> None:
    """Refuse a value outside an inclusive range.

    Raises:
        Refusal: Naming the field and the range.
    """
    if not limits[0] <= received <= limits[1]:
        least, most = (told.shown(field, limit) for limit in limits)
        raise Refusal(field, expected=f"{least}..{most}", received=received)
