"""What an agent holds: packages, durable before anybody is told so, in a journal of its own.

A package is a row beside the journal's one record, which says whose it is: so a crash leaves
either the row or none, and what was given back leaves no trace. The journal's lock keeps two agents
out of one home, and an agent and another daemon.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from cromford.bitcoin.network import Network
from cromford.ports import Checkpoint, Entry, Row, Store, StoreFailed
from cromford.watch.package import ExitPackage, package_document
from cromford.watch.package_reading import InvalidPackage, read_package

STREAM: Final = "agent"
PACKAGES: Final = "packages"  # By the package's id, what was handed over.
BEGUN: Final = "begun"  # By the same, the height from which on it goes on to its end.
HEIGHT_SIZE: Final = 4

_log = logging.getLogger(__name__)


class ForeignHome(StoreFailed):
    """The journal is another daemon's, or another network's. Nothing was written."""


class NotHeld(Exception):
    """A package that is in order and is not taken all the same. `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPackage:
    """A package in an agent's care; `begun_height` is None until its exit is due."""

    package: ExitPackage
    begun_height: int | None = None


class Keeping:
    """The packages of one agent."""

    def __init__(self, store: Store, network: Network, *, packages_max: int) -> None:
        """Read them, each with all checks once more.

        Raises:
            ForeignHome: If the journal is not an agent's of this network.
            StoreFailed: If it cannot be read or written.
        """
        self._store = store
        self._network = network
        self.packages_max = packages_max
        self._unreadable: set[bytes] = set()
        self._open()
        self._held = dict(self._read())

    @property
    def held(self) -> Mapping[bytes, HeldPackage]:
        """The packages by their ids."""
        return MappingProxyType(self._held)

    @property
    def n_unreadable(self) -> int:
        """How many are kept that cannot be read: until they are given back, or taken anew."""
        return len(self._unreadable)

    @property
    def ids(self) -> tuple[bytes, ...]:
        """The ids of all that are kept, readable or not."""
        return (*self._held, *self._unreadable)

    def take(self, package: ExitPackage) -> bool:
        """Hold a package, durably; return whether it was not held before.

        One that adds the commitment to a path that is held, a newer state of the leaf, or poisons,
        takes its place.

        Raises:
            NotHeld: If another way to the same channel is held, or there is no room.
            StoreFailed: If the disk refused: stop.
        """
        held = self._held.get(package.package_id)
        if held is not None and held.package == package:
            return False
        if held is not None and not package.may_replace(held.package):
            raise NotHeld(
                "package_held",
                f"another package of the same channel is held: {package.package_id.hex()}",
            )
        if package.package_id not in self.ids and len(self.ids) >= self.packages_max:
            raise NotHeld("agent_full", f"the agent holds {self.packages_max} packages, its most")
        value = msgspec.json.encode(package_document(package))
        self._write(Row(PACKAGES, package.package_id, value))
        begun_height = None if held is None else held.begun_height
        self._held[package.package_id] = HeldPackage(package=package, begun_height=begun_height)
        self._unreadable.discard(package.package_id)
        return held is None

    def begin(self, package_id: bytes, height: int) -> HeldPackage:
        """Remember that an exit is due from a height on, durably; return the package.

        Raises:
            StoreFailed: If the disk refused: stop.
        """
        self._write(Row(BEGUN, package_id, height.to_bytes(HEIGHT_SIZE, "big")))
        held = self._held[package_id] = replace(self._held[package_id], begun_height=height)
        return held

    def give_back(self, package_id: bytes) -> None:
        """Forget a package, durably.

        Raises:
            StoreFailed: If the disk refused: stop.
        """
        self._write(Row(PACKAGES, package_id, None), Row(BEGUN, package_id, None))
        self._held.pop(package_id, None)
        self._unreadable.discard(package_id)

    def _open(self) -> None:
        whose = msgspec.json.encode({"role": "agent", "network": self._network.name})
        found = next(self._store.replay(STREAM), None)
        if found is None and not self._store.newest:
            self._store.append([Entry(STREAM, whose)])
        elif found != whose:
            raise ForeignHome(
                f"expected the journal of an agent on {self._network.name}, found another's"
            )

    def _read(self) -> Iterator[tuple[bytes, HeldPackage]]:
        begun = dict(self._store.rows(STREAM, BEGUN))
        for package_id, value in self._store.rows(STREAM, PACKAGES):
            try:
                package = read_package(value, self._network)
            except InvalidPackage as error:
                # It was in order once. The others are published all the same.
                self._unreadable.add(package_id)
                _log.error("package_unreadable id=%s reason=%s", package_id.hex(), error)
                continue
            height = begun.get(package_id)
            begun_height = None if height is None else int.from_bytes(height, "big")
            yield package_id, HeldPackage(package=package, begun_height=begun_height)

    def _write(self, *rows: Row) -> None:
        self._store.replace_checkpoint(Checkpoint(stream=STREAM, n=0, snapshot=b"", rows=rows))
