"""The check that most others are made of: a value is the expected one."""

from cromford.protocol.faults import Refusal


def check_equal(field: str, *, expected: object, received: object) -> None:
    """Refuse a difference.

    Raises:
        Refusal: Naming the field, with both values.
    """
    if expected != received:
        raise Refusal(field, expected=expected, received=received)
