"""Bitcoin Core's own consensus code, through libbitcoinkernel: the only module that touches it.

Two things are here: `check_scripts`, which asks the kernel whether a transaction may spend what
it spends, and `KernelChain`, a regtest chain in memory that takes raw blocks. The library is
loaded on first use, because most of the program never needs it. It is an alpha release: never
for real money.

Three of its habits are tamed here, so that no caller meets them: `ScriptPubkey.verify` returns a
falsy value for an invalid script instead of raising; `process_block` reports success for blocks
that were refused, so the tip is compared afterwards; and a `BlockValidationState` must not be
read after its callback has returned.
"""

import importlib
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from cromford.bitcoin.tx import Tx, TxOut

SCRATCH_PREFIX: Final = "cromford-kernel-"
N_INPUTS_MAX: Final = 25_000  # More do not fit a block.


class ScriptRefused(Exception):
    """The kernel refused one input of a transaction."""

    def __init__(self, input_index: int, prevout: TxOut) -> None:
        super().__init__(
            f"the kernel refused input {input_index}, which spends {prevout.amount_sat} sat "
            f"from the script {prevout.script_pubkey.hex()}"
        )
        self.input_index = input_index


class BlockRefused(Exception):
    """The kernel refused a block. `result` is its own word for why, as `CONSENSUS`."""

    def __init__(self, result: str) -> None:
        super().__init__(f"the kernel refused the block: {result}")
        self.result = result


class KernelUnavailable(Exception):
    """The library could not be loaded, or could not start a chain."""


def check_scripts(tx: Tx, prevouts: Sequence[TxOut]) -> None:
    """Check every input's script and witness with all consensus rules active.

    Amounts, timelocks and whether the coins exist are not looked at: only the scripts are, with
    `nSequence` and `nLockTime` as the scripts themselves demand (BIP 65, BIP 112).

    Args:
        tx: The complete transaction.
        prevouts: What each input spends, in order: BIP 341 commits to all of them.

    Raises:
        ScriptRefused: If the kernel finds an input invalid; names the first.
        ValueError: If the number of prevouts is not the number of inputs.
        KernelUnavailable: If the library could not be loaded.
    """
    if len(prevouts) != len(tx.inputs):
        raise ValueError(f"{len(tx.inputs)} inputs and {len(prevouts)} prevouts")
    if not 0 < len(tx.inputs) <= N_INPUTS_MAX:
        raise ValueError(f"1..{N_INPUTS_MAX} inputs were expected, received {len(tx.inputs)}")
    pbk = library()
    kernel_tx = pbk.Transaction(tx.serialize())
    scripts = [pbk.ScriptPubkey(prevout.script_pubkey) for prevout in prevouts]
    outputs = [
        pbk.TransactionOutput(script, prevout.amount_sat)
        for script, prevout in zip(scripts, prevouts, strict=True)
    ]
    precomputed = pbk.script.PrecomputedTransactionData(kernel_tx, outputs)
    flags = pbk.ScriptVerificationFlags.ALL
    for index, (script, prevout) in enumerate(zip(scripts, prevouts, strict=True)):
        if not script.verify(prevout.amount_sat, kernel_tx, precomputed, index, flags):
            raise ScriptRefused(index, prevout)


class KernelChain:
    """A regtest chain that only valid blocks can enter.

    The kernel writes about 17 MB to disk whatever is asked of it; they go into a temporary
    directory that is deleted by `close`, and by the interpreter's exit if nobody calls it.

    Args:
        scratch: Where to make that directory; None for the system's place.

    Raises:
        KernelUnavailable: If the library could not be loaded, or could not start a chain.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        pbk = library()
        self._directory = tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=scratch)
        self._delete = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self._verdict: str = "UNSET"
        # The kernel keeps raw pointers to these callbacks: they must live as long as the chain.
        self._callbacks = pbk.ValidationInterfaceCallbacks(block_checked=self._block_checked)
        try:
            self._manager: Any = self._start(pbk)
        except RuntimeError as error:
            self._delete()
            raise KernelUnavailable(f"the kernel could not start a chain: {error}") from error
        self._pbk = pbk

    def _start(self, pbk: ModuleType) -> Any:  # noqa: ANN401 - the library ships no types
        options = pbk.ContextOptions()
        options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
        options.set_validation_interface(self._callbacks)
        context = pbk.Context(options)
        directory = Path(self._directory)
        chain_options = pbk.ChainstateManagerOptions(
            context, str(directory), str(directory / "blocks")
        )
        chain_options.set_worker_threads_num(0)
        chain_options.update_block_tree_db_in_memory(block_tree_db_in_memory=True)
        chain_options.update_chainstate_db_in_memory(chainstate_db_in_memory=True)
        return pbk.ChainstateManager(chain_options)

    def _block_checked(self, _user_data: object, _block: object, state: Any) -> None:  # noqa: ANN401 - the library ships no types
        self._verdict = str(state.block_validation_result.name)

    def tip_hash(self) -> bytes:
        """Return the hash of the best block, in internal byte order."""
        entries = self._manager.get_active_chain().block_tree_entries
        return bytes(entries[len(entries) - 1].block_hash)

    def connect(self, raw_block: bytes, block_hash: bytes) -> None:
        """Make `raw_block` the new tip.

        Args:
            raw_block: The serialised block.
            block_hash: Its hash, in internal byte order: the tip to expect afterwards.

        Raises:
            BlockRefused: If it did not become the tip, because it is invalid or extends another.
        """
        self._verdict = "UNSET"
        try:
            self._manager.process_block(self._pbk.Block(raw_block))
        except RuntimeError as error:
            raise BlockRefused("MALFORMED") from error
        except self._pbk.ProcessBlockException as error:
            raise BlockRefused(self._verdict) from error
        if self.tip_hash() != block_hash:
            raise BlockRefused(self._verdict)

    def close(self) -> None:
        """Release the chain and delete its files. Safe to call twice."""
        self._manager = None
        self._delete()


def delete_left_over(scratch: Path) -> None:
    """Delete what kernel chains of a process that was killed have left in a directory."""
    for directory in scratch.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(directory, ignore_errors=True)


@cache
def library() -> ModuleType:
    """Return the kernel's bindings, loaded once, with its log switched off.

    Raises:
        KernelUnavailable: If they cannot be loaded.
    """
    # Loading the library takes long, and most runs of the program never need it.
    try:
        pbk = importlib.import_module("pbk")
        bindings = importlib.import_module("pbk.capi.bindings")
    except (ImportError, OSError) as error:
        raise KernelUnavailable(f"libbitcoinkernel could not be loaded: {error}") from error
    # Without a listener the kernel would keep its log in memory.
    bindings.btck_logging_disable()
    return pbk
