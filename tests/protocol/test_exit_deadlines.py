"""At which block a channel goes on chain, and how deep the chain must say what becomes of HTLCs.

The heights are numbers here, not the constants of the code: a rule that moves by a block is another
rule, and somebody's money.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.test_leaving import QUICK, reasons_to_leave
from tests.protocol.unanswered import (
    FIRST_MSAT,
    SMALL_MSAT,
    WORTH_MSAT,
    chain_at,
    htlc_outpoint,
    mine_to,
    mine_until_spent,
    only_expiry,
    pending_for,
    remove_blocks,
)

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.factory.kinds import VertexKind, exit_blocks_of
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import (
    acceptance_failure,
    forward_delta_blocks,
    min_final_cltv_expiry_delta,
    publish_height,
)
from cromford.protocol.journal.channel_records import HtlcDecided
from cromford.protocol.journal.failures import Failure
from cromford.watch.remaining import PathStep
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)

DELAY_MAX_BLOCKS: Final = 432  # Three steps of 144: the defaults.


# When a channel goes on chain


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["lsp", "payee", "payer"])
def test_a_channel_goes_on_chain_eb_and_18_blocks_before_an_htlc_expires_and_not_a_block_later(
    side: str,
) -> None:
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, side, WORTH_MSAT)
    mine_to(pump, only_expiry(link) - link.exit_blocks - 19)
    assert reasons_to_leave(node) == []
    pump.mine()
    assert reasons_to_leave(node) == ["an HTLC expires"]


@pytest.mark.parametrize(
    ("n_layers", "accepted", "asks", "publishes", "forwards"),
    [
        (1, (612, 1_620), 624, 468, 486),
        (2, (1_056, 2_508), 1_068, 912, 930),
        (3, (1_500, 3_396), 1_512, 1_356, 1_374),
    ],
)
def test_the_blocks_of_an_htlc_are_those_of_the_protocols_table(
    n_layers: int, accepted: tuple[int, int], asks: int, publishes: int, forwards: int
) -> None:
    height = 1_000
    least, most = accepted
    exit_blocks = exit_blocks_of([VertexKind.DW] * n_layers, delay_max_blocks=DELAY_MAX_BLOCKS)
    chain = chain_at(height)
    link = replace(
        newest_link(live_factory(2).clients[0]),
        path=path_of_layers(n_layers),
        expiry_height=height + 1 + exit_blocks + 144,
        max_cltv_blocks=most,
    )
    assert link.remaining(chain).exit_deadline_height == height + 1
    assert acceptance_failure(link, height + least, chain=chain, height=height) is None
    too_soon = acceptance_failure(link, height + least - 1, chain=chain, height=height)
    assert too_soon is Failure.EXPIRY_TOO_SOON
    assert acceptance_failure(link, height + most, chain=chain, height=height) is None
    too_far = acceptance_failure(link, height + most + 1, chain=chain, height=height)
    assert too_far is Failure.EXPIRY_TOO_FAR
    assert min_final_cltv_expiry_delta(link, chain) == asks
    assert publish_height(link, 5_000, chain=chain) == 5_000 - publishes
    assert forward_delta_blocks(link, chain) == forwards


def path_of_layers(n_layers: int) -> tuple[PathStep, ...]:
    """Return a path of kickoffs and states with the delays of the defaults."""
    delays = (0, DELAY_MAX_BLOCKS) * n_layers
    txids = [Txid(bytes([number]) * 32) for number in range(len(delays) + 1)]
    return tuple(
        PathStep(txid=txid, outpoint=OutPoint(txid=parent, vout=0), delay_blocks=delay)
        for parent, txid, delay in zip(txids[:-1], txids[1:], delays, strict=True)
    )


@pytest.mark.parametrize(("n_clients", "exit_blocks", "most"), [(2, 450, 1_620), (3, 894, 2_508)])
def test_a_factory_of_the_defaults_has_the_tables_exit_blocks(
    n_clients: int, exit_blocks: int, most: int
) -> None:
    links = [newest_link(client) for client in live_factory(n_clients).clients]
    assert max(link.exit_blocks for link in links) == exit_blocks
    assert {link.max_cltv_blocks for link in links} == {most}


def test_the_table_of_the_protocol_page_has_these_numbers(repository: Path) -> None:
    page = (repository / "docs/protocol/05-time.md").read_text(encoding="utf-8")
    rows = (
        "height + 612, 1,056, 1,500 |",
        "| 624, 1,068, 1,512 |",
        "`cltv_expiry` − 468, 912, 1,356 |",  # noqa: RUF001 - the page's minus sign
        "| 486, 930, 1,374 |",
        "| 1,620, 2,508, 3,396 |",
    )
    assert [row for row in rows if row not in page] == []


# How deep the chain must say it


@pytest.mark.sampled(1)
@pytest.mark.parametrize("returns_to", ["the next block", "a reorganisation"])
def test_an_htlc_that_came_back_on_chain_is_passed_on_at_the_sixth_block_and_not_the_fifth(
    returns_to: str,
) -> None:
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    _, link = pending_for(pump, "lsp", WORTH_MSAT)
    (payment,) = book(alice).payments
    mine_until_spent(pump, htlc_outpoint(link))
    pump.mine(4)
    assert book(alice).payments[payment].status == "pending"
    if returns_to == "a reorganisation":
        remove_blocks(pump, 5)
        assert htlc_outpoint(link) not in pump.lsp.state.chain.spends
        mine_until_spent(pump, htlc_outpoint(link))
        pump.mine(4)
        assert book(alice).payments[payment].status == "pending"
    pump.mine()
    assert book(alice).payments[payment].status == "failed"
    assert newest_link(alice).is_open


def test_an_htlc_that_had_no_output_is_passed_on_when_the_commitment_is_six_blocks_deep() -> None:
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    _, link = pending_for(pump, "lsp", SMALL_MSAT)
    (payment,) = book(alice).payments
    asked = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client)
    pump.handle(pump.lsp, asked)
    mine_until_spent(pump, link.setting.funding.outpoint)
    pump.mine(4)
    assert book(alice).payments[payment].status == "pending"
    pump.mine()
    assert book(alice).payments[payment].status == "failed"


def test_the_fee_of_a_forward_that_is_paid_on_chain_is_earned_at_the_sixth_block() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    pump.clients.remove(alice)
    mine_until_spent(pump, htlc_outpoint(lsp_link(pump, newest_link(alice))))
    pump.mine(4)
    assert book(pump.lsp).earned_msat == 0
    pump.mine()
    assert book(pump.lsp).earned_msat == forward.fee_msat == 10_000


# When an HTLC is written off that is not worth an exit


def test_an_htlc_not_worth_an_exit_is_written_off_12_blocks_after_its_expiry() -> None:
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    node, link = pending_for(pump, "lsp", SMALL_MSAT)
    (payment,) = book(alice).payments
    mine_to(pump, only_expiry(link) + 11)
    assert book(alice).payments[payment].status == "pending"
    pump.mine()
    assert book(alice).payments[payment].status == "failed"
    assert reasons_to_leave(alice) == reasons_to_leave(pump.lsp) == []
    pump.mine(3)
    decided = node.store.remembered
    assert sum(isinstance(record, HtlcDecided) for record in decided) == 1, "once"
