"""Two machines, any order of acts, any break of the connection: nothing is lost or made up."""

from collections import deque
from collections.abc import Iterator
from copy import copy
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
from tests.channel.duet import Duet, build_at, funding_at

from cromford.channel.claims import penalty_claims
from cromford.channel.commitment import NegativeBalance
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.limits import is_overexposed
from cromford.channel.messages import Rebase, UpdateAdd
from cromford.channel.rebase import payable_msat, propose_rebase, receive_rebase
from cromford.channel.stage import Edition
from cromford.channel.terms import ChannelTerms, Party
from cromford.channel.updates import receive_update

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

    @precondition(lambda self: not any(self.duet.is_dual.values()))
    @rule(part=st.sampled_from((0, 3, 1)))
    def agree_on_a_next_funding(self, part: int) -> None:
        """The price is nothing, a part of what the accepter has, or all of it."""
        accepter_msat = self.duet.states[Party.ACCEPTER].accepter_msat
        price_msat = accepter_msat // part if part else 0
        if self.duet.can_agree(price_msat):
            self.duet.agree(price_msat)

    @precondition(lambda self: self.duet.is_dual[Party.OPENER])
    @rule()
    def rebase(self) -> None:
        state = self.duet.states[Party.OPENER]
        if state.is_connected and state.rebase is None:
            self.duet.rebase()

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

    @rule(gives_up=st.booleans())
    def break_connection(self, gives_up: bool) -> None:  # noqa: FBT001 - hypothesis names it
        self.duet.break_connection()
        is_loose = all(state.rebase is None for state in self.duet.states.values())
        if gives_up and is_loose and not self.duet.is_bound:
            self.duet.give_up()

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
        assert len(set(self.duet.places.values())) == 1
        assert one.capacity_sat == funding_at(self.duet.places[one.me]).capacity_sat

    @invariant()
    def no_msat_appears_or_disappears_and_no_balance_is_negative(self) -> None:
        for state, holder, view in product(self.duet.states.values(), Party, Edition):
            content = state.content(holder, view)
            place = self.duet.places[state.me] + content.is_rebased
            assert specimen.total_msat(content) == funding_at(place).capacity_sat * 1000
            assert min(content.opener_msat, content.accepter_msat) >= 0

    @invariant()
    def nothing_is_quiet_that_awaits_a_word_of_the_other(self) -> None:
        for state in self.duet.states.values():
            is_due = state.owes_revocation or state.awaits_revocation or state.unacked
            assert not (is_due and state.is_quiet)

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
        """From the secrets that were really revealed; the kernel judges one of each side.

        One secret is enough for both outputs that a commitment was signed for.
        """
        for victim, state in self.duet.states.items():
            revoked = [
                content
                for (holder, number), content in self.duet.contents.items()
                if holder is victim.other and number < state.peer_revoked
            ]
            for content in revoked[-1:]:
                secret = state.peer_secrets.secret_of(content.number)
                assert secret == specimen.secret(content.holder, content.number)
                for place in self.duet.sighashes[content.holder, content.number].places:
                    commitment = build_at(place, content, self.duet.terms)
                    claims = penalty_claims(commitment)
                    tx = specimen.claim_tx(commitment, claims)
                    assert specimen.is_accepted(tx, [claim.prevout for claim in claims])


@pytest.mark.sampled(0)
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


def terms_of(feerate: int) -> ChannelTerms:
    return ChannelTerms(
        feerate_per_kw=feerate,
        to_self_delay_opener=144,
        to_self_delay_accepter=432,
        max_accepted_htlcs=12,
        max_in_flight_msat=10**9,
    )


PRICE_MSAT = 7_000_000


@pytest.mark.parametrize("n_delivered", range(18))
def test_a_break_after_any_message_of_a_rebase_with_crossing_adds_loses_nothing(
    n_delivered: int,
) -> None:
    """Both add before the opener offers the rebase and after; the price is paid once."""
    duet = Duet(terms=terms_of(500))
    duet.settle()
    duet.agree(PRICE_MSAT)
    duet.add(Party.OPENER, 50_000_000, 1)
    duet.add(Party.ACCEPTER, 20_000_001, 2)
    for party in Party:
        duet.sign(party)
    duet.rebase()
    duet.add(Party.ACCEPTER, duet.states[Party.ACCEPTER].accepter_msat - 27_000_001, 3)
    budget = n_delivered
    while budget and any(duet.inboxes.values()):
        for party in Party:
            if budget and duet.inboxes[party]:
                duet.deliver(party)
                budget -= 1
            for act, can_act in ((duet.revoke, duet.can_revoke), (duet.sign, duet.can_sign)):
                if can_act(party):
                    act(party)
    duet.break_connection()
    duet.settle()
    for party in Party:
        for live in duet.answerable(party):
            duet.fail(party, live)
    duet.settle()

    for state in duet.states.values():
        assert state.is_quiet
        assert (state.opener_msat, state.accepter_msat) == (632_000_000, 393_000_000)
        assert (state.reserved_msat, state.rebase) == (0, None)
    assert duet.places == dict.fromkeys(Party, 1)


