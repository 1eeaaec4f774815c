"""Keys that a client hands over, between real daemons: over the wire and into the file."""

import asyncio
import logging
from pathlib import Path

import pytest
from tests.daemon.town import Town, town

from cromford import effects as fx
from cromford.adapters.key_file import KEY_FILE, KeyFile
from cromford.daemon.clientd import ClientDaemon
from cromford.daemon.lspd import LspDaemon
from cromford.signing.handed_over import SealedKeys
from cromford.signing.keychain import ChannelKey, FactoryKey


def hand_over(t: Town, name: str) -> tuple[bytes, bytes]:
    """Let a client's daemon send two of its keys, and return them."""
    daemon, _ = t.running[name]
    assert isinstance(daemon, ClientDaemon)
    (attempt,) = daemon.state.attempts.values()
    effect = fx.HandOverKeys(
        node_id=attempt.lsp_node_id,
        attempt_id=attempt.attempt_id,
        factory=FactoryKey(attempt=attempt.key_attempt),
        channel=ChannelKey(attempt=attempt.key_attempt, channel=0),
    )
    daemon._perform(effect)
    return daemon._signer.hand_over(effect.factory, effect.channel)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("can't start new thread")]
)
def test_keys_cross_the_wire_into_the_file_and_into_nothing_else(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    caplog.set_level(logging.DEBUG)
    put = KeyFile.put
    is_full = True

    def sometimes(file: KeyFile, keys: SealedKeys) -> None:
        if is_full:
            raise error
        put(file, keys)

    monkeypatch.setattr(KeyFile, "put", sometimes)

    async def hand_over_twice() -> tuple[bytes, bytes]:
        nonlocal is_full
        async with town(tmp_path) as t:
            await t.start_client("alice")
            await t.build("alice")
            hand_over(t, "alice")
            await t.until("lsp", "status", lambda _: "keys_not_kept" in caplog.text)
            assert (await t.call("lsp", "factories"))["factories"][0]["moved_out"] == []
            is_full = False
            secrets = hand_over(t, "alice")
            await t.until("lsp", "factories", lambda a: a["factories"][0]["moved_out"] == [1])
            assert (await t.call("lsp", "status"))["handed_over_keys"] == {
                "n_clients": 1,
                "problem": "",
            }
            (file,) = (tmp_path / "lsp").glob(f"*/{KEY_FILE}")
            await t.stop("lsp")
            data = bytearray(file.read_bytes())
            data[-20] ^= 1
            file.write_bytes(bytes(data))
            await t.start_lsp()
            daemon, _ = t.running["lsp"]
            assert isinstance(daemon, LspDaemon)
            status = (await t.call("lsp", "status"))["handed_over_keys"]
            assert status == {"n_clients": 0, "problem": "1 of its entries are damaged"}
            return secrets

    secrets = asyncio.run(hand_over_twice())
    assert "keys_damaged problem=1 of its entries are damaged" in caplog.text
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("lsp/**/*") if path.is_file())
    for secret in secrets:
        assert secret not in stored
        assert secret.hex() not in caplog.text
        assert repr(secret)[2:-1] not in caplog.text
