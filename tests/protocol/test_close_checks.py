"""What a client signs of a close, and what it does not: each number at its boundary."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.closes import (
    ask_for_close,
    changing,
    closable_factory,
    close,
    ended,
    finished,
    links,
    scope_in,
)
from tests.protocol.forge import NOT_A_POINT, stranger
from tests.protocol.paying_clients import begin_payment, newest_link
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT, fee_sat_of
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.factory.close import Payout, build_close, scope_of, vsize_of_close
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.closing.checks import Closable, check_tx
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Refusal
from cromford.protocol.journal import close_records as cl
from cromford.watch.feerates import MOST_SAT_PER_KW, OwnFees
from cromford.wire import messages as m

FEERATE: Final = 1_000
SEAT: Final = 2  # Its balance is 12,345,678 msat.
PAID_SAT: Final = 12_345


@pytest.fixture(scope="module")
def pump() -> Pump:
    """Return a world that these tests only look at."""
    return closable_factory(3)


def closable(pump: Pump) -> Closable:
    client = pump.client_at(SEAT)
    held = pump.held(client)
    scope = scope_of(held.branch.root_node)
    return Closable(attempt=held, link=newest_link(client), scope=scope)


def honest_tx(pump: Pump) -> Tx:
    found = closable(pump)
    payouts = [
        Payout(
            script_pubkey=pump.attempt.seats[seat - 1].payout_script,
            due_msat=link.state.accepter_msat,
        )
        for seat, (link, _) in links(pump).items()
    ]
    script = pump.attempt.payout_script
    return build_close(found.scope, payouts, lsp_script=script, feerate_sat_per_kw=FEERATE).tx


def with_output(tx: Tx, place: int, **changes: Any) -> Tx:
    outputs = list(tx.outputs)
    outputs[place] = replace(outputs[place], **changes)
    return replace(tx, outputs=tuple(outputs))


def without_output(tx: Tx, place: int) -> Tx:
    outputs = [*tx.outputs]
    del outputs[place]
    return replace(tx, outputs=tuple(outputs))


def with_input(tx: Tx, **changes: Any) -> Tx:
    return replace(tx, inputs=(replace(tx.inputs[0], **changes),))


OTHER: Final = OutPoint(txid=Txid(b"\x05" * 32), vout=0)
MORE: Final = TxOut(amount_sat=1_000, script_pubkey=b"\x51\x20" + b"\x06" * 32)
LSP, ANCHOR = -2, -1
# Of three clients the third is owed 329,999 msat: it has no output.
CHANGES: Final[dict[str, tuple[str, Callable[[Tx], Tx]]]] = {
    "version 2": ("version", lambda tx: replace(tx, version=2)),
    "nLockTime 1": ("nlocktime", lambda tx: replace(tx, nlocktime=1)),
    "a second input": (
        "inputs",
        lambda tx: replace(tx, inputs=(*tx.inputs, TxIn(outpoint=OTHER, nsequence=0xFFFFFFFD))),
    ),
    "no input": ("inputs", lambda tx: replace(tx, inputs=())),
    "another outpoint": ("outpoint", lambda tx: with_input(tx, outpoint=OTHER)),
    "not replaceable": ("nsequence", lambda tx: with_input(tx, nsequence=0xFFFFFFFE)),
    "a delay": ("nsequence", lambda tx: with_input(tx, nsequence=144)),
    "a witness": ("witness", lambda tx: tx.with_witnesses((bytes(64),))),
    "a script_sig": ("script_sig", lambda tx: with_input(tx, script_sig=b"\x51")),
    "no anchor": ("anchor", lambda tx: without_output(tx, ANCHOR)),
    "an anchor of 0 sat": ("anchor", lambda tx: with_output(tx, ANCHOR, amount_sat=0)),
    "an anchor of 241 sat": ("anchor", lambda tx: with_output(tx, ANCHOR, amount_sat=241)),
    "two anchors": (
        "anchor",
        lambda tx: replace(
            tx,
            outputs=(
                TxOut(amount_sat=ANCHOR_DUST_SAT, script_pubkey=ANCHOR_SCRIPT),
                *tx.outputs,
            ),
        ),
    ),
    "an anchor beside the anchor": (
        "anchor",
        lambda tx: replace(tx, outputs=(*tx.outputs, tx.outputs[-1])),
    ),
    "the anchor first": (
        "anchor",
        lambda tx: replace(tx, outputs=(tx.outputs[-1], *tx.outputs[:-1])),
    ),
    "a satoshi less": ("payout_sat", lambda tx: with_output(tx, 1, amount_sat=PAID_SAT - 1)),
    "a satoshi more": ("payout_sat", lambda tx: with_output(tx, 1, amount_sat=PAID_SAT + 1)),
    "another's script": (
        "payout_sat",
        lambda tx: with_output(tx, 1, script_pubkey=MORE.script_pubkey),
    ),
    "no payout": ("payout_sat", lambda tx: without_output(tx, 1)),
    "paid twice out of the fee": (
        "fee_sat",
        lambda tx: replace(tx, outputs=(tx.outputs[1], *tx.outputs)),
    ),
    "an output that no node relays": (
        "outputs",
        lambda tx: with_output(tx, LSP, script_pubkey=b"\x00\x02\x01\x01"),
    ),
    "an output of dust": ("outputs", lambda tx: with_output(tx, LSP, amount_sat=329)),
    "an output more than there is": (
        "fee_sat",
        lambda tx: replace(tx, outputs=(MORE, *tx.outputs)),
    ),
}


def test_the_honest_transaction_passes(pump: Pump) -> None:
    check_tx(honest_tx(pump), closable(pump), feerate_sat_per_kw=FEERATE)


@pytest.mark.parametrize("what", CHANGES)
def test_anything_else_is_refused_by_name(pump: Pump, what: str) -> None:
    field, change = CHANGES[what]
    with pytest.raises(Refusal) as caught:
        check_tx(change(honest_tx(pump)), closable(pump), feerate_sat_per_kw=FEERATE)
    assert caught.value.field == field


@pytest.mark.parametrize(("extra_sat", "is_enough"), [(-1, False), (0, True), (1, True)])
def test_the_fee_is_enough_to_the_satoshi(pump: Pump, extra_sat: int, *, is_enough: bool) -> None:
    tx = honest_tx(pump)
    least_sat = fee_sat_of(vsize=vsize_of_close(tx), feerate_sat_per_kw=FEERATE)
    lsp_sat = tx.outputs[LSP].amount_sat
    paid = with_output(tx, LSP, amount_sat=lsp_sat - extra_sat)
    fee_sat = closable(pump).scope.amount_sat - sum(out.amount_sat for out in paid.outputs)
    assert fee_sat == least_sat + extra_sat
    if is_enough:
        check_tx(paid, closable(pump), feerate_sat_per_kw=FEERATE)
        return
    with pytest.raises(Refusal, match="fee_sat"):
        check_tx(paid, closable(pump), feerate_sat_per_kw=FEERATE)


@pytest.mark.parametrize(("extra_sat", "is_taken"), [(0, True), (1, False)])
def test_a_fee_that_core_takes_for_a_mistake_is_refused(
    pump: Pump, extra_sat: int, *, is_taken: bool
) -> None:
    """A close that no node publishes would freeze the channel until the exit deadline."""
    found = closable(pump)
    scope = replace(found.scope, amount_sat=100_000_000)
    rich = replace(found, scope=scope)
    tx = honest_tx(pump)
    most_sat = fee_sat_of(vsize=vsize_of_close(tx), feerate_sat_per_kw=MOST_SAT_PER_KW)
    others_sat = sum(out.amount_sat for out in tx.outputs) - tx.outputs[LSP].amount_sat
    left_sat = scope.amount_sat - others_sat - most_sat - extra_sat
    paid = with_output(tx, LSP, amount_sat=left_sat)
    if is_taken:
        check_tx(paid, rich, feerate_sat_per_kw=FEERATE)
        return
    with pytest.raises(Refusal, match="fee_sat"):
        check_tx(paid, rich, feerate_sat_per_kw=FEERATE)


def test_who_is_owed_less_than_dust_is_paid_nothing_and_not_a_satoshi_instead(
    pump: Pump,
) -> None:
    found = closable(pump)
    state = replace(found.link.state, accepter_msat=329_999)
    poor = replace(found, link=replace(found.link, state=state))
    script = found.attempt.join.payout_script
    tx = honest_tx(pump)
    unpaid = without_output(tx, 1)
    check_tx(unpaid, poor, feerate_sat_per_kw=FEERATE)
    with pytest.raises(Refusal, match="outputs"):
        check_tx(with_output(tx, 1, amount_sat=329), poor, feerate_sat_per_kw=FEERATE)
    just = replace(poor, link=replace(poor.link, state=replace(state, accepter_msat=330_000)))
    paid = with_output(tx, 1, amount_sat=330, script_pubkey=script)
    check_tx(paid, just, feerate_sat_per_kw=FEERATE)


def test_a_close_of_more_than_bip_431_allows_is_refused(pump: Pump) -> None:
    tx = honest_tx(pump)
    small = TxOut(amount_sat=330, script_pubkey=MORE.script_pubkey)
    n_fitting = (10_000 - vsize_of_close(tx)) // 43
    for n_more, is_taken in ((n_fitting, True), (n_fitting + 1, False)):
        outputs = (*(small for _ in range(n_more)), *tx.outputs)
        many = with_output(replace(tx, outputs=outputs), LSP, amount_sat=1_000)
        if is_taken:
            check_tx(many, closable(pump), feerate_sat_per_kw=FEERATE)
        else:
            with pytest.raises(Refusal, match="vsize"):
                check_tx(many, closable(pump), feerate_sat_per_kw=FEERATE)


@pytest.mark.parametrize(("more_bytes", "is_taken"), [(0, True), (1, False)])
def test_a_close_of_10_000_virtual_bytes_is_the_largest(
    pump: Pump, more_bytes: int, *, is_taken: bool
) -> None:
    """Outputs of 43 bytes and witness programs of 2 to 40 bytes hit any size."""
    tx = honest_tx(pump)
    left = 10_000 + more_bytes - vsize_of_close(tx)
    n_whole = left // 43 - 1
    size = left - 43 * n_whole - 8 - 1 - 2  # What the last output's witness program has.
    program = size if size <= 40 else size - 43
    assert 2 <= program <= 40
    n_whole += size > 40
    last = TxOut(amount_sat=1_000, script_pubkey=bytes((0x51, program)) + bytes(program))
    small = TxOut(amount_sat=330, script_pubkey=MORE.script_pubkey)
    outputs = (last, *(small for _ in range(n_whole)), *tx.outputs)
    many = with_output(replace(tx, outputs=outputs), LSP, amount_sat=1_000)
    with pytest.raises(Refusal) as caught:
        check_tx(many, closable(pump), feerate_sat_per_kw=FEERATE)
    # Nodes relay no such program: the size is looked at before.
    assert caught.value.field == ("outputs" if is_taken else "vsize")


# What a client agrees to


def begin(pump: Pump, **changes: Any) -> m.CloseBegin:
    whole = m.CloseBegin(
        attempt_id=pump.attempt.attempt_id,
        close_id=b"\x08" * 32,
        outpoint=pump.attempt.funding_outpoint.serialize(),
        options=options(FEERATE),
    )
    return replace(whole, **changes)


def options(*feerates: int) -> tuple[m.CloseOption, ...]:
    return tuple(m.CloseOption(feerate_sat_per_kw=feerate) for feerate in feerates)


def answer(pump: Pump, message: m.CloseBegin, facts: Facts = FRESH) -> str | None:
    """Return how a client refuses to agree, or None if it agrees; nothing is done."""
    client = pump.client_at(SEAT)
    event = ev.MessageReceived(node_id=pump.lsp.node_id, message=message)
    decision = client_role.decide(client.state, event, facts)
    if any(isinstance(record, cl.CloseAgreed) for record in decision.records):
        assert any(isinstance(effect, fx.PrepareClose) for effect in decision.effects)
        return None
    assert decision.records == ()
    (said,) = decision.effects
    assert isinstance(said, fx.Send)
    assert isinstance(said.message, m.CloseEnd)
    assert said.message.close_id == message.close_id
    return said.message.reason


def test_an_honest_beginning_is_agreed_to(pump: Pump) -> None:
    assert answer(pump, begin(pump)) is None


@pytest.mark.parametrize(
    ("feerates", "refusal"),
    [
        ((749,), "feerate_sat_per_kw: expected at least 3 sat/vB, received 2.996 sat/vB"),
        ((750,), None),
        ((750, 751), None),
        (
            (750, 750),
            "feerate_sat_per_kw: expected above 3 sat/vB, the one before, received 3 sat/vB",
        ),
        (
            (800, 750),
            "feerate_sat_per_kw: expected above 3.2 sat/vB, the one before, received 3 sat/vB",
        ),
        ((), "options: expected 1..2 feerates, received 0"),
        ((MOST_SAT_PER_KW,), None),
        (
            (MOST_SAT_PER_KW + 1,),
            "feerate_sat_per_kw: expected at most 10,000 sat/vB, received 10,000.004 sat/vB",
        ),
    ],
)
def test_feerates_are_1_5_times_the_trees_and_ascend(
    pump: Pump, feerates: tuple[int, ...], refusal: str | None
) -> None:
    assert pump.attempt.terms.tree_feerate_sat_per_kw == 500
    assert answer(pump, begin(pump, options=options(*feerates))) == refusal


@pytest.mark.parametrize(("feerate", "is_enough"), [(1_199, False), (1_200, True)])
def test_feerates_are_twice_the_clients_own_mempools_minimum(
    pump: Pump, feerate: int, *, is_enough: bool
) -> None:
    facts = Facts(fees=OwnFees(mempool_min_sat_per_kw=600))
    assert (answer(pump, begin(pump, options=options(feerate)), facts) is None) is is_enough


def test_an_unknown_factory_and_a_foreign_output_are_refused(pump: Pump) -> None:
    unknown = answer(pump, begin(pump, attempt_id=bytes(32)))
    assert unknown is not None
    assert unknown.startswith("attempt_id: expected a factory of ours")
    foreign = answer(pump, begin(pump, outpoint=OTHER.serialize()))
    assert foreign is not None
    assert foreign.startswith("outpoint: expected on the way to our channel")


def test_an_output_of_our_path_that_is_in_no_block_is_refused(pump: Pump) -> None:
    channel = newest_link(pump.client_at(SEAT)).setting.funding.outpoint
    for outpoint in (pump.attempt.tree.root_node.tx.outpoint(0), channel):
        refusal = answer(pump, begin(pump, outpoint=outpoint.serialize()))
        assert refusal is not None
        assert "is not on chain" in refusal


def test_a_stale_chain_agrees_to_nothing(pump: Pump) -> None:
    assert answer(pump, begin(pump), Facts(stale="old")) == "chain: expected fresh, received stale"


@pytest.mark.parametrize(("late_blocks", "is_in_time"), [(-1, True), (0, False), (1, False)])
def test_a_day_before_the_exit_deadline_is_too_late_by_headers_too(
    pump: Pump, late_blocks: int, *, is_in_time: bool
) -> None:
    client = pump.client_at(SEAT)
    deadline = newest_link(client).remaining(client.state.chain).exit_deadline_height
    assert deadline is not None
    facts = Facts(header_height=deadline - 144 + late_blocks)
    refusal = answer(pump, begin(pump), facts)
    assert (refusal is None) is is_in_time
    assert is_in_time or (refusal is not None and "too late" in refusal)


def test_a_pending_htlc_is_refused() -> None:
    pump = closable_factory(2)
    payee = pump.client_at(1)
    pump.disconnect(payee)
    begin_payment(pump, pump.client_at(2), payee, 1_000_000)
    refusal = answer(pump, begin(pump))
    assert refusal is not None
    assert refusal.endswith("an HTLC is pending")


def test_an_exit_under_way_is_refused() -> None:
    pump = closable_factory(2)
    client = pump.client_at(SEAT)
    pump.handle(client, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    assert answer(pump, begin(pump)) == "channel: expected no exit under way, received an exit"


def test_a_name_that_was_signed_is_not_signed_for_anything_else() -> None:
    """Whatever is signed under a name is its one sighash for each option, for ever."""
    pump = closable_factory(2)
    refuser, client = pump.client_at(1), pump.client_at(SEAT)
    no = m.CloseEnd(close_id=bytes(32), reason="no")
    with pump.tampering(changing(refuser, m.CloseSign, lambda _: (no,))):
        close(pump)
    signed = pump.sent(client, m.CloseSign)[-1]
    deadline = fx.CloseDeadline(close_id=signed.close_id)
    pump.pass_deadline(client, deadline)
    refusal = answer(pump, begin(pump, close_id=signed.close_id))
    assert refusal is not None
    assert refusal.startswith("close_id: expected a new one")
    assert answer(pump, begin(pump)) is None


def test_a_second_close_beside_the_first_is_refused() -> None:
    pump = closable_factory(2)
    ask_for_close(pump)
    pump.run_to(m.ClosePropose)
    assert answer(pump, begin(pump)) == "close: expected one at a time, received a second one"


def test_a_funding_that_was_reorganised_away_is_not_closed() -> None:
    pump = closable_factory(2)
    client = pump.client_at(SEAT)
    height = client.state.chain.confirmed[pump.attempt.funding_tx.txid]
    while client.state.chain.height >= height:
        pump.handle(client, ev.BlockRemoved(height=client.state.chain.height))
    refusal = answer(pump, begin(pump))
    assert refusal is not None
    assert refusal.startswith("outpoint: expected in a block, unspent")


def test_one_that_goes_away_between_agreement_and_signature_is_not_signed() -> None:
    pump = closable_factory(2)
    client = pump.client_at(SEAT)
    ask_for_close(pump)
    pump.run_to(m.ClosePropose)
    height = client.state.chain.confirmed[pump.attempt.funding_tx.txid]
    while client.state.chain.height >= height:
        pump.handle(client, ev.BlockRemoved(height=client.state.chain.height))
    pump.run()
    assert not pump.sent(client, m.CloseSign)
    assert "refused: outpoint" in ended(pump.lsp)[0].reason


# What it signs


def changed_tx(change: Callable[[Tx], Tx], number: int = 0) -> Callable[[Any], Any]:
    def changed(message: Any) -> Any:
        proposals = [*message.proposals]
        tx = change(Tx.parse(proposals[number].tx))
        proposals[number] = replace(proposals[number], tx=tx.serialize())
        return (replace(message, proposals=tuple(proposals)),)

    return changed


@pytest.mark.parametrize("number", [0, 1])
def test_one_bad_option_is_enough_to_sign_neither(number: int) -> None:
    pump = closable_factory(2)
    steal = changed_tx(lambda tx: with_output(tx, 0, amount_sat=29_999), number)
    with pump.tampering(changing(pump.lsp, m.ClosePropose, steal)):
        close(pump)
    victim = pump.client_at(1)
    assert "refused: payout_sat: expected [30000], received [29999]" in ended(victim)[0].reason
    assert not pump.sent(victim, m.CloseSign)
    assert newest_link(victim).closes == ()
    assert not finished(pump.lsp)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: (replace(one, proposals=one.proposals[:1]),), "proposals: expected 2"),
        (
            lambda one: (replace(one, proposals=(replace(one.proposals[0], tx=b"\x00"),) * 2),),
            "tx: expected a transaction",
        ),
    ],
)
def test_what_is_no_proposal_is_refused(change: Callable[[Any], Any], said: str) -> None:
    pump = closable_factory(1)
    with pump.tampering(changing(pump.lsp, m.ClosePropose, change)):
        close(pump)
    assert said in ended(pump.client_at(1))[0].reason


KEYS: Final[dict[str, Callable[[tuple[bytes, ...]], tuple[bytes, ...]]]] = {
    "one is another's": lambda keys: (stranger(), *keys[1:]),
    "one is missing": lambda keys: keys[1:],
    "one more": lambda keys: (*keys, stranger()),
    "one twice": lambda keys: (*keys, keys[0]),
    "one is no point": lambda keys: (NOT_A_POINT, *keys[1:]),
    "none at all": lambda _: (),
}


@pytest.mark.parametrize("what", KEYS)
def test_keys_that_do_not_add_up_to_the_output_are_signed_with_by_nobody(what: str) -> None:
    """The client kept what they add up to: whoever else could sign for it is found out."""
    pump = closable_factory(2)

    def change(one: Any) -> Any:
        return (replace(one, signers=KEYS[what](one.signers)),)

    with pump.tampering(changing(pump.lsp, m.ClosePropose, change)):
        close(pump)
    victim = pump.client_at(1)
    reason = ended(victim)[0].reason
    kept = pump.held(victim).branch.funding_output.key_agg.internal_key.hex()
    assert f"refused: signers: expected {kept}, received " in reason
    assert not pump.sent(victim, m.CloseSign)
    assert newest_link(victim).closes == ()
    assert not finished(pump.lsp)
    close(pump)
    assert len(finished(pump.lsp)) == 1, "and an honest one goes through"


def test_the_keys_of_a_close_may_come_in_any_order() -> None:
    """`KeySort` is what counts (BIP 327)."""
    pump = closable_factory(2)

    def turn(one: Any) -> Any:
        return (replace(one, signers=one.signers[::-1]),)

    with pump.tampering(changing(pump.lsp, m.ClosePropose, turn)):
        close(pump)
    assert len(finished(pump.lsp)) == 1


def test_an_aggnonce_that_is_no_point_ends_it_and_not_the_client() -> None:
    pump = closable_factory(1)

    def spoil(message: Any) -> Any:
        proposals = tuple(replace(one, aggnonce=b"\x09" * 66) for one in message.proposals)
        return (replace(message, proposals=proposals),)

    with pump.tampering(changing(pump.lsp, m.ClosePropose, spoil)):
        close(pump)
    assert "our signer" in ended(pump.client_at(1))[0].reason
    assert not finished(pump.lsp)
    close(pump)
    assert len(finished(pump.lsp)) == 1


# What it takes for finished


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("another signature", "the signature of a finished close does not verify"),
        ("unsigned", "the signature of a finished close does not verify"),
        ("more than a signature", "the signature of a finished close does not verify"),
        ("of another form", "a finished close is none: nlocktime"),
        ("no transaction", "a finished close is no transaction"),
    ],
)
def test_a_close_is_finished_for_a_client_only_by_signatures_that_verify(
    what: str, said: str
) -> None:
    pump = closable_factory(1)

    def spoil(message: Any) -> Any:
        tx = Tx.parse(message.txs[0].tx)
        bad = {
            "another signature": tx.with_witnesses((bytes(64),)).serialize(),
            "unsigned": tx.with_witnesses(()).serialize(),
            "more than a signature": tx.with_witnesses((*tx.inputs[0].witness, b"")).serialize(),
            "of another form": replace(tx, nlocktime=1).serialize(),
            "no transaction": b"\x00",
        }[what]
        return (replace(message, txs=(replace(message.txs[0], tx=bad), *message.txs[1:])),)

    with pump.tampering(changing(pump.lsp, m.Closed, spoil)):
        close(pump)
    client = pump.client_at(1)
    assert not finished(client)
    assert said in ended(client)[0].reason
    pump.disconnect(client)
    pump.connect(client)
    pump.run()
    assert len(finished(client)) == 1, "the true one still counts"


def test_the_same_told_under_another_name_is_no_news() -> None:
    pump = closable_factory(1)
    close(pump)
    client = pump.client_at(1)
    (told,) = pump.sent(pump.lsp, m.Closed)
    for txs in (told.txs, told.txs[:1], told.txs[::-1]):
        again = replace(told, close_id=b"\x0b" * 32, txs=txs)
        event = ev.MessageReceived(node_id=pump.lsp.node_id, message=again)
        assert client_role.decide(client.state, event).is_nothing


def test_the_cheaper_option_comes_first_however_it_is_told() -> None:
    pump = closable_factory(1)

    def turn(told: Any) -> Any:
        return (replace(told, txs=told.txs[::-1]),)

    with pump.tampering(changing(pump.lsp, m.Closed, turn)):
        close(pump)
    (own,), (theirs,) = finished(pump.client_at(1)), finished(pump.lsp)
    assert own.txs == theirs.txs


def test_who_never_signed_takes_no_close_for_its_own(pump: Pump) -> None:
    other = closable_factory(3)
    close(other)
    told = other.sent(other.lsp, m.Closed)[0]
    client = pump.client_at(SEAT)
    event = ev.MessageReceived(node_id=pump.lsp.node_id, message=told)
    assert client_role.decide(client.state, event).is_nothing


def test_the_scope_of_every_output_is_alike_for_lsp_and_client(pump: Pump) -> None:
    for seat in (1, 2, 3):
        held = pump.held(pump.client_at(seat))
        for node in held.branch.nodes:
            own = scope_of(node)
            theirs = scope_in(pump, own.outpoint)
            known = own.signed_by(theirs.output.signers)
            assert known == theirs
            assert own.prevout == theirs.prevout
            assert seat in own.clients
