"""A factory of many clients over loopback sockets: `python -m bench.crowd --clients 1024`.

The LSP is one process, as its operator starts it; its clients are in several others, each with its
own connection, keys and checks; the embedded node is one more. Every branch is verified once the
factory is funded, and one client, drawn at random, leaves on the node's chain until its coin is its
own.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
from bench.crowd_groups import Place, Shares, started
from bench.processes import FUNDING_LINE, Silent

from cromford.adapters.peer_address import parse_peer_address
from cromford.bitcoin.block import COINBASE_MATURITY
from cromford.bitcoin.network import REGTEST
from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.demo.node import Node
from cromford.demo.processes import Children, interruptible
from cromford.demo.settings import DemoSettings
from cromford.demo.steps import Steps
from cromford.demo.world import LSP_NAME, DaemonProcess, Site, open_node
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol.policy import ClientPolicy

CLIENTS_DEFAULT: Final = (512, N_CLIENTS_MAX)
CAPACITY_SAT: Final = 200_000
PAID_SAT: Final = 100_000
# Clients that share one core answer late, and nobody is dropped for that.
DEADLINE_SECONDS: Final = 600
PATIENT: Final = ClientPolicy(deadline_seconds=DEADLINE_SECONDS)
QUICK_BLOCKS: Final = 4
QUICK_POLICY: Final = replace(
    PATIENT, step_blocks=(1, 1008), lstock_csv_blocks=(1, 2016), to_self_delay_blocks=(1, 2016)
)
QUICK_WORDS: Final = (
    *("--step-blocks", str(QUICK_BLOCKS), "--states", "2"),
    *("--lstock-csv-blocks", str(QUICK_BLOCKS)),
    *("--to-self-delay-lsp-blocks", str(QUICK_BLOCKS)),
    *("--to-self-delay-client-blocks", str(QUICK_BLOCKS)),
)
STEP_SECONDS: Final = 120.0
STEP_SECONDS_PER_CLIENT: Final = 1.0
LSP_MEMORY_MAX_MB: Final = 250
EXIT_BLOCKS_MAX: Final = 2_000
KB_PER_MB: Final = 1_000
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen.

    Attributes:
        n_clients: Of the factory.
        come_seconds: Until everybody was connected.
        gather_seconds: Until everybody waited in the lobby, at the pace that strangers have.
        ceremony_seconds: From the build request to the broadcast of the funding transaction.
        ready_seconds: From the block that made it deep enough until every channel was open.
        lsp_peak_mb: The most memory that the LSP had, until every channel was open.
        verify_seconds: For all clients to check their branches once more.
        n_verified: How many of them found every check to hold.
        leaver: Who left, by its seat.
        exit_blocks: After how many blocks its coin was in its wallet.
        exit_sat: How much that was.
        lsp_end_mb: The most memory that the LSP ever had.
    """

    n_clients: int
    come_seconds: float
    gather_seconds: float
    ceremony_seconds: float
    ready_seconds: float
    lsp_peak_mb: float
    verify_seconds: float
    n_verified: int
    leaver: int
    exit_blocks: int
    exit_sat: int
    lsp_end_mb: float

    def broken(self) -> Iterator[str]:
        """Yield what is not as it is promised."""
        if self.n_verified < self.n_clients:
            yield f"verified branches: {self.n_verified}, expected {self.n_clients}"
        if self.lsp_end_mb > LSP_MEMORY_MAX_MB:
            yield f"the LSP's memory: {self.lsp_end_mb} MB, expected at most {LSP_MEMORY_MAX_MB}"
        if not 0 < self.exit_sat <= PAID_SAT:
            yield f"the exit: {self.exit_sat} sat, expected up to {PAID_SAT}"


def run(
    n_clients: int,
    seed: int,
    say: Callable[[str], None] = lambda _line: None,
    *,
    is_quick: bool = False,
) -> Outcome:
    """Build one factory, check it, and let one client leave; afterwards nothing is left of it.

    Args:
        n_clients: Of the factory.
        seed: Draws who leaves.
        is_quick: Whether all delays are so short that leaving takes a few blocks.
        say: Hears how far it is.

    Raises:
        TimeoutError: If a step does not end.
        ShareFailed: If a step of the clients fails.
        DemoFailed: If a process does not start, or has died.
    """
    with interruptible(), _started(n_clients, is_quick=is_quick) as crowd:
        crowd.say = say
        return asyncio.run(crowd.run(seed))


