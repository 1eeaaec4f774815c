"""What a client gets of a state of its leaf that was replaced, and is in a block all the same."""

from cromford.answers.exits import PoisonPlace, PoisonStatus, SupersededState
from cromford.protocol.exiting.client import arriving_of_attempt_sat
from cromford.protocol.exiting.poisons import held_poisons
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.known_chain import KnownChain
from cromford.watch.poisons import SignedPoison


def superseded(state: ClientState, attempt: ClientAttempt) -> SupersededState | None:
    """Return what becomes of a state that was replaced and is in a block; None if none is.

    `arriving_sat` is what still comes of it, before the fees of what we sign ourselves: by poisons,
    and of a penalty, if the LSP published what it had revoked.
    """
    held = held_poisons(attempt, state.chain)
    if not held or held[0].spends.txid not in state.chain.confirmed:
        return None
    return {
        "state": held[0].poison.state.name,
        "height": state.chain.confirmed[held[0].spends.txid],
        "poisons": [_shown(one, state.chain) for one in held],
        "arriving_sat": arriving_of_attempt_sat(state, attempt),
    }


def _shown(one: SignedPoison, chain: KnownChain) -> PoisonPlace:
    """Return a poison. `lost`: something else took the output, as a commitment of the LSP's."""
    spender = chain.spends.get(one.spends)
    status: PoisonStatus = "publish_now"
    if spender is not None:
        status = "confirmed" if spender.txid == one.tx.txid else "lost"
    return {
        "name": one.name,
        "txid": str(one.tx.txid),
        "status": status,
        "height": chain.confirmed.get(one.tx.txid),
        "pays_sat": one.own_sat,
        "fee_sat": one.poison.fee_sat,
    }


def describe_superseded(shown: SupersededState) -> str:
    """Return what comes next of a state that was replaced, in a sentence."""
    due = [one["name"] for one in shown["poisons"] if one["status"] == "publish_now"]
    what = f"publish {' and '.join(due)} now; " if due else ""
    coming = f"{shown['arriving_sat']} sat are on their way to your wallet"
    if not shown["arriving_sat"]:
        coming = "all of it that is yours is in your wallet"
    return f"{shown['state']} was replaced, and is on chain all the same: {what}{coming}"
