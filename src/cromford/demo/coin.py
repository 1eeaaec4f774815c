"""Out of the channel into the wallet: what the node has, compared with what was the client's."""

from typing import Any, Final

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.channel.terms import MSAT_PER_SAT
from cromford.demo.failure import DemoFailed
from cromford.demo.node import Node, amount_sat_of
from cromford.demo.world import DaemonProcess

COMMITMENT: Final = "commitment"
SWEEP: Final = "sweep"
Document = dict[str, Any]


def taken_out(node: Node, txids: dict[str, str], *, to_self_delay: int) -> list[Document]:
    """Return the commitment and what followed, with the heights that the node tells.

    Args:
        node: The demo's.
        txids: By name; the commitment's among them.
        to_self_delay: The blocks for which the client's own output is delayed (BOLT 2).

    Raises:
        DemoFailed: If one is missing, or the sweep came before its delay.
    """
    heights = {name: node.confirmed_height(txid) for name, txid in txids.items()}
    landed = heights.get(COMMITMENT)
    shown = []
    for name, txid in txids.items():
        height, delay_blocks = heights[name], to_self_delay if name == SWEEP else 0
        if height is None or landed is None:
            raise DemoFailed("exit_wrong", f"{name} is not on chain")
        if height - landed < delay_blocks:
            raise DemoFailed(
                "exit_wrong",
                f"{name} came {height - landed} blocks after the commitment, "
                f"its delay is {delay_blocks}",
            )
        shown.append({"name": name, "txid": txid, "height": height, "delay_blocks": delay_blocks})
    return shown


def coin_of(
    node: Node, daemon: DaemonProcess, txids: dict[str, str], *, balance_msat: int
) -> Document:
    """Return the coin that the sweep made, having followed the money to the satoshi.

    Its input is the client's output of the commitment, which holds the whole balance, rounded
    down; its output is in the client's wallet, under the wallet's own address.

    Raises:
        DemoFailed: If an amount, a script or an owner is not what it should be.
    """
    sweep = node.transaction(txids[SWEEP])
    commitment = node.transaction(txids[COMMITMENT])
    if sweep is None or commitment is None:
        raise DemoFailed("exit_wrong", "the sweep and its commitment are not on chain")
    sources = [(tx_in["txid"], tx_in["vout"]) for tx_in in sweep["vin"]]
    _check("the sweep's sources", [txids[COMMITMENT]], [txid for txid, _ in sources])
    _check("the sweep's outputs", 1, len(sweep["vout"]))
    balance_sat = balance_msat // MSAT_PER_SAT
    _check("the swept output", balance_sat, amount_sat_of(commitment["vout"][sources[0][1]]))
    outpoint = f"{txids[SWEEP]}:0"
    output = node.output(txids[SWEEP], 0)
    coins = {coin["outpoint"]: coin for coin in daemon.call("wallet_coins")["coins"]}
    if output is None or outpoint not in coins:
        raise DemoFailed("exit_wrong", f"the coin {outpoint} is not in the client's wallet")
    address = address_of_script(bytes.fromhex(output["script_pubkey"]), REGTEST)
    _check("the coin's address", coins[outpoint]["address"], address)
    _check("the coin's amount", coins[outpoint]["amount_sat"], output["amount_sat"])
    return {
        "outpoint": outpoint,
        "address": address,
        "balance_sat": balance_sat,
        "fee_sat": balance_sat - output["amount_sat"],
        **output,
    }


def _check(what: str, expected: object, received: object) -> None:
    if expected != received:
        raise DemoFailed("exit_wrong", f"{what}: expected {expected}, received {received}")
