"""Nobody computes a client's key from all that it ever sent, whatever its LSP does to it.

The attacker is `extraction`: it reads off every partial signature which nonce made it, and solves
the linear equations of all of them together. It is shown first that it finds what there is to find,
in the transcripts of clients whose signers are broken on purpose.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest
from tests.crypto.integers import ORDER, coefficient
from tests.protocol.attacks import only_to, proposed
from tests.protocol.extraction import (
    SentSignature,
    _final_nonce,
    _keys_parity,
    _scalar,
    extracted,
    reused,
    transcript_of,
)
from tests.protocol.forge import with_candidate, with_commitment_nonce, with_nonce
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg, nonce_agg
from cromford.protocol import events as ev
from cromford.signing.keychain import FactoryKey, KeyName
from cromford.signing.nonces import PublicPool
from cromford.signing.signer import Signer
from cromford.signing.task import SigningTask
from cromford.wire import messages as m

BELOW: Final = 4  # What a client of three sends in step 1: three of the tree, one of its channel.

# What the attacker finds in what a broken signer sent


class BrokenSigner(Signer):
    """One that knows its secret nonces as numbers, and does with them what `nonce_for` says."""

    def secret(self, pool: int, index: int) -> int:
        """Return a secret scalar: as fresh as any, but for a test to choose."""
        return _scalar("a secret of a test", f"{pool} {index}".encode())

    def nonce_for(self, pool: int, index: int) -> tuple[int, int]:
        return self.secret(pool, 2 * index), self.secret(pool, 2 * index + 1)

    def spent_for(self, index: int) -> int:
        return index

    def make_pool(self, name: KeyName, size: int, *, after: bytes | None = None) -> PublicPool:
        assert after is None
        numbers = self.__dict__.setdefault("numbers", {})
        pool = len(numbers)
        public = PublicPool(
            pubkey=self._keychain.pubkey(name),
            pubnonces=tuple(
                b"".join(pubkey_of(k.to_bytes(32, "big")) for k in self.nonce_for(pool, index))
                for index in range(size)
            ),
        )
        numbers[public.pool_id] = (pool, int.from_bytes(self._keychain.seckey(name), "big"), public)
        return public

    def drop_pool(self, pool_id: bytes) -> None:
        del pool_id  # It is broken: it forgets nothing.

    def bind(self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes) -> None:
        del aggnonce
        self.__dict__.setdefault("bound", {})[pool_id, index] = task

    def partial_sign(self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes) -> bytes:
        task = self.__dict__.get("bound", {}).get((pool_id, index), task)
        assert isinstance(task.key_agg, KeyAgg)
        pool, seckey, public = self.__dict__["numbers"][pool_id]
        first, second = self.nonce_for(pool, self.spent_for(index))
        output_key = task.key_agg.output_key
        b = _scalar("MuSig/noncecoef", aggnonce + output_key + task.sighash)
        final = _final_nonce(aggnonce, b)
        assert final is not None
        challenged = final[0].to_bytes(32, "big") + output_key + task.sighash
        e = _scalar("BIP0340/challenge", challenged)
        a = coefficient(task.signers, public.pubkey) * _keys_parity(task.key_agg)
        sign = 1 if final[1] % 2 == 0 else -1
        scalar: int = (sign * (first + b * second) + e * a * seckey) % ORDER
        return scalar.to_bytes(32, "big")


class OneNonceForAll(BrokenSigner):
    """Whatever index it is asked for, it signs with the first nonce."""

    def spent_for(self, index: int) -> int:
        del index
        return 0


class SameNoncesAgain(BrokenSigner):
    """A fresh key for each attempt, and the same nonces: two keys that share them."""

    def nonce_for(self, pool: int, index: int) -> tuple[int, int]:
        return super().nonce_for(pool % 2, index)  # One pool for the tree, one for the channel.


class NegatedNonces(BrokenSigner):
    """Every second nonce is the one before it, negated: other points, and no other secret."""

    def nonce_for(self, pool: int, index: int) -> tuple[int, int]:
        first, second = super().nonce_for(pool, index - index % 2)
        return (ORDER - first, ORDER - second) if index % 2 else (first, second)


def broken(kind: type[BrokenSigner]) -> type[PumpNode]:
    class BrokenNode(PumpNode):
        def start(self) -> None:
            super().start()
            assert self.signer is not None
            self.signer = kind(self.signer._keychain)

    return BrokenNode


class BrokenPump(Pump):
    """One whose clients have a broken signer."""

    def __init__(self, kind: type[BrokenSigner]) -> None:
        self.client_kind = broken(kind)
        super().__init__(3)


def attempts_that_fail_below(pump: Pump, n_attempts: int) -> None:
    """Let the LSP take what all clients send in step 1, and end the attempt, over and over."""
    pump.join()
    for _ in range(n_attempts):
        pump.build()
        pump.run_to(m.SignedBelow)
        request = fx.PartialSign(attempt_id=pump.attempt.attempt_id, requests=())
        pump.wire.clear()
        pump.handle(pump.lsp, ev.SigningFailed(asked=request, reason="none of theirs"))
        pump.run()


def signatures_of(pump: Pump, client: PumpNode) -> list[SentSignature]:
    return transcript_of(pump, client).signatures


def factory_key(client: PumpNode, attempt: int) -> bytes:
    assert client.signer is not None
    return client.signer._keychain.seckey(FactoryKey(attempt=attempt))


def test_the_attacker_finds_the_key_of_a_signer_with_one_nonce_for_all() -> None:
    """Two signatures are told to be of one nonce, and from the third on the key is known."""
    pump = BrokenPump(OneNonceForAll)
    client = pump.clients[0]
    pump.join()
    pump.build()
    pump.run()
    sent = [one for one in signatures_of(pump, client) if "commitment" not in one.task.name]
    assert len(sent) >= 3
    assert extracted(sent[:2]) == {}
    assert len(set(reused(sent[:2]))) == 1
    seckey = factory_key(client, 0)
    assert extracted(sent[:3]) == {pubkey_of(seckey): seckey}


def test_the_attacker_finds_all_keys_that_share_their_nonces() -> None:
    pump = BrokenPump(SameNoncesAgain)
    client = pump.clients[0]
    attempts_that_fail_below(pump, 3)
    sent = [one for one in signatures_of(pump, client) if "commitment" not in one.task.name]
    n_each = len(sent) // 3
    assert extracted(sent[: 2 * n_each]) == {}
    assert reused(sent[: 2 * n_each])
    keys = [factory_key(client, attempt) for attempt in range(3)]
    assert extracted(sent) == {pubkey_of(seckey): seckey for seckey in keys}


def test_the_attacker_knows_a_nonce_by_its_negative() -> None:
    pump = BrokenPump(NegatedNonces)
    pump.join()
    pump.build()
    pump.run()
    assert pump.is_funded(), "every signature was valid"
    assert reused(signatures_of(pump, pump.clients[0]))


def test_a_signer_that_is_sound_in_numbers_gives_nothing_away() -> None:
    """What is found above is found in what is broken, and not in how it is broken."""
    pump = BrokenPump(BrokenSigner)
    pump.join()
    pump.build()
    pump.run()
    assert pump.is_funded()
    check_nothing_follows(pump, pump.clients[0], at_least=BELOW)


# What it finds in what a client of ours sent


def check_nothing_follows(pump: Pump, client: PumpNode, *, at_least: int) -> None:
    sent = signatures_of(pump, client)
    assert len(sent) >= at_least
    assert reused(sent) == []
    assert extracted(sent) == {}


def other_aggnonce(propose: m.Propose) -> bytes:
    """Return an aggregate nonce that fits nothing."""
    uses = propose.candidates[0].nonces
    return nonce_agg([uses[0].aggnonce, uses[1].aggnonce])


def again(change: Callable[[m.Propose], m.Propose]) -> Callable[[m.Propose], Sequence[m.Message]]:
    """Propose honestly, and then something else to the same join."""
    return lambda propose: (propose, change(propose))


def renamed(propose: m.Propose) -> m.Propose:
    return replace(propose, attempt_id=b"\x0e" * 32)


def turned(propose: m.Propose) -> m.Propose:
    """Let each session take the nonce of another."""
    uses = propose.candidates[0].nonces
    indices = [use.index for use in uses]
    moved = zip(uses, (*indices[1:], indices[0]), strict=True)
    return with_candidate(propose, nonces=tuple(replace(use, index=index) for use, index in moved))


def far(propose: m.Propose) -> m.Propose:
    """Let each session take a nonce from the pool's other end."""
    uses = propose.candidates[0].nonces
    return with_candidate(propose, nonces=tuple(replace(use, index=15 - use.index) for use in uses))


