"""The way into the mempool: every check in Bitcoin Core's order, for one transaction or a package.

The order matters, because a transaction with two faults is refused for the first, and programs
compare the reason. The cheap checks come first and the scripts last, which the kernel runs.
"""

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.regtest import policy, truc
from cromford.regtest.candidate import (
    Accepted,
    AlreadyThere,
    Candidate,
    PackageResult,
    Result,
    Terms,
    accepted_of,
    entry_of,
)
from cromford.regtest.chain import ChainCoin, RegtestChain, spendable_outputs
from cromford.regtest.kernel import ScriptRefused, check_scripts
from cromford.regtest.linearize import Weighted, chunks_of, improves
from cromford.regtest.mempool import Mempool, weighted_of
from cromford.regtest.mempool_limit import MempoolLimit
from cromford.regtest.options import Options
from cromford.regtest.package_form import check_well_formed
from cromford.regtest.verdict import MempoolRefused, PackageRefused, RefusalKind, money, rate

CLUSTER_TXS_MAX: Final = 64
CLUSTER_VSIZE_MAX: Final = 101_000
REPLACED_CLUSTERS_MAX: Final = 100
NO_BETTER_DIAGRAM: Final = "insufficient feerate: does not improve feerate diagram"
MEMPOOL_FULL: Final = "mempool full"


