"""Structured logs: an event name and its fields, never a sentence, never a secret.

A call reads `log.info("tx_refused name=%s txid=%s", name, txid)`. As text that is one line; as
JSON the same names and values become the fields of an object.
"""

import json
import logging
import sys
from datetime import datetime
from typing import Final

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def moment_of(record: logging.LogRecord) -> str:
    """Return when a line was written, in local time with its offset, to the millisecond."""
    moment = datetime.fromtimestamp(record.created).astimezone()
    return moment.isoformat(timespec="milliseconds")


class TextFormatter(logging.Formatter):
    """One line of words: time, level, room, event, and the call's own fields."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(  # noqa: N802 - the library's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """Return when the line was written."""
        del datefmt
        return moment_of(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, room, event, and the call's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event, *pairs = str(record.msg).split(" ")
        names = [pair.partition("=")[0] for pair in pairs]
        args = record.args if isinstance(record.args, tuple) else ()
        fields: dict[str, object] = {
            "time": moment_of(record),
            "level": record.levelname.lower(),
            "room": record.name,
            "event": event,
        }
        if len(names) == len(args):
            fields.update(
                (name, arg if isinstance(arg, int | float) else str(arg))
                for name, arg in zip(names, args, strict=True)
            )
        else:
            fields["event"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up_logging(*, level: str, form: str) -> None:
    """Send all logs to stderr at a level, as text or JSON.

    Raises:
        ValueError: If the level or the format is not known.
    """
    if level not in LOG_LEVELS:
        raise ValueError(f"log level: expected one of {LOG_LEVELS}, received {level!r}")
    if form not in LOG_FORMATS:
        raise ValueError(f"log format: expected one of {LOG_FORMATS}, received {form!r}")
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
