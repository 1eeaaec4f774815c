"""The one holder of secrets: derives keys, makes nonce pools, signs.

Only this object sees a seckey or a secret nonce, so neither can reach a journal, a log or a
message. It lives in one process that never forks after a pool was made.
"""

from collections.abc import Callable, Sequence
from typing import Final

from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taproot_output, taptweak
from cromford.bitcoin.timelocked import Timelock
from cromford.bitcoin.tx import Tx, TxOut
from cromford.crypto import keys, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.musig2 import SecNonce, nonce_agg
from cromford.signing.derivation import ClaimKey
from cromford.signing.handed_over import (
    KeysUnusable,
    OfferedKeys,
    SealedKeys,
    SecretPair,
    unsealed,
)
from cromford.signing.keychain import (
    ChannelKey,
    ChannelPubkeys,
    FactoryKey,
    HandedOverKey,
    Keychain,
    KeyName,
)
from cromford.signing.nonces import NonceFault, NoncePool, NoPoolFree, PoolCounts, PublicPool
from cromford.signing.task import SigningTask

# Besides one for each live channel. A ceremony takes one for the factory, and one for each of 1,024
# clients in each of 4 funding candidates; the rest is for closes, advances, and those of the
# ceremony before that are not dropped yet.
N_POOLS_SPARE: Final = 3 * 4096
# Keys that clients offered at once, while it is decided whether they are kept.
N_OFFERED_MAX: Final = 256

hash_move: Final = keys.TaggedHash("cromford/move")


