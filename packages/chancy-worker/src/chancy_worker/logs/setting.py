"""What `chancy-worker` makes of logging, and what its own loggers hold out."""

from __future__ import annotations

import logging
from typing import Any

from chancy.logs.records import OURS

from .format import JsonFormatter, PlainFormatter
from .handler import Lines, own_stderr

LEVELS = ("debug", "info", "warning", "error")


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


def set_up(log_format: str, level: str) -> None:
    """Send the log of this process to standard error, from this level on."""
    handler = Lines(own_stderr())
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def last_words(log_format: str, name: str, message: str) -> str:
    """Why a command ends, as a line in the format of its log: for whoever reads that by a program. It goes through no
    logger, since a module may have configured them to say nothing.
    """
    if log_format != "json":
        return f"{name}: {message}"
    level = logging.CRITICAL
    record = {"name": "chancy.worker", "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
    return JsonFormatter().format(logging.makeLogRecord(record))


def turn_on(*, job_lines: bool) -> None:
    """Let the worker speak after a module that has configured logging: `logging.config` turns off all loggers that it
    is not told of, and with them every warning. Who wants none says so by a level.

    Without `job_lines` there is no line of a job that went well.
    """
    for name in OURS:
        logging.getLogger(name).disabled = False
    if not job_lines:
        logging.getLogger("chancy.job").setLevel(logging.WARNING)