class Fork:
    """One of all courses that a rebase and two crossing adds can take, and what may come next."""

    def __init__(self, duet: Duet, waiting: frozenset[str]) -> None:
        self.duet = duet
        self.waiting = waiting

    @property
    def key(self) -> tuple[object, ...]:
        duet = self.duet
        inboxes = (tuple(duet.inboxes[party]) for party in Party)
        return (self.waiting, *duet.states.values(), *inboxes)

    def acts(self) -> Iterator[tuple[str, Party]]:
        duet = self.duet
        for party in Party:
            if duet.inboxes[party]:
                yield "deliver", party
            if duet.can_sign(party):
                yield "sign", party
            if duet.can_revoke(party):
                yield "revoke", party
        for act in sorted(self.waiting):
            if act == "break" or all(one.is_connected for one in duet.states.values()):
                yield act, Party.OPENER

    def take(self, act: str, party: Party) -> None:
        self.waiting -= {act}
        match act:
            case "deliver":
                self.duet.deliver(party)
            case "sign":
                self.duet.sign(party)
            case "revoke":
                self.duet.revoke(party)
            case "rebase":
                self.duet.rebase()
            case "break":
                self.duet.break_connection()
            case "opener":
                self.duet.add(Party.OPENER, 50_000_000, 1)
            case "accepter":
                self.duet.add(Party.ACCEPTER, 393_000_000, 2)

    def copy(self) -> "Fork":
        return Fork(copied(self.duet), self.waiting)


def copied(duet: Duet) -> Duet:
    """Return a duet that goes on by itself: all in it but its lists is immutable."""
    other = copy(duet)
    for name in ("states", "expected_msat", "sighashes", "contents", "received", "covered"):
        setattr(other, name, dict(getattr(duet, name)))
    other.places, other.is_dual = dict(duet.places), dict(duet.is_dual)
    other.inboxes = {party: deque(duet.inboxes[party]) for party in Party}
    other.logs = {party: list(duet.logs[party]) for party in Party}
    return other


def test_the_accepter_keeps_the_price_until_it_is_paid() -> None:
    """An add beyond it is refused by who offers it, and a violation for who receives it."""
    duet = Duet(terms=terms_of(500))
    duet.settle()
    duet.agree(PRICE_MSAT)
    spendable_msat = duet.states[Party.ACCEPTER].accepter_msat - PRICE_MSAT
    beyond = UpdateAdd(
        htlc_id=0,
        amount_msat=spendable_msat + 1,
        payment_hash=specimen.payment_hash(1),
        cltv_expiry=900_000,
    )
    for _ in range(2):
        with pytest.raises(UpdateRefused, match="reserve of 7,000 sat"):
            duet.add(Party.ACCEPTER, beyond.amount_msat, 1)
        with pytest.raises(PeerViolation, match="reserve of 7,000 sat"):
            receive_update(duet.states[Party.OPENER], beyond)
        duet.break_connection()
        duet.settle()
    # The opener keeps its own reserve, one percent, and nothing of the price.
    duet.add(Party.OPENER, 590_000_000, 2)
    duet.settle()
    duet.fail(Party.ACCEPTER, duet.answerable(Party.ACCEPTER)[0])
    duet.settle()
    duet.rebase()
    duet.deliver(Party.ACCEPTER)
    # Offered, the rebase is on no commitment of the opener's yet: nothing is paid.
    with pytest.raises(UpdateRefused, match="reserve of 7,000 sat"):
        duet.add(Party.ACCEPTER, beyond.amount_msat, 1)
    duet.add(Party.ACCEPTER, spendable_msat, 1)
    duet.settle()
    content = duet.states[Party.ACCEPTER].content(Party.ACCEPTER, Edition.SIGNED)
    assert (content.accepter_msat, content.htlcs_msat) == (0, spendable_msat)


