"""Payments inside a factory: what arrives, what is refused, and what nobody can lose."""

from tests.protocol.paying_clients import balance, book, live_factory, lsp_link, newest_link, pay

from cromford.channel.terms import Party


def test_the_lsp_pays_a_client_and_clients_pay_one_another() -> None:
    pump = live_factory(3, watches_folds=True)
    alice, bob, _ = pump.clients
    first = pay(pump, pump.lsp, alice, 30_000_000)
    assert first.status == "paid"
    assert balance(alice).own_msat == 30_000_000
    second = pay(pump, alice, bob, 7_000_000)
    assert second.status == "paid"
    fee_msat = 1000 + 7000
    assert second.fee_msat == fee_msat
    assert balance(alice).own_msat == 30_000_000 - 7_000_000 - fee_msat
    assert balance(bob).own_msat == 7_000_000
    assert book(pump.lsp).earned_msat == fee_msat
    for client in pump.clients:
        link = newest_link(client)
        other = lsp_link(pump, link)
        assert link.state.is_quiet
        assert other.state.is_quiet
        for party in Party:
            assert (link.state.opener_msat, link.state.accepter_msat) == (
                other.state.opener_msat,
                other.state.accepter_msat,
            ), party
