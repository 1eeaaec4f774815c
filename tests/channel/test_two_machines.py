"""Two machines, any order of acts, any break of the connection: nothing is lost or made up."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.channel import specimen
from tests.channel.duet import Duet

from cromford.channel.claims import penalty_claims
from cromford.channel.errors import UpdateRefused
from cromford.channel.limits import is_overexposed
from cromford.channel.stage import Edition
from cromford.channel.terms import ChannelTerms, Party

parties = st.sampled_from(Party)
# Around the dust limits, and large enough to hit balance and in-flight limits.
amounts = st.one_of(
    st.integers(1, 1_200_000), st.integers(1_000_000, 9_000_000), st.integers(10**8, 5 * 10**8)
)
REFUSALS = {
    "amount_msat",
    "max_accepted_htlcs",
    "max_htlc_value_in_flight_msat",
    "max_dust_htlc_exposure_msat",
    "channel_reestablish",
}


class TwoMachines(RuleBasedStateMachine):
    duet: Duet

    @initialize(
        feerate=st.sampled_from((0, 500)),
        accepter_msat=st.sampled_from((0, 400_000_000, 980_000_001)),
    )
    def open(self, feerate: int, accepter_msat: int) -> None:
        terms = ChannelTerms(
            feerate_per_kw=feerate,
            to_self_delay_opener=144,
            to_self_delay_accepter=432,
            max_accepted_htlcs=4,
            max_in_flight_msat=600_000_000,
        )
        self.duet = Duet(terms=terms, accepter_msat=accepter_msat)
        self.index = 0
        self.refused: set[str] = set()

    @rule(party=parties, amount_msat=amounts)
    def add(self, party: Party, amount_msat: int) -> None:
        self.index += 1
        try:
            self.duet.add(party, amount_msat, self.index)
        except UpdateRefused as refused:
            self.refused.add(refused.field)

    @precondition(lambda self: any(self.duet.answerable(party) for party in Party))
    @rule(data=st.data(), is_paid=st.booleans())
    def answer(self, data: st.DataObject, is_paid: bool) -> None:  # noqa: FBT001 - hypothesis names it
        choices = [(party, live) for party in Party for live in self.duet.answerable(party)]
        party, live = data.draw(st.sampled_from(choices))
        if not self.duet.states[party].is_connected:
            return
        if is_paid and not is_overexposed(self.duet.states[party], live.htlc):
            self.duet.fulfill(party, live)
        else:
            self.duet.fail(party, live)

    @precondition(lambda self: any(self.duet.can_sign(party) for party in Party))
    @rule(party=parties)
    def sign(self, party: Party) -> None:
        if self.duet.can_sign(party):
            self.duet.sign(party)

    @precondition(lambda self: any(self.duet.can_revoke(party) for party in Party))
    @rule(party=parties)
    def revoke(self, party: Party) -> None:
        if self.duet.can_revoke(party):
            self.duet.revoke(party)

    @precondition(lambda self: any(self.duet.inboxes.values()))
    @rule(party=parties, n_messages=st.integers(1, 6))
    def deliver(self, party: Party, n_messages: int) -> None:
        for _ in range(min(n_messages, len(self.duet.inboxes[party]))):
            self.duet.deliver(party)

    @rule(party=parties)
    def act(self, party: Party) -> None:
        """Take all that came, then do what is due, as a daemon would."""
        while self.duet.inboxes[party]:
            self.duet.deliver(party)
            if self.duet.can_revoke(party):
                self.duet.revoke(party)
        if self.duet.can_sign(party):
            self.duet.sign(party)

    @rule()
    def break_connection(self) -> None:
        self.duet.break_connection()

    @rule()
    def settle(self) -> None:
        self.duet.settle()
        states = self.duet.states
        assert all(state.is_quiet for state in states.values())
        for holder in Party:
            own, other = states[holder], states[holder.other]
            assert own.content(holder, Edition.SIGNED) == other.content(holder, Edition.SIGNED)
        one, other = states.values()
        assert (one.opener_msat, one.accepter_msat) == (other.opener_msat, other.accepter_msat)
        assert (one.opener_msat, one.accepter_msat) == tuple(self.duet.expected_msat.values())

    @invariant()
    def no_msat_appears_or_disappears_and_no_balance_is_negative(self) -> None:
        for state, holder, view in product(self.duet.states.values(), Party, Edition):
            content = state.content(holder, view)
            assert content.total_msat == specimen.CAPACITY_SAT * 1000
            assert min(content.opener_msat, content.accepter_msat) >= 0

    @invariant()
    def nothing_is_refused_but_by_a_limit(self) -> None:
        assert self.refused <= REFUSALS

    @invariant()
    def no_signed_commitment_exceeds_a_limit(self) -> None:
        terms = self.duet.terms
        reserve_msat = 1000 * terms.reserve_sat(Party.OPENER, capacity_sat=specimen.CAPACITY_SAT)
        for state, holder in product(self.duet.states.values(), Party):
            content = state.content(holder, Edition.SIGNED)
            assert content.opener_msat >= min(
                reserve_msat, specimen.CAPACITY_SAT * 1000 - self.duet.accepter_msat
            )
            for party in Party:
                offered = [htlc for htlc in content.htlcs if htlc.offered_by is party]
                amounts_msat = [htlc.amount_msat for htlc in offered]
                trimmed_msat = [
                    htlc.amount_msat
                    for htlc in offered
                    if terms.is_trimmed(htlc.amount_msat, is_offered=party is holder)
                ]
                assert len(offered) <= terms.max_accepted_htlcs
                assert sum(amounts_msat) <= terms.max_in_flight_msat
                assert sum(trimmed_msat) <= terms.max_dust_exposure_msat

    def teardown(self) -> None:
        if not hasattr(self, "duet"):
            return
        self.duet.break_connection()
        self.settle()
        self.every_revoked_commitment_can_be_punished()

    def every_revoked_commitment_can_be_punished(self) -> None:
        """From the secrets that were really revealed; the kernel judges one of each side."""
        for victim, state in self.duet.states.items():
            revoked = [
                content
                for (holder, number), content in self.duet.contents.items()
                if holder is victim.other and number < state.peer_revoked
            ]
            for content in revoked[-1:]:
                secret = state.peer_secrets.secret_of(content.number)
                assert secret == specimen.secret(content.holder, content.number)
                commitment = specimen.build(content, terms=self.duet.terms)
                claims = penalty_claims(commitment)
                tx = specimen.claim_tx(commitment, claims)
                assert specimen.is_accepted(tx, [claim.prevout for claim in claims])


def test_two_machines_agree_whatever_happens() -> None:
    run_state_machine_as_test(
        TwoMachines, settings=settings(max_examples=120, stateful_step_count=50, deadline=None)
    )


@pytest.mark.parametrize("n_delivered", range(14))
@pytest.mark.parametrize("feerate", [0, 500])
def test_a_break_after_any_message_of_a_payment_loses_nothing(
    n_delivered: int, feerate: int
) -> None:
    terms = ChannelTerms(
        feerate_per_kw=feerate,
        to_self_delay_opener=144,
        to_self_delay_accepter=432,
        max_accepted_htlcs=12,
        max_in_flight_msat=10**9,
    )
    duet = Duet(terms=terms)
    budget = n_delivered

    def run(*, is_limited: bool) -> None:
        """Pay both ways, one message at a time, until the budget is used up."""
        nonlocal budget
        is_busy = True
        while is_busy:
            is_busy = False
            for party in Party:
                if is_limited and budget == 0:
                    return
                if duet.inboxes[party]:
                    duet.deliver(party)
                    budget -= 1
                    is_busy = True
                for act, can_act in ((duet.revoke, duet.can_revoke), (duet.sign, duet.can_sign)):
                    if can_act(party):
                        act(party)
                        is_busy = True
                if duet.states[party].is_connected:
                    for live in duet.answerable(party):
                        duet.fulfill(party, live)
                        is_busy = True

    for party in Party:
        duet.deliver(party)
    duet.add(Party.OPENER, 50_000_000, 1)
    duet.add(Party.ACCEPTER, 20_000_001, 2)
    run(is_limited=True)
    duet.break_connection()
    run(is_limited=False)

    for state in duet.states.values():
        assert state.is_quiet
        assert state.htlcs == ()
        assert (state.opener_msat, state.accepter_msat) == (570_000_001, 429_999_999)
