"""Which factory was built before by an external id: told of once more, and built once."""

from cromford.bitcoin.fees import sat_per_vb
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol.journal.entries import DEAD
from cromford.protocol.journal.gathered import CalledBuild
from cromford.protocol.journal.house import House


def called_before(
    house: House,
    external_id: str,
    *,
    min_clients: int | None,
    max_clients: int | None,
    feerates_sat_per_kw: tuple[int, ...],
) -> CalledBuild | None:
    """Return the build that has this id, whose factory's funding is signed; None if none has.

    Args:
        house: The house.
        external_id: The id; empty for none. One of which nothing came is free again.
        min_clients: The fewest clients, as it is asked for now; None for whatever it was.
        max_clients: The most, likewise.
        feerates_sat_per_kw: Of the fee ladder, as it is asked for now.

    Raises:
        ApiFailure: If it is under way, was asked for otherwise, or its factory was given up.
    """
    if not external_id:
        return None
    if house.build is not None and house.build.external_id == external_id:
        raise ApiFailure(
            "build_under_way",
            f"external_id: the factory of {external_id!r} is being built",
            retryable=True,
            remediation="Ask again, with the same: it is not built a second time.",
        )
    called = house.built_as(external_id)
    if called is None:
        return None
    asked = (
        ("min_clients", called.min_clients, min_clients),
        ("max_clients", called.max_clients, max_clients),
        ("funding_feerates", *map(_told, (called.feerates_sat_per_kw, feerates_sat_per_kw))),
    )
    for field, expected, received in asked:
        if received not in {None, expected}:
            raise ApiFailure(
                "external_id_taken",
                f"external_id: {external_id!r} is that of another build: {field}: "
                f"expected {expected}, received {received}",
                remediation="Give each build an id of its own.",
            )
    entry, factory_id = house.entries[called.attempt_id], called.attempt_id.hex()
    if entry.status == DEAD or entry.replacement is not None:
        raise ApiFailure(
            "factory_abandoned" if entry.replacement is not None else "factory_dead",
            f"external_id: {external_id!r} is that of factory {factory_id}, which came to nothing",
            remediation="Look at it with `lsp factory show`; build again by another id.",
        )
    return called


def _told(feerates_sat_per_kw: tuple[int, ...]) -> str:
    rates = ", ".join(f"{sat_per_vb(one)}" for one in feerates_sat_per_kw)
    return f"{rates} sat/vB" if rates else "the daemon's one"