class Signer:
    """Signs for one participant.

    Args:
        keychain: Its keys.
        n_channels: Returns how many live channels there are: each may hold one pool.
    """

    def __init__(self, keychain: Keychain, *, n_channels: Callable[[], int] = lambda: 0) -> None:
        self._keychain = keychain
        self._n_channels = n_channels
        self._pools: dict[bytes, NoncePool] = {}
        # Apart, so that `partial_sign` does not find them: they sign by `partial_sign_for` alone.
        self._clients_pools: dict[bytes, NoncePool] = {}
        self._offered: dict[OfferedKeys, SecretPair] = {}  # Those that came first, first.

    def factory_pubkey(self, attempt: int) -> bytes:
        """Return the factory key of one attempt."""
        return self._keychain.pubkey(FactoryKey(attempt=attempt))

    def channel_pubkeys(self, name: ChannelKey) -> ChannelPubkeys:
        """Return the public keys of one channel."""
        return self._keychain.channel_pubkeys(name)

    def make_pool(self, name: KeyName, size: int, *, after: bytes | None = None) -> PublicPool:
        """Make a pool of fresh nonces and return its public half.

        Args:
            name: The key that signs with them.
            size: How many.
            after: The id of the pool in whose place it comes, which is dropped next: for that one
                there is always room.

        Raises:
            NoPoolFree: If there are too many pools.
            ValueError: If the size is out of range.
        """
        if after not in self._pools:
            self._check_room()
        pool = NoncePool(self._keychain.keypair(name), size=size)
        self._pools[pool.public.pool_id] = pool
        return pool.public

    def n_nonces(self) -> PoolCounts:
        """Return how many pools there are, and how many of their nonces are used and left."""
        pools = [*self._pools.values(), *self._clients_pools.values()]
        return PoolCounts(
            n_pools=len(pools),
            n_used=sum(pool.n_used for pool in pools),
            n_left=sum(pool.n_left for pool in pools),
        )

    def _check_room(self) -> None:
        pools_max = N_POOLS_SPARE + self._n_channels()
        if len(self._pools) + len(self._clients_pools) >= pools_max:
            raise NoPoolFree(f"{pools_max} nonce pools are held")

    def drop_pool(self, pool_id: bytes) -> None:
        """Forget a pool. Harmless if it is gone."""
        pool = self._pools.pop(pool_id, None) or self._clients_pools.pop(pool_id, None)
        if pool is not None:
            pool.drop()

    def bind(self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes) -> None:
        """Bind a nonce to what it is going to sign, and remember who else signs that.

        Raises:
            NonceFault: If the pool is gone, or the index is bound to anything else.
            ValueError: If it is not known who signs.
        """
        self._pool(pool_id).bind(index, task, aggnonce)

    def partial_sign(self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes) -> bytes:
        """Return a 32-byte partial signature; the same request again returns the same bytes.

        Of what the nonce was bound to by `bind` the task need not say who signs.

        Raises:
            NonceFault: If the pool is gone, or the index is bound to anything else.
            ValueError: If the aggregate nonce is malformed, or it is not known who signs.
        """
        return self._pool(pool_id).partial_sign(index, task, aggnonce)

    def _pool(self, pool_id: bytes) -> NoncePool:
        pool = self._pools.get(pool_id)
        if pool is None:
            raise NonceFault("the nonce pool was dropped")
        return pool

    # Keys of clients that moved out

    def hand_over(self, factory: FactoryKey, channel: ChannelKey) -> tuple[bytes, bytes]:
        """Return the factory secret and the funding secret of one attempt, in the clear.

        For the one message that gives them away, and for nothing else. Both are at hardened
        paths, and go without their chain codes: no other key follows from them (BIP 32).
        """
        return self._keychain.seckey(factory), self._keychain.seckey(channel)

    def offer(self, *, factory_secret: bytes, funding_secret: bytes) -> OfferedKeys:
        """Take two secrets that a peer sent, and return which keys they are, if they are any.

        They stay here until they are sealed, or dropped, or `N_OFFERED_MAX` others came: what is
        decided about them may wait for the disk, and all of a factory may move out in one block.
        """
        pair = SecretPair(factory_secret=factory_secret, funding_secret=funding_secret)
        self._offered.pop(pair.offered, None)
        self._offered[pair.offered] = pair
        if len(self._offered) > N_OFFERED_MAX:
            del self._offered[next(iter(self._offered))]
        return pair.offered

    def drop_offered(self, offered: OfferedKeys) -> None:
        """Forget what a peer sent. Harmless if it is gone."""
        self._offered.pop(offered, None)

    def seal_offered(self, offered: OfferedKeys, *, attempt: int, client: int) -> SealedKeys:
        """Return what is stored of the keys that were offered, and forget them.

        Raises:
            KeysUnusable: If they are not there any more.
        """
        pair = self._offered.pop(offered, None)
        if pair is None:
            raise KeysUnusable("not there any more")
        return pair.sealed(self._keychain, attempt=attempt, client=client)

    def check_stored(self, stored: SealedKeys, offered: OfferedKeys) -> None:
        """Check that what is held of a client's keys is whole, and these.

        Raises:
            KeysUnusable: If not; says why.
        """
        if unsealed(self._keychain, stored).offered != offered:
            raise KeysUnusable("others than the client's")

    def make_pool_for(
        self, name: HandedOverKey, stored: SealedKeys, pubkey: bytes, size: int
    ) -> PublicPool:
        """Make a pool of fresh nonces of a key that a client handed over.

        Args:
            name: The key that signs with them.
            stored: What is held of that client's keys.
            pubkey: The key that signs for the client's seat.
            size: How many.

        Raises:
            KeysUnusable: If what is held is not this seat's, or damaged.
            NoPoolFree: If there are too many pools.
            ValueError: If the size is out of range.
        """
        self._check_room()
        if (stored.attempt, stored.client) != (name.attempt, name.client):
            raise KeysUnusable(f"of client {stored.client} of attempt {stored.attempt}")
        keypair = Keypair(unsealed(self._keychain, stored).seckey(name))
        if keypair.pubkey != pubkey:
            raise KeysUnusable("not the key that signs for this seat")
        pool = NoncePool(keypair, size=size)
        self._clients_pools[pool.public.pool_id] = pool
        return pool.public

    def partial_sign_for(
        self, pool_id: bytes, index: int, task: SigningTask, aggnonce: bytes
    ) -> bytes:
        """Return a partial signature for a client that handed its key over, as `partial_sign`.

        Raises:
            NonceFault: If the pool is gone, or the index is bound to anything else.
            ValueError: If the aggregate nonce is malformed.
        """
        pool = self._clients_pools.get(pool_id)
        if pool is None:
            raise NonceFault("the nonce pool was dropped")
        return pool.partial_sign(index, task, aggnonce)

    def partial_sign_fresh(
        self, name: ChannelKey, task: SigningTask, pubnonce: bytes
    ) -> tuple[bytes, bytes]:
        """Return our public nonce and partial signature of a two-party task.

        The nonce is made, spent and gone within the call: only for whoever signs second, knowing
        what is signed and the other's nonce.

        Args:
            name: The channel whose funding key signs.
            task: What is signed.
            pubnonce: The other signer's.

        Raises:
            ValueError: If its public nonce is malformed.
        """
        secnonce = SecNonce(self._keychain.keypair(name))
        session = task.session(nonce_agg([secnonce.pubnonce, pubnonce]))
        return secnonce.pubnonce, secnonce.sign(session)

    def per_commitment_point(self, name: ChannelKey, number: int) -> bytes:
        """Return the per-commitment point of our commitment of this number.

        Raises:
            ValueError: If there is no such commitment.
        """
        return keys.pubkey_of(self._keychain.per_commitment_secret(name, number))

    def per_commitment_secret(self, name: ChannelKey, number: int) -> bytes:
        """Return the secret that revokes our commitment of this number. It must be superseded.

        Raises:
            ValueError: If there is no such commitment.
        """
        return self._keychain.per_commitment_secret(name, number)

    def sign_claim(
        self,
        name: ChannelKey,
        key: ClaimKey,
        secret_or_point: bytes,
        sighash: bytes,
        *,
        tweak: bytes | None = None,
    ) -> bytes:
        """Return the signature that takes an output of a commitment or an HTLC transaction.

        Args:
            name: The channel.
            key: Which of its keys.
            secret_or_point: For `REVOCATION` the secret that the peer revealed; else the
                per-commitment point of the commitment's holder.
            sighash: What is signed.
            tweak: For a key-path spend, what the seckey is tweaked with (BIP 341).

        Raises:
            ValueError: If the secret is out of range.
        """
        seckey = self._keychain.claim_seckey(name, key, secret_or_point)
        if tweak is not None:
            seckey = keys.xonly_tweak_seckey(seckey, tweak)
        return schnorr.sign(sighash, seckey)

    def sign_node(self, digest: bytes) -> bytes:
        """Return the node key's recoverable ECDSA signature of an invoice's digest (BOLT 11)."""
        return self._keychain.sign_node(digest)

    def sign_move(self, name: FactoryKey, statement: bytes) -> bytes:
        """Return a BIP 340 signature of a statement under the tag of moves.

        The tag is hashed here, so it is never a signature of a transaction.
        """
        return schnorr.sign(hash_move(statement), self._keychain.seckey(name))

    def sign_timelocked(
        self,
        name: FactoryKey,
        lock: Timelock,
        tx: Tx,
        prevouts: Sequence[TxOut],
        *,
        input_index: int = 0,
    ) -> bytes:
        """Return the factory key's signature of the script path that it has alone (BIP 342).

        Script and digest are made here, out of our own key and the timelock:
        what comes out spends by no key path and by no other script. A key path of a factory is
        signed in a MuSig2 session only, by `partial_sign`.

        Args:
            name: The key.
            lock: The timelock of the script.
            tx: The transaction.
            prevouts: What each of its inputs spends.
            input_index: Which of them is this key's; the others are other keys' to sign.

        Raises:
            ValueError: If the prevouts do not match the inputs, or the timelock has no script.
        """
        script = lock.script(keys.xonly_of(self._keychain.pubkey(name)))
        sighash = taproot_sighash(tx, prevouts=prevouts, input_index=input_index, tapscript=script)
        return schnorr.sign(sighash, self._keychain.seckey(name))

    def sign_payout(
        self, name: FactoryKey, tx: Tx, prevouts: Sequence[TxOut], *, input_index: int
    ) -> bytes:
        """Return the signature of an output that pays the factory key alone (BIP 86, BIP 341).

        A poison has such outputs, and nothing else of a factory: its other outputs are several
        keys', so no signature that comes out of here spends one.

        Args:
            name: The key.
            tx: The transaction.
            prevouts: What each of its inputs spends.
            input_index: Which of them is this key's.

        Raises:
            ValueError: If that output does not pay this key alone, or the prevouts do not match the
                inputs.
        """
        internal_key = keys.xonly_of(self._keychain.pubkey(name))
        script = taproot_output(internal_key, None).script_pubkey
        received = prevouts[input_index].script_pubkey
        if received != script:
            raise ValueError(f"script_pubkey: expected {script.hex()}, received {received.hex()}")
        sighash = taproot_sighash(tx, prevouts=prevouts, input_index=input_index)
        tweak = taptweak(internal_key, None)
        return schnorr.sign(sighash, keys.xonly_tweak_seckey(self._keychain.seckey(name), tweak))

    def sign_coin(self, change: int, index: int, sighash: bytes) -> bytes:
        """Return the key-path signature (BIP 341) of an input that spends a coin of the wallet.

        Args:
            change: Of its key's path, receive or change.
            index: Likewise.
            sighash: What is signed.
        """
        return self._keychain.sign_wallet(change=change, index=index, sighash=sighash)

    def sign_wallet_tx(
        self, tx: Tx, prevouts: Sequence[TxOut], paths: Sequence[tuple[int, int] | None]
    ) -> Tx:
        """Return `tx` with a key-path signature for every input that has a wallet path.

        Args:
            tx: The transaction.
            prevouts: What each input spends.
            paths: For each input (change, index), or None where it is not the wallet's.
        """
        witnesses = [
            tx_in.witness
            if path is None
            else (self.sign_coin(*path, taproot_sighash(tx, prevouts=prevouts, input_index=i)),)
            for i, (tx_in, path) in enumerate(zip(tx.inputs, paths, strict=True))
        ]
        return tx.with_witnesses(*witnesses)
