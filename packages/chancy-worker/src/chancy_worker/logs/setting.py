"""One line a job, plain or as JSON."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a job's line has its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().encode("utf-8", "backslashreplace").decode(),
            **getattr(record, "chancy", {}),
        }
        if record.exc_info or record.exc_text:  # of a child process there is only the text
            line["traceback"] = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        return msgspec.json.encode(line, enc_hook=repr).decode()


def unfailing(name: str) -> logging.Logger:
    """The logger of this name, which from now on swallows what is raised by its handlers, filters and the like.

    They are the application's, and may send a record anywhere. The worker speaks in the middle of its rounds: what
    breaks in there must not be its log.
    """
    logger = logging.getLogger(name)

    def say(level: int, message: object, arguments: Any, *, stacklevel: int = 1, **more: Any) -> None:
        try:  # noqa: SIM105 - a line a job
            type(logger)._log(logger, level, message, arguments, stacklevel=stacklevel + 1, **more)  # noqa: SLF001
        except BaseException:  # noqa: S110 - where could it be said?
            pass

    # And not `handle`: a factory of records may raise, too.
    logger._log = say  # type: ignore[assignment,method-assign]  # noqa: SLF001
    return logger


def set_up(log_format: str) -> None:
    """Send the log of this process to standard error, by a descriptor of its own: a job may close the other one."""
    handler = logging.StreamHandler(_own_stderr())
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def turn_on() -> None:
    """Let the worker speak after a module that has configured logging: `logging.config` turns off all loggers that it
    is not told of, and with them every warning. Who wants none says so by a level.
    """
    for name in ("chancy.worker", "chancy.job"):
        logging.getLogger(name).disabled = False


def _own_stderr() -> TextIO:
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return sys.stderr
