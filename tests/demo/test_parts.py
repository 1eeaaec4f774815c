"""What the demo refuses before it starts, and what it would notice if it went wrong."""

import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cromford.daemon.api.failures import ApiFailure
from cromford.demo.building import _n_coins
from cromford.demo.exiting import _channel_on_chain, _published
from cromford.demo.failure import DemoFailed
from cromford.demo.node import Node, n_blocks_paying
from cromford.demo.processes import Children, interruptible
from cromford.demo.settings import DemoSettings, check_settings
from cromford.demo.steps import Steps
from cromford.demo.world import DaemonProcess, World, client_names, explain_loss


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, step: str) -> None:
        self.lines.append(f"begin {step}")

    def update(self, detail: str) -> None:
        self.lines.append(f"update {detail}")

    def note(self, line: str) -> None:
        self.lines.append(f"note {line}")

    def end(self, outcome: str, seconds: float) -> None:
        self.lines.append(f"end {outcome}")
        assert seconds >= 0


def test_a_step_that_waits_too_long_ends_by_name() -> None:
    told = Told()
    steps = Steps(told, check_alive=lambda: None)
    with (
        pytest.raises(DemoFailed, match="gather: gave up waiting for Godot"),
        steps.step("gather", seconds=0.01) as step,
    ):
        step.wait_for("Godot", lambda: None)
    assert told.lines == ["begin gather"]


def test_a_step_that_waits_notices_a_dead_process_at_once() -> None:
    def check_alive() -> None:
        raise DemoFailed("process_died", "lsp ended")

    began = time.monotonic()
    with (
        pytest.raises(DemoFailed, match="lsp ended"),
        Steps(Told(), check_alive).step("gather", seconds=60) as step,
    ):
        step.wait_for("Godot", lambda: None)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("code", ["connection_lost", "lsp_unreachable"])
def test_a_call_that_fails_because_a_process_died_names_that_process(code: str) -> None:
    looks = iter([None, None, DemoFailed("process_died", "lsp ended with code -9")])

    def check_alive() -> None:
        # A process that was killed is not gone at once.
        found = next(looks)
        if found is not None:
            raise found

    def fail() -> None:
        raise ApiFailure(code, "gone")

    with pytest.raises(DemoFailed, match="lsp ended with code -9"):
        explain_loss(cast("Children", SimpleNamespace(check_alive=check_alive)), fail)


def test_steps_are_told_and_kept() -> None:
    told = Told()
    steps = Steps(told, check_alive=lambda: None)
    with steps.step("sign", seconds=60) as step:
        assert step.wait_for("an answer", lambda: 0) == 0
        step.outcome = "signed"
    assert told.lines == ["begin sign", "end signed"]
    assert [(taken.name, taken.outcome) for taken in steps.taken] == [("sign", "signed")]


def test_a_directory_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(DemoFailed, match="is not empty") as refused:
        check_settings(DemoSettings(keep=tmp_path))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("exit_client", [0, 5])
def test_only_a_client_of_the_factory_can_leave(exit_client: int) -> None:
    with pytest.raises(DemoFailed, match=r"expected a client in 1\.\.4"):
        check_settings(DemoSettings(exit_client=exit_client))


@pytest.mark.parametrize("n_clients", range(1, 17))
def test_the_default_demo_fits_any_number_of_clients(n_clients: int) -> None:
    check_settings(DemoSettings(n_clients=n_clients, exit_client=n_clients))


@pytest.mark.parametrize(
    ("tip_height", "amount_sat", "n_blocks"),
    [
        (0, 1, 1),
        (0, 5_000_000_000, 1),
        (0, 5_000_000_001, 2),
        (148, 7_500_000_000, 2),  # block 149 is the last that creates 50 bitcoin
        (149, 7_500_000_000, 3),
        (150 * 33, 1, None),
    ],
)
def test_on_an_older_chain_more_blocks_pay_for_the_factory(
    tip_height: int, amount_sat: int, n_blocks: int | None
) -> None:
    assert n_blocks_paying(amount_sat, tip_height=tip_height, n_blocks_max=200) == n_blocks