def misfit(propose: m.Propose) -> m.Propose:
    """Give every session an aggregate nonce that does not fit."""
    uses = propose.candidates[0].nonces
    wrong = other_aggnonce(propose)
    return with_candidate(propose, nonces=tuple(replace(use, aggnonce=wrong) for use in uses))


def infinite(propose: m.Propose) -> m.Propose:
    """Let the effective nonces cancel out."""
    uses = propose.candidates[0].nonces
    return with_candidate(propose, nonces=tuple(replace(use, aggnonce=bytes(66)) for use in uses))


HOSTILE: Final[dict[str, Callable[[m.Propose], Sequence[m.Message]]]] = {
    "the proposal twice": lambda propose: (propose, propose),
    "a second attempt for the same join": again(renamed),
    "a second attempt that takes the nonces of other sessions": again(
        lambda propose: renamed(turned(propose))
    ),
    "the same attempt with other aggregate nonces": again(misfit),
    "nonces from the other end of the pool": lambda propose: (far(propose),),
    "nonces of other sessions": lambda propose: (turned(propose),),
    "aggregate nonces that do not fit": lambda propose: (misfit(propose),),
    "aggregate nonces at infinity": lambda propose: (infinite(propose),),
    "one aggregate nonce that does not fit": lambda propose: (
        with_nonce(propose, 1, aggnonce=other_aggnonce(propose)),
    ),
    "a commitment's aggregate nonce that does not fit": lambda propose: (
        with_commitment_nonce(propose, 0, aggnonce=other_aggnonce(propose)),
    ),
    "one aggregate nonce for all": lambda propose: (
        with_candidate(
            propose,
            nonces=tuple(
                replace(use, aggnonce=propose.candidates[0].nonces[0].aggnonce)
                for use in propose.candidates[0].nonces
            ),
        ),
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("what", HOSTILE)
def test_no_proposal_gets_a_key_out_of_a_client(what: str) -> None:
    """Then the attempt ends, one way or another, and another one follows, as the LSP likes it."""
    pump = proposed()
    victim = pump.client_at(2)
    with pump.tampering(only_to(victim, HOSTILE[what], m.Propose)):
        pump.run()
        deadline = fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)
        pump.pass_deadline(pump.lsp, deadline)
        pump.run()
    pump.join_again()
    pump.build()
    pump.run()
    check_nothing_follows(pump, victim, at_least=BELOW)


def test_an_index_for_two_sessions_is_refused_and_nothing_is_signed() -> None:
    pump = proposed()
    victim = pump.client_at(2)
    reusing = only_to(victim, lambda propose: (with_nonce(propose, 1, index=0),), m.Propose)
    with pump.tampering(reusing):
        pump.run()
    assert signatures_of(pump, victim) == []
    held = next(iter(victim.state.attempts.values()))
    assert (held.aborted or "").startswith("refused: state_root.nonce_index: expected unused")


def test_attempts_that_fail_again_and_again_give_nothing_away() -> None:
    pump = Pump(3)
    attempts_that_fail_below(pump, 4)
    check_nothing_follows(pump, pump.clients[0], at_least=4 * BELOW)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("stops_at", [m.SignedBelow, m.SignRoot, m.SignedRoot])
def test_a_client_that_restarts_and_hears_all_of_it_again_signs_nothing_again(
    stops_at: type[m.Message],
) -> None:
    pump = proposed()
    victim = pump.client_at(2)
    heard: list[m.Message] = []

    def noting(_sender: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if to is victim and isinstance(message, m.Propose | m.SignedBelow | m.SignedRoot):
            heard.append(message)
        return (message,)

    with pump.tampering(noting):
        pump.run_to(stops_at)
        n_sent = len(signatures_of(pump, victim))
        pump.restart(victim)
        for message in [*heard, *heard]:
            pump.lsp_says(victim, message)
        assert len(signatures_of(pump, victim)) == n_sent
        pump.run()
    pump.join_again()
    pump.build()
    pump.run()
    check_nothing_follows(pump, victim, at_least=n_sent)


@pytest.mark.parametrize("kind", [m.SignedBelow, m.SignedRoot])
def test_finished_signatures_that_come_twice_and_spoiled_make_no_second_signature(
    kind: type[m.Message],
) -> None:
    pump = proposed()
    victim = pump.client_at(2)

    def twice(message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.SignedRoot):
            return (replace(message, signatures=(bytes(64),)), message, message)
        assert isinstance(message, m.SignedBelow)
        empty = replace(message.candidates[0], commitment_partial_sig=bytes(32))
        return (message, message, replace(message, candidates=(empty,)), message)

    with pump.tampering(only_to(victim, twice, kind)):
        pump.run()
    check_nothing_follows(pump, victim, at_least=BELOW + 1)
