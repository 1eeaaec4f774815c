"""What a client checks of its channel, at the boundary: enough is enough, a satoshi less is not.

Each check is called as the ceremony calls it, with what another rule would not let through.
"""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.forge import Victim, scene

from cromford.channel.terms import HTLCS_MAX, MSAT_PER_SAT, Party
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.first_commitments import channel_terms_of, least_capacity_sat
from cromford.protocol.opening.verification_channel import (
    check_capacity,
    check_first_commitments,
)


def test_the_least_capacity_is_enough_and_a_satoshi_less_is_not() -> None:
    terms = scene().attempt.terms
    least_sat = least_capacity_sat(channel_terms_of(terms))
    check_capacity(terms, least_sat)
    with pytest.raises(Refusal) as caught:
        check_capacity(terms, least_sat - 1)
    refusal = caught.value
    assert (refusal.field, refusal.received) == ("capacity_sat", least_sat - 1)


def test_a_channel_that_cannot_be_moved_out_of_in_one_payment_is_refused() -> None:
    terms = scene().attempt.terms
    all_msat = terms.capacity_sat[0] * MSAT_PER_SAT
    check_capacity(replace(terms, max_in_flight_msat=all_msat), terms.capacity_sat[0])
    with pytest.raises(Refusal) as caught:
        check_capacity(replace(terms, max_in_flight_msat=all_msat - 1), terms.capacity_sat[0])
    refusal = caught.value
    assert (refusal.field, refusal.received) == ("max_in_flight_msat", all_msat - 1)


def test_terms_that_no_channel_can_have_are_refused_by_the_name_of_the_term() -> None:
    terms = replace(scene().attempt.terms, max_accepted_htlcs=HTLCS_MAX + 1)
    with pytest.raises(Refusal) as caught:
        check_capacity(terms, terms.capacity_sat[0])
    refusal = caught.value
    assert (refusal.field, refusal.received) == ("max_accepted_htlcs", HTLCS_MAX + 1)


@pytest.mark.parametrize("holder", Party)
def test_a_channel_of_which_a_first_commitment_cannot_be_built_is_refused(holder: Party) -> None:
    victim = Victim()
    victim.hear(scene().propose)
    channel = victim.attempt.candidate.setting
    check_first_commitments(channel)
    name = "lsp" if holder is Party.OPENER else "client"
    offer = replace(channel.offer_of(holder), first_per_commitment_point=bytes(33))
    changes: dict[str, Any] = {name: offer}
    with pytest.raises(Refusal) as caught:
        check_first_commitments(replace(channel, **changes))
    assert caught.value.field == f"commitment_{holder.name.lower()}"
