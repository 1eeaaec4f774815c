"""What keeps a running daemon's store safe: its replica, its mark, and backups on request."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from cromford.adapters.sealed import BadFile
from cromford.adapters.sqlite import Journal
from cromford.answers.backup import BackupMade, BackupStatus, MarkState
from cromford.daemon.api.beside import beside
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.backup.asking import Asker
from cromford.daemon.backup.header import Owner
from cromford.daemon.backup.high_water import Memo, leave_out_mark, read_memo
from cromford.daemon.backup.making import create_backup, forget_copies, shown_made
from cromford.daemon.backup.mark_place import MarkPlace
from cromford.daemon.backup.places import PlaceRefused, shared_devices
from cromford.daemon.backup.replica import Replica
from cromford.daemon.backup.replica_files import store_name
from cromford.daemon.backup.replica_tail import newest_tail
from cromford.daemon.backup.restored import mark_if_behind
from cromford.daemon.backup.said import (
    BACKUP_ELSEWHERE,
    CANNOT_WRITE,
    MARK_LEFT_OUT,
    of_another_journal,
    reason_at,
    reason_of,
    warnings_of,
)
from cromford.daemon.marks import ANSWER_SECONDS, RETRY_SECONDS, Marks
from cromford.daemon.metrics import Sample
from cromford.daemon.options import ClientOptions, LspOptions
from cromford.effects import HandOverKeys, Performed, Send
from cromford.ports import StoreFailed
from cromford.protocol.facts import Facts
from cromford.signing.keychain import Keychain
from cromford.wire import messages as m

# What binds nobody, and reveals nothing that a copy of the store would not repeat: all else waits
# for its mark.
FREE_TO_SAY: Final = (
    m.Lobby,
    m.Join,
    m.Joined,
    m.Refused,
    m.Leave,
    m.AnnounceHash,
    m.HashAnnounced,
    m.Resume,
    m.Abort,
    m.ChannelReestablish,
    m.ChannelFailure,
)
UNMARKED: Final = "what was decided could not be marked"

_log = logging.getLogger(__name__)


def waits_for_mark(effect: Performed) -> bool:
    """Say whether an effect is a message that only leaves once what led to it is marked."""
    if isinstance(effect, HandOverKeys):
        return True  # It becomes a message only where it is performed.
    return isinstance(effect, Send) and not isinstance(effect.message, FREE_TO_SAY)


class _CreateParams(msgspec.Struct, forbid_unknown_fields=True):
    file: str
    overwrite: bool = False


PARAMS: Final[Params] = {"backup_create": _CreateParams}


class Safekeeping:
    """The second and the third place of one daemon's store.

    Made before the store is read: a mark, or a replica, that leads marks it as restored.

    Args:
        journal: The store, open.
        home: Its directory.
        options: Where the places are.
        keychain: Of its seed.
        role: `lsp` or `client`.

    Raises:
        StoreFailed: If the journal cannot be read or written.
    """

    def __init__(
        self,
        journal: Journal,
        home: Path,
        options: LspOptions | ClientOptions,
        keychain: Keychain,
        *,
        role: str,
    ) -> None:
        self._journal = journal
        self._home = home
        self._options = options
        self._number = keychain.journal_number
        self._owner = Owner(
            role=role,
            network=options.network,
            fingerprint=keychain.seed_fingerprint,
            secret=keychain.backup_secret,
        )
        forget_copies(home)
        self._compare_with_replica()
        self.marks = self._new_marks()
        self.replica = self._new_replica()
        self._said = read_memo(journal)
        if self.marks is None and self._said is not None and self._said.is_kept:
            _log.warning("mark_left_out reason=%s", MARK_LEFT_OUT)
            leave_out_mark(journal, self._said)  # In each run, and once a replica hears of it.
        for warning in self.device_warnings():
            _log.warning("places_share_a_device reason=%s", warning)
        if self.memo is not None and self.memo.source:
            _log.warning("store_is_restored source=%s", self.memo.source)

    def _compare_with_replica(self) -> None:
        """Mark the store as restored, if a replica of it has what it lacks, before it is read.

        A place that does not answer in time is compared once it is back.
        """
        directory = self._options.backup_dir
        if directory is None:
            return
        held = directory / store_name(self._owner, self._number)
        asker = Asker("replica tail", seconds=ANSWER_SECONDS)
        try:
            tail = asker.ask(lambda: newest_tail(held, self._owner))
        except (OSError, BadFile) as error:
            _log.warning("replica_not_compared reason=%s", reason_at(held, error))
            return
        finally:
            asker.close()
        why = None if tail is None else mark_if_behind(self._journal, tail, held)
        if why is not None:
            _log.critical("store_marked reason=%s", why)

    def _new_marks(self) -> Marks | None:
        directory = self._options.mark_dir
        if directory is None:
            return None
        place = MarkPlace(directory, store_name(self._owner, self._number))
        asker = Asker("marks", seconds=ANSWER_SECONDS)
        return Marks(self._journal, place, asker, retry_seconds=RETRY_SECONDS)

    def _new_replica(self) -> Replica | None:
        directory = self._options.backup_dir
        if directory is None:
            return None
        return Replica(
            self._journal, self._home, directory, self._owner, journal_number=self._number
        )

    @property
    def memo(self) -> Memo | None:
        """What the store knows of its marks; None if it never had any, and was not restored."""
        return self._said if self.marks is None else self.marks.memo

    @property
    def restores(self) -> tuple[tuple[int, bytes], ...]:
        """Of each restore where what followed begins, if it may have lost records: see `Memo`."""
        if self.memo is None:
            return ()
        is_proven = self.marks is not None and self.marks.is_proven
        return self.memo.restores_if_proven if is_proven else self.memo.restores

    def facts(self, facts: Facts) -> Facts:
        """Return facts with what the mark's place says."""
        unmarkable = None if self.marks is None else self.marks.unmarkable
        return facts if unmarkable is None else replace(facts, unmarkable=unmarkable)

    def samples(self) -> Iterator[Sample]:
        """Yield the numbers of both places for Prometheus."""
        if self.marks is not None:
            yield "mark_reachable", {}, self.marks.unmarkable is None
        if self.replica is not None:
            shown = self.replica.shown()
            yield "replica_reachable", {}, shown["is_reachable"]
            yield "replica_behind_records", {}, shown["behind_records"]
            yield "replica_behind_seconds", {}, shown["behind_seconds"]
        yield "store_restored", {}, bool(self.memo is not None and self.memo.source)

    def device_warnings(self) -> tuple[str, ...]:
        """Return what is to be said of places that are lost together."""
        options = self._options
        return shared_devices(
            options.datadir, backup_dir=options.backup_dir, mark_dir=options.mark_dir
        )

    def shown(self) -> BackupStatus:
        """Return what keeps the store safe, as plain data."""
        memo = self.memo
        replica = None if self.replica is None else self.replica.shown()
        mark = None if self.marks is None else self.marks.shown()
        source = "" if memo is None else memo.source
        others = () if self.replica is None else self.replica.others
        return {
            "is_running": True,
            "seed": self._owner.fingerprint.hex(),
            "journal_number": self._number,
            "records": self._journal.newest,
            "replica": replica,
            "mark": mark,
            "is_restored": bool(source),
            "source": source,
            "warnings": [
                *warnings_of(replica, mark, source),
                *map(of_another_journal, others),
                *self.device_warnings(),
            ],
        }

    def methods(
        self,
        *,
        settled: Callable[[], Awaitable[None]],
        cover: Callable[[], Awaitable[None]],
    ) -> dict[str, Handler]:
        """Return the API's methods.

        Args:
            settled: Returns once all that was decided by now is durable.
            cover: Tries to write the mark, and returns.
        """

        async def create(params: dict[str, Any]) -> BackupMade:
            wanted = read_params(params, _CreateParams)
            path = Path(wanted.file)
            if not path.is_absolute():
                raise InvalidParam("file", f"expected an absolute path, received {wanted.file}")
            await settled()
            return await beside(partial(self._create, path, overwrites=wanted.overwrite))

        async def status() -> BackupStatus:
            return self.shown()

        async def begin_mark() -> MarkState:
            return await self._begin_mark(cover)

        return {
            "backup_create": create,
            "backup_status": without_params(status),
            "backup_begin_mark": without_params(begin_mark),
        }

    def _create(self, path: Path, *, overwrites: bool) -> BackupMade:
        try:
            made = create_backup(
                self._journal,
                self._home,
                path,
                self._owner,
                datadir=self._options.datadir,
                journal_number=self._number,
                unix_time=int(time.time()),
                overwrites=overwrites,
            )
        except PlaceRefused as error:
            raise ApiFailure(
                "place_refused", str(error), remediation=BACKUP_ELSEWHERE, exit_code=2
            ) from error
        except FileExistsError as error:
            raise ApiFailure(
                "backup_exists",
                f"{path} exists",
                remediation="Name another file, or add --overwrite.",
            ) from error
        except (OSError, StoreFailed) as error:
            raise ApiFailure(
                "backup_not_written",
                f"{path}: {reason_of(error)}",
                retryable=True,
                remediation=CANNOT_WRITE,
            ) from error
        return shown_made(made)

    async def _begin_mark(self, cover: Callable[[], Awaitable[None]]) -> MarkState:
        marks = self.marks
        if marks is None or not marks.needs_word:
            where = "none is configured" if marks is None else "the mark is as it should be"
            raise ApiFailure(
                "mark_not_needed",
                f"no mark is to be begun: {where}",
                remediation="See `backup status`, and --mark-dir.",
            )
        marks.begin_anew()
        await cover()
        if marks.unmarkable is not None:
            raise ApiFailure("mark_unreachable", marks.unmarkable, retryable=True)
        return marks.shown()

    def close(self) -> None:
        """Let go of both places; what waits for the replica is written first, if that is quick."""
        with contextlib.ExitStack() as last:
            if self.marks is not None:
                last.callback(self.marks.close)
            if self.replica is not None:
                last.callback(self.replica.close)