def test_a_chain_whose_blocks_pay_too_little_is_refused() -> None:
    node = cast("Node", SimpleNamespace(height=lambda: 3_000))
    with pytest.raises(DemoFailed, match="at height 3,000 a block of this regtest chain creates"):
        _n_coins(DemoSettings(), node)


def test_every_client_process_has_a_name_of_its_own() -> None:
    names = client_names(64)
    assert len(set(names)) == 64
    assert names[:2] == ["client-a", "client-b"]


TXID = "22" * 32
EXPORTED: dict[str, Any] = {
    "factory_id": "f0" * 32,
    "funding": {"txid": "11" * 32},
    "transactions": [
        {
            "name": "state_root",
            "txid": TXID,
            "nsequence": 432,
            "outputs": [
                {
                    "kind": "channel",
                    "client": 1,
                    "amount_sat": 500,
                    "script_pubkey": "51",
                    "descriptor": "d",
                }
            ],
        }
    ],
}


def world_of(
    *,
    heights: dict[str, int] | None = None,
    output: dict[str, Any] | None = None,
) -> World:
    node = SimpleNamespace(
        confirmed_height=(heights or {}).get,
        output=lambda _txid, _vout: output,
    )
    return cast("World", SimpleNamespace(node=node))


def daemon_of(channel_outpoint: str) -> DaemonProcess:
    plan = {"steps": [{"name": "state_root", "txid": TXID, "delay_blocks": 432}]}
    return cast(
        "DaemonProcess",
        SimpleNamespace(
            call=lambda _method, **_params: plan,
            newest_factory=lambda: {"channel_outpoint": channel_outpoint},
        ),
    )


DAEMON = daemon_of(f"{TXID}:0")
FUNDED_AT = {"11" * 32: 100}


def test_a_state_on_chain_before_its_delay_is_noticed() -> None:
    on_time = _published(world_of(heights=FUNDED_AT | {TXID: 532}), DAEMON, EXPORTED)
    assert [tx["height"] for tx in on_time] == [532]
    with pytest.raises(DemoFailed, match="came 431 blocks after its parent"):
        _published(world_of(heights=FUNDED_AT | {TXID: 531}), DAEMON, EXPORTED)


def test_a_transaction_that_is_not_on_chain_is_noticed() -> None:
    with pytest.raises(DemoFailed, match="state_root is not on chain"):
        _published(world_of(heights=FUNDED_AT), DAEMON, EXPORTED)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (None, "is not on chain"),
        ({"amount_sat": 499, "script_pubkey": "51", "confirmations": 1}, "expected 500"),
        ({"amount_sat": 500, "script_pubkey": "52", "confirmations": 1}, "expected 51"),
    ],
)
def test_a_channel_output_other_than_agreed_is_noticed(
    output: dict[str, Any] | None, said: str
) -> None:
    with pytest.raises(DemoFailed, match=said):
        _channel_on_chain(world_of(output=output), DAEMON, EXPORTED, 1)


def test_a_channel_elsewhere_than_the_client_believes_is_noticed() -> None:
    output = {"amount_sat": 500, "script_pubkey": "51", "confirmations": 1}
    shown = _channel_on_chain(world_of(output=output), DAEMON, EXPORTED, 1)
    assert shown["outpoint"] == f"{TXID}:0"
    with pytest.raises(DemoFailed, match="is not on chain"):
        _channel_on_chain(world_of(output=output), daemon_of(f"{TXID}:1"), EXPORTED, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_was_being_started_at_an_interrupt_is_stopped_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), interruptible(), Children(tmp_path) as children:
        children.start("node", ["regtest", "--datadir", str(tmp_path / "node"), "--port", "0"])
    assert [process.poll() is None for process in started] == [False]
