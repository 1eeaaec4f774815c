"""The candidates of a funding's fee ladder, as operators read them."""

from collections.abc import Sequence

from cromford.answers.factories import FundingCandidateState, LspCandidateState
from cromford.answers.factory_words import CandidateStatus, OvertakenStatus
from cromford.answers.fundings import LadderPlan
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.tx import Tx
from cromford.crypto.musig2 import PUBNONCE_SIZE
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.lobby.build import proposal_size
from cromford.protocol.lobby.ladder import PlannedRung
from cromford.wallet.coins import wallet_tx_weight


def show_candidates(factory: Factory) -> list[LspCandidateState]:
    """Return each candidate of a factory's ladder, lowest feerate first; none without a ladder.

    `status`: signed, published, confirmed, or overtaken where a block has something else that
    spends its coins; dead where that is as deep as a funding has to be.
    """
    attempt, chain = factory.attempt, factory.chain
    if not attempt.others:
        return []
    in_sat = sum(coin.txout.amount_sat for coin in factory.coins)
    is_published = attempt.funded is not None and factory.is_watched
    is_given_up = attempt.funded is not None and attempt.funded.replacement is not None
    shown: list[LspCandidateState] = []
    for one in attempt.ladder:
        tx, rung = one.blueprint.funding_tx, one.blueprint.rung
        fee_sat = in_sat - sum(output.amount_sat for output in tx.outputs)
        status = _status(
            tx,
            chain,
            min_depth=attempt.terms.min_depth,
            is_published=is_published and not is_given_up and rung == attempt.published,
        )
        shown.append(
            {
                "candidate": rung,
                "funding_txid": str(tx.txid),
                "fee_sat": fee_sat,
                "feerate_sat_per_vb": sat_per_vb(1000 * fee_sat // _signed_weight(tx)),
                "status": status,
                "confirmations": chain.depth(tx.txid),
                "has_channels": attempt.is_pinned and rung == attempt.rung,
            }
        )
    return shown


def overtaken_as(attempt: LspAttempt | ClientAttempt, chain: KnownChain) -> OvertakenStatus | None:
    """Return what a funding is that something else took the place of, and its channels with it.

    `displaced` where that is another candidate of the ladder, `dead` where it is not; None as long
    as nothing did so deep enough.

    Raises:
        Unchecked: If a client never accepted the proposal.
    """
    if not attempt.is_overtaken(chain):
        return None
    return "dead" if attempt.rung_in(chain) is None else "displaced"


def client_candidates(attempt: ClientAttempt, chain: KnownChain) -> list[FundingCandidateState]:
    """Return the same as a client knows it: not which one the LSP publishes."""
    if not attempt.other_stages or not attempt.is_checked:
        return []
    return [
        {
            "candidate": one.rung,
            "funding_txid": str(one.funding_tx.txid),
            "status": _status(
                one.funding_tx, chain, min_depth=attempt.terms.min_depth, is_published=False
            ),
            "confirmations": chain.depth(one.funding_tx.txid),
            "has_channels": attempt.ready_sent and one.rung == attempt.rung,
        }
        for one in attempt.candidates
    ]


def _status(tx: Tx, chain: KnownChain, *, min_depth: int, is_published: bool) -> CandidateStatus:
    if chain.depth(tx.txid):
        return "confirmed"
    rival_depth = chain.rival_depth(tx)
    if rival_depth:
        return "dead" if rival_depth >= min_depth else "overtaken"
    return "published" if is_published else "signed"


def _signed_weight(tx: Tx) -> int:
    return wallet_tx_weight(n_inputs=len(tx.inputs), n_outputs=len(tx.outputs))


def built_rungs(factory: Factory) -> tuple[PlannedRung, ...]:
    """Return what each candidate of a factory's funding pays, as it was planned."""
    in_sat = sum(coin.txout.amount_sat for coin in factory.coins)
    rungs: list[PlannedRung] = []
    for tx in (one.blueprint.funding_tx for one in factory.attempt.ladder):
        out_sat = sum(output.amount_sat for output in tx.outputs)
        rungs.append(
            PlannedRung(
                feerate_sat_per_kw=1000 * (in_sat - out_sat) // _signed_weight(tx),
                fee_sat=in_sat - out_sat,
                change_sat=out_sat - factory.attempt.tree.funding_amount_sat,
            )
        )
    return tuple(rungs)


def show_ladder(terms: FactoryTerms, rungs: Sequence[PlannedRung], *, pool_size: int) -> LadderPlan:
    """Return what each candidate of a build pays, and what signing all of them takes."""
    tree = plan_of(terms)
    n_clients, n_candidates = terms.n_clients, terms.candidates
    n_sessions = n_candidates * (tree.n_txs + 2 * n_clients)
    pools_size = (n_candidates + 1) * pool_size * PUBNONCE_SIZE
    return {
        "candidates": [
            {
                "candidate": place,
                "feerate_sat_per_vb": sat_per_vb(rung.feerate_sat_per_kw),
                "fee_sat": rung.fee_sat,
                "change_sat": rung.change_sat,
            }
            for place, rung in enumerate(rungs)
        ],
        "growth": {
            "sessions": n_sessions,
            "channel_keys": 2 * n_candidates * n_clients,
            "nonces_of_lsp": n_sessions,
            "nonces_of_client": n_candidates * (tree.n_branch_txs + 2),
            "bytes_per_client_max": proposal_size(terms, tree.shape) + pools_size,
        },
    }