class Acceptor:
    """Judges transactions against one chain and one mempool, and lets the good ones in.

    Args:
        chain: What is confirmed.
        mempool: What waits.
        limit: Keeps the mempool below its size.
        options: What the node relays.
    """

    def __init__(
        self, chain: RegtestChain, mempool: Mempool, *, limit: MempoolLimit, options: Options
    ) -> None:
        self._chain = chain
        self._mempool = mempool
        self._limit = limit
        self._options = options

    def test(self, tx: Tx) -> Accepted:
        """Return how a transaction would be accepted; nothing changes.

        Raises:
            MempoolRefused: If it would not be.
        """
        return accepted_of(self._judge(tx, Terms()))

    def submit(self, tx: Tx, *, now: int, terms: Terms | None = None) -> Accepted:
        """Accept a transaction into the mempool, in place of those it replaces.

        Raises:
            MempoolRefused: If it is not accepted; nothing has changed, unless the mempool was full
                and something else left, too.
        """
        accepted = self._submit(tx, now=now, terms=terms or Terms())
        self._limit.trim()
        if tx.txid not in self._mempool:
            raise MempoolRefused(MEMPOOL_FULL, kind=RefusalKind.FEE)
        return accepted

    def bring_back(self, txs: Sequence[Tx], *, now: int) -> None:
        """Accept what left the chain, or waited meanwhile, where it can still confirm.

        Args:
            txs: The transactions, parents first.
            now: Seconds since the epoch.
        """
        for tx in txs:
            with suppress(MempoolRefused):  # It spends what is gone, or must wait again.
                self._submit(tx, now=now, terms=Terms(may_replace=False, is_returning=True))
        self._limit.trim()

    def _submit(self, tx: Tx, *, now: int, terms: Terms) -> Accepted:
        """Accept a transaction, of which the mempool may have become too large."""
        candidate = self._judge(tx, terms)
        self._let_in([candidate], now=now)
        return accepted_of(candidate)

    def test_package(self, txs: Sequence[Tx]) -> PackageResult:
        """Return how transactions would be accepted together; nothing changes.

        Each must pay for itself, and none may replace anything.
        """
        try:
            check_well_formed(txs)
        except PackageRefused as refused:
            return PackageResult(error=refused, results={})
        terms = Terms(may_replace=False, may_evict_sibling=False)
        return self._judge_together(txs, terms, now=None)

    def submit_package(
        self, txs: Sequence[Tx], *, now: int, feerate_max: Fraction | None
    ) -> PackageResult:
        """Accept a child with its parents: each alone if it can, else together.

        Args:
            txs: The transactions, parents first, the child last; or a single one.
            now: Seconds since the epoch.
            feerate_max: Satoshi per virtual byte above which the caller would rather not pay.
        """
        try:
            check_well_formed(txs)
        except PackageRefused as refused:
            return PackageResult(error=refused, results={})
        outcome = self._submit_package(txs, now=now, feerate_max=feerate_max)
        self._limit.trim()
        left = {tx.wtxid: tx for tx in txs if tx.txid not in self._mempool}
        evicted: dict[Txid, Result] = {
            wtxid: MempoolRefused(MEMPOOL_FULL)
            for wtxid, result in outcome.results.items()
            if wtxid in left and not isinstance(result, MempoolRefused)
        }
        if not evicted:
            return outcome
        failed = PackageRefused("transaction failed", is_policy=False)
        return PackageResult(error=failed, results=outcome.results | evicted)

    def _submit_package(
        self, txs: Sequence[Tx], *, now: int, feerate_max: Fraction | None
    ) -> PackageResult:
        results: dict[Txid, Result] = {}
        together: list[Tx] = []
        is_hopeless = False
        for tx in txs:
            entry = self._mempool.get(tx.txid)
            if entry is not None:
                results[tx.wtxid] = AlreadyThere(entry=entry)
                continue
            try:
                results[tx.wtxid] = self._submit(tx, now=now, terms=Terms(feerate_max=feerate_max))
            except MempoolRefused as refused:
                results[tx.wtxid] = refused
                together.append(tx)
                is_hopeless |= refused.kind is RefusalKind.FINAL or len(txs) == 1
        if is_hopeless:
            failed = PackageRefused("transaction failed", is_policy=False)
            return PackageResult(error=failed, results=results)
        if not together:
            return PackageResult(error=None, results=results)
        outcome = self._retry_together(together, now=now, feerate_max=feerate_max)
        return PackageResult(error=outcome.error, results=results | outcome.results)

    def _retry_together(
        self, txs: Sequence[Tx], *, now: int, feerate_max: Fraction | None
    ) -> PackageResult:
        if len(txs) == 1:
            try:
                accepted = self._submit(txs[0], now=now, terms=Terms(feerate_max=feerate_max))
            except MempoolRefused as refused:
                failed = PackageRefused("transaction failed", is_policy=False)
                return PackageResult(error=failed, results={txs[0].wtxid: refused})
            return PackageResult(error=None, results={txs[0].wtxid: accepted})
        terms = Terms(may_evict_sibling=False, feerate_alone=False, feerate_max=feerate_max)
        return self._judge_together(txs, terms, now=now)

    def _judge(self, tx: Tx, terms: Terms) -> Candidate:
        candidate = self._examine(tx, terms, {})
        if candidate.conflicts:
            self._check_replacement(candidate)
        self._check_cluster([candidate])
        if candidate.conflicts & self._mempool.ancestors(candidate.parents):
            raise MempoolRefused("bad-txns-spends-conflicting-tx")
        _check_feerate_max(candidate, terms)
        if not terms.is_returning:
            self._check_dust_spent(tx, {})
        _check_scripts(candidate)
        return candidate

    def _judge_together(self, txs: Sequence[Tx], terms: Terms, *, now: int | None) -> PackageResult:
        """Judge a package; let it in if `now` is given."""
        results: dict[Txid, Result] = {}
        tx = txs[0]
        try:
            candidates: list[Candidate] = []
            extra: dict[Txid, Tx] = {}
            for tx in txs:
                candidates.append(self._examine(tx, terms, extra))
                _check_feerate_max(candidates[-1], terms)
                extra[tx.txid] = tx
            self._check_package(candidates, terms)
            for tx in txs:
                self._check_dust_spent(tx, extra)
            for candidate in candidates:
                tx = candidate.tx
                _check_scripts(candidate)
                if now is None:
                    results[tx.wtxid] = accepted_of(candidate)
        except PackageRefused as refused:
            return PackageResult(error=refused, results={})
        except MempoolRefused as refused:
            results[tx.wtxid] = refused
            is_dust = refused.reason == "missing-ephemeral-spends"
            reason = "unspent-dust" if is_dust else "transaction failed"
            error = PackageRefused(reason, is_policy=False)
            return PackageResult(error=error, results=results)
        if now is not None:
            self._let_in(candidates, now=now)
            results = {one.tx.wtxid: accepted_of(one, candidates) for one in candidates}
        return PackageResult(error=None, results=results)

    def _examine(self, tx: Tx, terms: Terms, extra: dict[Txid, Tx]) -> Candidate:
        """Make every check that needs no other new transaction.

        Args:
            tx: The transaction.
            terms: How it is offered.
            extra: Transactions of the same package that come before it.
        """
        height = self._chain.tip.height + 1
        median_time = self._chain.tip.median_time
        policy.check_transaction(tx)
        policy.check_standard(tx, datacarrier_size_max=self._options.datacarrier_size_max)
        policy.check_final(tx, height=height, median_time=median_time)
        self._check_new(tx)
        conflicts = self._conflicts(tx, terms)
        coins = self._coins(tx, extra)
        prevouts = [coin.txout for coin in coins]
        times = [self._time_before(coin.height) for coin in coins]
        policy.check_sequence_locks(tx, coins, times, height=height, median_time=median_time)
        fee_sat = policy.fee_of(tx, coins, height=height)
        policy.check_inputs_standard(tx, prevouts)
        policy.check_witness_standard(tx, prevouts)
        sigops = policy.sigops_cost(tx, prevouts)
        policy.check_dust_pays_no_fee(tx, fee_sat)
        candidate = Candidate(
            tx=tx,
            coins=coins,
            fee_sat=fee_sat,
            weight=policy.adjusted_weight(tx, sigops),
            parents=self._mempool.parents_of(tx),
            conflicts=conflicts,
        )
        if not terms.is_returning:
            if terms.feerate_alone:
                self._check_feerate(vsize=candidate.vsize, fee_sat=fee_sat)
            self._check_truc(candidate, terms)
        return candidate

    def _check_new(self, tx: Tx) -> None:
        entry = self._mempool.get(tx.txid)
        if entry is None:
            return
        if entry.tx.wtxid == tx.wtxid:
            raise MempoolRefused("txn-already-in-mempool")
        raise MempoolRefused("txn-same-nonwitness-data-in-mempool")

    def _conflicts(self, tx: Tx, terms: Terms) -> set[Txid]:
        rivals = {self._mempool.spender(tx_in.outpoint) for tx_in in tx.inputs}
        conflicts = {rival for rival in rivals if rival is not None}
        if conflicts and not terms.may_replace:
            raise MempoolRefused("bip125-replacement-disallowed")
        return conflicts

    def _coins(self, tx: Tx, extra: dict[Txid, Tx]) -> list[ChainCoin]:
        coins = [self._coin(tx_in.outpoint, extra) for tx_in in tx.inputs]
        found = [coin for coin in coins if coin is not None]
        if len(found) < len(coins):
            outpoints = [outpoint for outpoint, _ in spendable_outputs(tx)]
            if any(self._chain.coin(outpoint) is not None for outpoint in outpoints):
                raise MempoolRefused("txn-already-known")
            raise MempoolRefused("bad-txns-inputs-missingorspent", kind=RefusalKind.MISSING_INPUTS)
        return found

    def _coin(self, outpoint: OutPoint, extra: dict[Txid, Tx]) -> ChainCoin | None:
        parent = extra.get(outpoint.txid)
        txout = self._mempool.output(outpoint)
        if parent is not None and outpoint.vout < len(parent.outputs):
            txout = parent.outputs[outpoint.vout]
        if txout is None:
            return self._chain.coin(outpoint)
        return ChainCoin(txout=txout, height=self._chain.tip.height + 1, is_coinbase=False)

    def _time_before(self, height: int) -> int:
        """Return the median time of the block before `height`: BIP 68 counts from there."""
        indexed = self._chain.at_height(max(height - 1, 0))
        return self._chain.tip.median_time if indexed is None else indexed.median_time

    def _check_feerate(self, *, vsize: int, fee_sat: int) -> None:
        policy.check_feerate(
            vsize=vsize,
            fee_sat=fee_sat,
            rolling_sat_per_kvb=self._limit.rolling_sat_per_kvb,
            min_relay_sat_per_kvb=self._options.min_relay_sat_per_kvb,
        )

    def _check_truc(self, candidate: Candidate, terms: Terms) -> None:
        try:
            truc.check_single(
                candidate.tx,
                vsize=candidate.vsize,
                parents=candidate.parents,
                conflicts=candidate.conflicts,
                mempool=self._mempool,
            )
        except truc.SiblingInTheWay as in_the_way:
            if not terms.may_evict_sibling:
                raise
            candidate.conflicts.add(in_the_way.sibling)
            candidate.evicts_sibling = True

    def _check_replacement(self, candidate: Candidate) -> None:
        """Check BIP 125's rules as Core has them now: replaceability need not be signalled."""
        self._find_replaced([candidate])
        details = self._unpaid([candidate])
        if details:
            raise MempoolRefused(
                f"insufficient fee{candidate.suffix}", details, kind=RefusalKind.FEE
            )
        self._check_cluster([candidate])
        if not self._improves([candidate]):
            raise MempoolRefused("replacement-failed", NO_BETTER_DIAGRAM, kind=RefusalKind.FEE)

    def _find_replaced(self, candidates: Sequence[Candidate]) -> None:
        """Find all that would have to go, and book it on the last candidate."""
        last = candidates[-1]
        conflicts = set[Txid]().union(*(candidate.conflicts for candidate in candidates))
        if len({min(self._mempool.cluster((txid,))) for txid in conflicts}) > REPLACED_CLUSTERS_MAX:
            raise MempoolRefused(f"too many potential replacements{last.suffix}")
        last.replaced = self._mempool.descendants(conflicts)

    def _unpaid(self, candidates: Sequence[Candidate]) -> str:
        """Say why the fees do not pay for what is replaced and for the relay, or nothing."""
        last = candidates[-1]
        old_sat = sum(item.fee_sat for item in self._mempool.weighted(last.replaced).values())
        new_sat = sum(candidate.fee_sat for candidate in candidates)
        vsize = sum(candidate.vsize for candidate in candidates)
        least_sat = policy.fee_sat_at(self._options.incremental_relay_sat_per_kvb, vsize)
        beginning = f"rejecting replacement {last.tx.txid}, "
        if new_sat < old_sat:
            return f"{beginning}less fees than conflicting txs; {money(new_sat)} < {money(old_sat)}"
        if new_sat - old_sat < least_sat:
            return (
                f"{beginning}not enough additional fees to relay; "
                f"{money(new_sat - old_sat)} < {money(least_sat)}"
            )
        return ""

    def _changed(self, candidates: Sequence[Candidate]) -> dict[Txid, Weighted]:
        """Return the clusters that new transactions would join, as they would be."""
        replaced = candidates[-1].replaced
        joined = replaced.union(*(candidate.parents for candidate in candidates))
        left = self._mempool.cluster(joined) - replaced
        items = self._mempool.weighted(left)
        members = frozenset(left) | {candidate.tx.txid for candidate in candidates}
        for candidate in candidates:
            entry = entry_of(candidate, now=0, height=0)
            items[candidate.tx.txid] = weighted_of(entry, members)
        return items

    def _improves(self, candidates: Sequence[Candidate]) -> bool:
        replaced = candidates[-1].replaced
        joined = replaced.union(*(candidate.parents for candidate in candidates))
        before = self._mempool.weighted(self._mempool.cluster(joined))
        return improves(chunks_of(before), chunks_of(self._changed(candidates)))

    def _check_cluster(self, candidates: Sequence[Candidate]) -> None:
        items = self._changed(candidates)
        for candidate in candidates:
            members = _connected(candidate.tx.txid, items)
            weight = sum(items[txid].weight for txid in members)
            if len(members) > CLUSTER_TXS_MAX or weight > CLUSTER_VSIZE_MAX * 4:
                raise MempoolRefused("too-large-cluster")

    def _check_package(self, candidates: Sequence[Candidate], terms: Terms) -> None:
        package = [candidate.tx for candidate in candidates]
        for candidate in candidates:
            truc.check_package(
                candidate.tx,
                vsize=candidate.vsize,
                parents=candidate.parents,
                package=package,
                mempool=self._mempool,
            )
        if not terms.feerate_alone:
            vsize = sum(candidate.vsize for candidate in candidates)
            self._check_feerate(vsize=vsize, fee_sat=sum(one.fee_sat for one in candidates))
        try:
            if any(candidate.conflicts for candidate in candidates):
                self._check_package_replacement(candidates)
            self._check_cluster(candidates)
        except MempoolRefused as refused:
            raise PackageRefused(refused.reason, refused.details, is_policy=True) from refused

    def _check_package_replacement(self, candidates: Sequence[Candidate]) -> None:
        failed = "package RBF failed: "
        if len(candidates) != 2:
            raise MempoolRefused(f"{failed}package must be 1-parent-1-child")
        if any(candidate.parents for candidate in candidates):
            raise MempoolRefused(f"{failed}new transaction cannot have mempool ancestors")
        parent, child = candidates
        try:
            self._find_replaced(candidates)
        except MempoolRefused as refused:
            raise MempoolRefused(f"{failed}{refused.reason}") from refused
        details = self._unpaid(candidates)
        if details:
            raise MempoolRefused(f"{failed}insufficient anti-DoS fees", details)
        total = Fraction(parent.fee_sat + child.fee_sat, parent.vsize + child.vsize)
        alone = Fraction(parent.fee_sat, parent.vsize)
        if total <= alone:
            raise MempoolRefused(
                f"{failed}package feerate is less than or equal to parent feerate",
                f"package feerate {rate(total)} <= parent feerate is {rate(alone)}",
            )
        self._check_cluster(candidates)
        if not self._improves(candidates):
            raise MempoolRefused(f"{failed}{NO_BETTER_DIAGRAM}")

    def _check_dust_spent(self, tx: Tx, extra: dict[Txid, Tx]) -> None:
        """Check that whoever spends from a transaction with ephemeral dust also spends the dust."""
        spent = {tx_in.outpoint for tx_in in tx.inputs}
        for txid in {outpoint.txid for outpoint in spent}:
            entry = self._mempool.get(txid)
            parent = extra.get(txid) or (entry.tx if entry else None)
            if parent is None:
                continue
            dust = {OutPoint(txid=txid, vout=vout) for vout in policy.dust_outputs(parent)}
            if dust - spent:
                raise MempoolRefused(
                    "missing-ephemeral-spends",
                    f"tx {tx.txid} (wtxid={tx.wtxid}) did not spend parent's ephemeral dust",
                )

    def _let_in(self, candidates: Sequence[Candidate], *, now: int) -> None:
        for candidate in candidates:
            self._mempool.remove(candidate.replaced)
        for candidate in candidates:
            entry = entry_of(candidate, now=now, height=self._chain.tip.height)
            self._mempool.add(entry)


def _connected(txid: Txid, items: dict[Txid, Weighted]) -> set[Txid]:
    neighbours: dict[Txid, set[Txid]] = {item: set() for item in items}
    for item in items.values():
        for parent in item.parents & items.keys():
            neighbours[item.txid].add(parent)
            neighbours[parent].add(item.txid)
    found: set[Txid] = set()
    pending = [txid]
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending.extend(neighbours[current])
    return found


def _check_feerate_max(candidate: Candidate, terms: Terms) -> None:
    feerate = Fraction(candidate.fee_sat, candidate.vsize)
    if terms.feerate_max is not None and feerate > terms.feerate_max:
        raise MempoolRefused("max feerate exceeded")


def _check_scripts(candidate: Candidate) -> None:
    tx = candidate.tx
    prevouts = [coin.txout for coin in candidate.coins]
    policy.check_no_reserved_scripts(tx, prevouts)
    try:
        check_scripts(tx, prevouts)
    except ScriptRefused as refused:
        outpoint = tx.inputs[refused.input_index].outpoint
        raise MempoolRefused(
            "mempool-script-verify-flag-failed (refused by the kernel)",
            f"input {refused.input_index} of {tx.txid} (wtxid {tx.wtxid}), spending {outpoint}",
        ) from refused
