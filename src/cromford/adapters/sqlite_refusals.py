"""What it means when SQLite, or the system below it, refuses."""

import errno

import apsw

from cromford.ports import DiskFailed, StoreFailed, StoreFull, StoreInUse, StoreReadOnly


def kind_of(error: BaseException, number: int | None) -> type[StoreFailed]:
    """Return what a refusal means: SQLite has no word of its own for every full disk."""
    if isinstance(error, apsw.BusyError):
        return StoreInUse
    if isinstance(error, apsw.FullError) or number in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StoreFull
    if isinstance(error, apsw.ReadOnlyError) or number in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreReadOnly
    if isinstance(error, apsw.IOError) or number == errno.EIO:
        return DiskFailed
    return StoreFailed