@pytest.mark.parametrize("third", ["break", "opener"])
def test_a_rebase_and_crossing_adds_end_alike_in_every_order(third: str) -> None:
    """With a break of the connection at any one moment; the accepter offers all that it may."""
    duet = Duet(terms=terms_of(500))
    duet.settle()
    duet.agree(PRICE_MSAT)
    begun = Fork(duet, frozenset({"rebase", "accepter", third}))
    seen, waiting, n_over = {begun.key}, [begun], 0
    while waiting:
        fork = waiting.pop()
        acts = list(fork.acts())
        if not acts:
            n_over += 1
            one, other = fork.duet.states.values()
            assert (one.opener_msat, one.accepter_msat) == (632_000_000, 393_000_000)
            assert (other.opener_msat, other.accepter_msat) == (632_000_000, 393_000_000)
            assert fork.duet.places == dict.fromkeys(Party, 1)
            assert (one.reserved_msat, other.reserved_msat) == (0, 0)
        for act in acts:
            after = fork.copy()
            after.take(*act)
            if after.key not in seen:
                seen.add(after.key)
                waiting.append(after)
    assert n_over


def test_a_price_that_the_balance_does_not_carry_is_refused_by_both() -> None:
    duet = Duet(terms=terms_of(0), accepter_msat=PRICE_MSAT - 1)
    duet.settle()
    dear = Rebase(advance_id=b"", capacity_sat=funding_at(1).capacity_sat, price_msat=PRICE_MSAT)
    with pytest.raises(UpdateRefused, match=r"price_msat: expected at most 6,999,999 msat"):
        propose_rebase(duet.states[Party.OPENER], dear)
    with pytest.raises(PeerViolation, match=r"price_msat: expected at most 6,999,999 msat"):
        receive_rebase(duet.states[Party.ACCEPTER], dear)


def test_a_price_of_the_whole_balance_is_paid_and_a_funding_may_stay_as_large() -> None:
    duet = Duet(terms=terms_of(0), accepter_msat=PRICE_MSAT)
    duet.settle()
    all_of_it = Rebase(advance_id=b"", capacity_sat=specimen.CAPACITY_SAT, price_msat=PRICE_MSAT)
    propose_rebase(duet.states[Party.OPENER], all_of_it)
    after = receive_rebase(duet.states[Party.ACCEPTER], all_of_it)
    content = after.content(Party.ACCEPTER, Edition.NEXT)
    assert content.accepter_msat == 0
    assert specimen.total_msat(content) == specimen.CAPACITY_SAT * 1000


def test_what_the_balance_carries_is_the_least_of_both_next_commitments() -> None:
    """What the accepter offered is gone from the opener's next commitment, not yet from its own."""
    duet = Duet(terms=terms_of(0))
    duet.settle()
    before_msat = payable_msat(duet.states[Party.ACCEPTER])
    duet.add(Party.ACCEPTER, 5_000_000, 1)
    assert payable_msat(duet.states[Party.ACCEPTER]) == before_msat - 5_000_000


def test_a_channel_is_not_quiet_while_it_is_rebased() -> None:
    """Between its steps there is no HTLC and no update that was not acknowledged."""
    duet = Duet(terms=terms_of(0))
    duet.settle()
    duet.agree(0)
    duet.rebase()
    for act, party in (
        (duet.sign, Party.OPENER),
        (duet.deliver, Party.ACCEPTER),
        (duet.deliver, Party.ACCEPTER),
        (duet.revoke, Party.ACCEPTER),
        (duet.deliver, Party.OPENER),
    ):
        act(party)
        assert not duet.states[Party.OPENER].is_quiet
    assert duet.states[Party.OPENER].unacked == ()
    assert not duet.states[Party.ACCEPTER].is_quiet
    duet.settle()
    assert all(state.is_quiet for state in duet.states.values())


def test_a_rebase_is_the_openers_one_at_a_time_and_takes_nothing_away() -> None:
    duet = Duet(terms=terms_of(0))
    duet.settle()
    duet.agree(0)
    smaller = Rebase(advance_id=b"", capacity_sat=specimen.CAPACITY_SAT - 1, price_msat=0)
    with pytest.raises(PeerViolation, match=f"capacity_sat: expected at least {10**6}"):
        receive_rebase(duet.states[Party.ACCEPTER], smaller)
    with pytest.raises(PeerViolation, match="the opener's"):
        receive_rebase(duet.states[Party.OPENER], smaller)
    with pytest.raises(ValueError, match="the opener alone"):
        propose_rebase(duet.states[Party.ACCEPTER], smaller)
    duet.rebase()
    with pytest.raises(UpdateRefused, match="none under way"):
        duet.rebase()


def test_a_commitment_with_a_negative_balance_is_refused_by_name() -> None:
    content = specimen.content(Party.OPENER, accepter_msat=-1)
    with pytest.raises(NegativeBalance, match="the accepter has -1 msat"):
        specimen.build(content)