@contextmanager
def _started(n_clients: int, *, is_quick: bool) -> Iterator["_Crowd"]:
    """Start the node, and the LSP with coins for such a factory."""
    with TemporaryDirectory(prefix="cromford-bench-") as name:
        directory = Path(name)
        logs = directory / "logs"
        logs.mkdir()
        with Children(logs) as children:
            settings = DemoSettings(n_clients=n_clients, capacity_sat=CAPACITY_SAT)
            site = Site(settings=settings, directory=directory, children=children)
            steps = Steps(Silent(), children.check_alive)
            with steps.step("start", seconds=STEP_SECONDS) as step:
                node = open_node(site, step)
                lsp = _start_lsp(site, node, QUICK_WORDS if is_quick else ())
                status = step.wait_for("the LSP", lambda: _listening(lsp))
                coin_address = status["wallet"]["address"]
                node.mine(1 + COINBASE_MATURITY, address=coin_address)
                height = node.height()
                step.wait_for("its coins", lambda: _at_height(lsp, height))
            address = parse_peer_address(f"{status['node_id']}@{status['listen']}")
            place = Place(
                lsp=address,
                chain_url=node.chain.url,
                cookie_file=node.chain.cookie_file,
                policy=QUICK_POLICY if is_quick else PATIENT,
                tip_height=height,
                step_seconds=STEP_SECONDS + STEP_SECONDS_PER_CLIENT * n_clients,
            )
            with started(n_clients, place, children.check_alive) as shares:
                yield _Crowd(site, node, lsp, shares, height)


def _start_lsp(site: Site, node: Node, more: Sequence[str]) -> DaemonProcess:
    n_clients, datadir = site.settings.n_clients, site.directory / LSP_NAME
    options = {
        "--datadir": datadir,
        "--listen": "127.0.0.1:0",
        "--chain-url": node.chain.url,
        "--chain-cookie": node.chain.cookie_file,
        "--min-clients": n_clients,
        "--max-clients": n_clients,
        "--deadline-seconds": DEADLINE_SECONDS,
        # All of them have one address, and nobody waits for blocks here.
        "--connections-per-address": n_clients,
        "--new-joins-per-block": n_clients,
        "--capital-per-client-sat": CAPACITY_SAT,
        "--capital-per-build-sat": n_clients * CAPACITY_SAT,
        "--capacity-max-sat": CAPACITY_SAT,
        "--poll-seconds": 0.2,
    }
    words = [str(word) for option in options.items() for word in option]
    arguments = ("lsp", "run", *words, *more)
    child = site.children.start(LSP_NAME, arguments)
    return DaemonProcess(name=LSP_NAME, datadir=datadir, arguments=arguments, child=child)


def _listening(lsp: DaemonProcess) -> dict[str, Any] | None:
    status = lsp.status()
    return status if status is not None and status["listen"] else None


def _at_height(lsp: DaemonProcess, height: int) -> dict[str, Any] | None:
    status = lsp.status()
    is_there = status is not None and status["height"] >= height and status["wallet"]["free_sat"]
    return status if is_there else None


