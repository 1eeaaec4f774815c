"""What was paid out of the wallet before by an external id: told of once more, and made once."""

from typing import Final

from cromford import told
from cromford.answers.wallet import SentCoins, SpentCoins, SplitCoins
from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.network import Network
from cromford.daemon.api.failures import ApiFailure
from cromford.wallet.coins import CalledPayment, Wallet

ALL: Final = "all that is free"


def sent_before(
    wallet: Wallet,
    called: CalledPayment,
    *,
    script_pubkey: bytes,
    amount_sat: int | None,
    network: Network,
) -> SentCoins:
    """Return the payment that has this id: whoever asks again may not have heard the answer.

    Args:
        wallet: That it is of.
        called: The payment.
        script_pubkey: Whom to pay, as it is asked for now.
        amount_sat: How much; None for all that is free.
        network: Whose addresses are told.

    Raises:
        ApiFailure: If it pays something else, was given up, or lost its coins to another.
    """
    paid, *rest = called.tx.outputs
    addresses = (address_of_script(one, network) for one in (paid.script_pubkey, script_pubkey))
    _check_same(
        called, ("address", *addresses), ("amount_sat", *map(_sat, (called.asked_sat, amount_sat)))
    )
    _check_stands(wallet, called)
    change_sat = sum(out.amount_sat for out in rest)
    return {"sent": True, **_spent(called, amount_sat=paid.amount_sat, change_sat=change_sat)}


def split_before(
    wallet: Wallet, called: CalledPayment, *, n_coins: int, amount_sat: int | None
) -> SplitCoins:
    """Return the split that has this id.

    Args:
        wallet: That it is of.
        called: The split.
        n_coins: How many coins to make, as it is asked for now.
        amount_sat: What each is to hold; None for whatever they hold.

    Raises:
        ApiFailure: If it made something else, was given up, or lost its coins to another.
    """
    made = called.coins_made
    differs = [("n_coins", str(len(made)), str(n_coins))]
    if amount_sat is not None:
        differs.append(("amount_sat", _sat(called.asked_sat), _sat(amount_sat)))
    _check_same(called, *differs)
    _check_stands(wallet, called)
    total_sat = sum(out.amount_sat for out in called.tx.outputs)
    return {
        "split": True,
        "n_coins": n_coins,
        **_spent(
            called,
            amount_sat=max(out.amount_sat for out in made),
            change_sat=total_sat - sum(out.amount_sat for out in made),
        ),
    }


def _check_same(called: CalledPayment, *asked: tuple[str, ...]) -> None:
    for field, expected, received in asked:
        if expected != received:
            raise ApiFailure(
                "external_id_taken",
                f"external_id: {called.external_id!r} is that of another payment: {field}: "
                f"expected {expected}, received {received}",
                remediation="Give each payment an id of its own.",
            )


def _check_stands(wallet: Wallet, called: CalledPayment) -> None:
    newest, of_what = wallet.newest_called[called.external_id], called.external_id
    if newest not in wallet.payments and newest not in wallet.ended_payments:
        raise ApiFailure(
            "payment_abandoned",
            f"external_id: {of_what!r} is that of {newest}, which was given up",
            remediation="It, or what it replaced, may confirm all the same, and is shown then. If "
            "neither can, pay by another id.",
        )
    by = wallet.lost_to(called.tx.txid)
    if by is not None:
        raise ApiFailure(
            "payment_overtaken",
            f"external_id: {of_what!r} is that of {called.tx.txid}, in whose place a block has "
            f"{by}",
            remediation="Look whom that pays. What it replaced may confirm all the same, and is "
            "shown then. If it cannot, pay by another id.",
        )


def _sat(amount_sat: int | None) -> str:
    return ALL if amount_sat is None else told.sat(amount_sat)


def _spent(called: CalledPayment, *, amount_sat: int, change_sat: int) -> SpentCoins:
    tx = called.tx
    return {
        "txid": str(tx.txid),
        "amount_sat": amount_sat,
        "fee_sat": called.fee_sat,
        "change_sat": change_sat,
        "feerate_sat_per_vb": sat_per_vb(1000 * called.fee_sat // tx.weight),
        "feerate_source": "what it pays",
    }
