"""File systems that are small, or that cannot be written, as the kernel has them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FILLER = "filler"


def _mount(*words: str) -> None:
    tried = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this user may not mount: {tried.stderr.strip()}")


@contextlib.contextmanager
def small_disk(at: Path, *, kib: int) -> Iterator[Path]:
    """Give a directory that is a file system of its own, of so many KiB in memory."""
    at.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def fill(disk: Path, *, left_kib: int = 0) -> Path:
    """Fill a disk but for some KiB, and return what takes the room: to remove it makes room."""
    filler, kept = disk / FILLER, disk / f"{FILLER}.kept"
    kept.write_bytes(bytes(1024 * left_kib))
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    kept.unlink()
    return filler


@contextlib.contextmanager
def written_no_more(disk: Path) -> Iterator[None]:
    """Let a file system be mounted read-only, as the kernel does after an error of a disk."""
    _mount("-o", "remount,ro", str(disk))
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