@dataclass
class _Crowd:
    site: Site
    node: Node
    lsp: DaemonProcess
    shares: Shares
    height: int  # What all clients have seen.
    depth: int = 0  # How deep the funding has to be.
    say: Callable[[str], None] = lambda _line: None

    async def run(self, seed: int) -> Outcome:
        n_clients = self.site.settings.n_clients
        come = await self._timed("come", self.shares.all("come"))
        gather = await self._timed("gather", self.shares.all("gather", CAPACITY_SAT))
        ceremony = await self._timed("sign", self._sign())
        ready = await self._timed("confirm", self._confirm())
        peak_mb = self._lsp_peak_mb()
        began = time.monotonic()
        n_verified = sum(await self.shares.all("verify"))
        verify = time.monotonic() - began
        self.say(f"verified: {n_verified} branches in {verify:.1f} s")
        seat, exit_blocks, exit_sat = await self._leave(random.Random(seed).randrange(n_clients))
        await self.shares.all("go")
        return Outcome(
            n_clients=n_clients,
            come_seconds=come,
            gather_seconds=gather,
            ceremony_seconds=ceremony,
            ready_seconds=ready,
            lsp_peak_mb=peak_mb,
            verify_seconds=verify,
            n_verified=n_verified,
            leaver=seat,
            exit_blocks=exit_blocks,
            exit_sat=exit_sat,
            lsp_end_mb=self._lsp_peak_mb(),
        )

    async def _timed(self, name: str, step: Any) -> float:  # noqa: ANN401 - a coroutine
        began = time.monotonic()
        await step
        seconds = time.monotonic() - began
        self.say(f"{name}: {seconds:.1f} s, the LSP at {self._lsp_peak_mb():.0f} MB")
        return seconds

    async def _sign(self) -> None:
        await self._call("build")
        self.depth = max(await self.shares.all("sign"))
        while FUNDING_LINE not in self.lsp.child.log.read_bytes():
            self.site.children.check_alive()
            await asyncio.sleep(LOOK_SECONDS)

    async def _confirm(self) -> None:
        await asyncio.to_thread(self.node.mine, self.depth)
        await self.shares.all("see_from", self.height + 1)
        self.height += self.depth
        await self.shares.all("open")

    async def _leave(self, leaver: int) -> tuple[int, int, int]:
        """Let one client be paid and leave.

        Returns:
            Its seat, after how many blocks it has its coin, and how much that is in sat.
        """
        invoice = await self.shares.one(leaver, "invoice", PAID_SAT * MSAT_PER_SAT)
        paid = await self._call("pay", invoice=invoice)
        await self.shares.one(leaver, "be_paid")
        self.say(f"the leaver was paid: {json.dumps(paid.get('status'))}")
        seat = await self.shares.one(leaver, "leave")
        await self.shares.one(leaver, "settle")
        for n_blocks in range(1, EXIT_BLOCKS_MAX + 1):
            await asyncio.to_thread(self.node.mine, 1)
            wallet_sat = await self.shares.one(leaver, "see_alone", self.height + n_blocks)
            if wallet_sat:
                self.say(f"left: {wallet_sat} sat after {n_blocks} blocks")
                return seat, n_blocks, wallet_sat
        raise TimeoutError(f"no coin after {EXIT_BLOCKS_MAX} blocks")

    async def _call(self, method: str, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the LSP's answer; to make a thousand clients' keys takes it a while."""
        path = self.lsp.datadir / REGTEST.name / SOCKET_NAME
        client = ApiClient(path, timeout_seconds=DEADLINE_SECONDS)
        return await asyncio.to_thread(client.call, method, **params)

    def _lsp_peak_mb(self) -> float:
        """Return the most memory that the LSP had so far."""
        told = Path(f"/proc/{self.lsp.child.process.pid}/status").read_text(encoding="ascii")
        peak_kb = next(line.split()[1] for line in told.splitlines() if line.startswith("VmHWM"))
        return int(peak_kb) / KB_PER_MB


@click.command()
@click.option(
    "--clients",
    type=click.IntRange(1, N_CLIENTS_MAX),
    multiple=True,
    help="A number of clients; may be repeated.",
)
@click.option("--seed", type=int, help="Draws who leaves; a new one by default.")
@click.option("--quick", is_flag=True, help="Short delays: leaving takes a few blocks.")
def main(clients: tuple[int, ...], seed: int | None, *, quick: bool) -> None:
    """Build factories of many clients, print what they took, and fail if a promise is broken."""
    seed = secrets.randbits(32) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    broken: list[str] = []
    for n_clients in clients or CLIENTS_DEFAULT:
        outcome = run(n_clients, seed, partial(click.echo, err=True), is_quick=quick)
        click.echo(json.dumps({"seed": seed, **asdict(outcome)}))
        broken += [f"{n_clients} clients: {line}" for line in outcome.broken()]
    if broken:
        raise click.ClickException("; ".join(broken))


if __name__ == "__main__":
    main()
