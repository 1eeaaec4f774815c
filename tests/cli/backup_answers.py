"""What a daemon answers about backups."""

from pathlib import Path
from typing import Any, Final

FILE: Final = __file__  # One that is there, and that whoever asks can see.
SIZE: Final = Path(FILE).stat().st_size
STATUS: dict[str, Any] = {
    "is_running": True,
    "seed": "0011223344556677",
    "journal_number": 7,
    "records": 1_234,
    "replica": {
        "place": "/second",
        "directory": "/second/client-regtest-0011223344556677-00000007",
        "is_reachable": True,
        "reason": None,
        "records": 1_200,
        "behind_records": 34,
        "behind_seconds": 5,
        "written_at": 1_700_000_000,
    },
    "mark": {
        "place": "/third",
        "is_reachable": False,
        "reason": "/third is not there",
        "needs_begin_mark": False,
        "marked_records": 1_233,
        "records": 1_234,
    },
    "is_restored": True,
    "source": "/a/backup",
    "warnings": ["no channel is updated: /third is not there"],
}
CREATED = {
    "file": FILE,
    "backup_id": "00" * 16,
    "records": 1_234,
    "streams": 5,
    "size": SIZE,
}
