"""A record as text: plain, or one JSON object a line. Each says of which job it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from chancy.logs.records import OURS, job_of

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class PlainFormatter(logging.Formatter):
    """`instant LEVEL logger [job, task, attempt, queue]: message`, for people."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - so it is called
        """See `logging.Formatter`."""
        job = {} if record.name in OURS else job_of(record)  # in ours the message names it
        where = f" [job {job['job']}, {job['task']}, attempt {job['attempt']}, queue {job['queue']}]" if job else ""
        return f"{record.asctime} {record.levelname:<7} {record.name}{where}: {record.message}"

    def usesTime(self) -> bool:  # noqa: N802
        """See `logging.Formatter`."""
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields of its job and with what was given as `extra`.

    What the line has already of that name is found under `extra`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **job_of(record),
        }
        if record.exc_info or record.exc_text:  # of a child process there is only the text
            line["traceback"] = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        given = extra_of(record)
        if hidden := {name: value for name, value in given.items() if name in line or name == "extra"}:
            given = {name: value for name, value in given.items() if name not in hidden} | {"extra": hidden}
        return as_json({**line, **given}).decode()


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What its author has given beside the message. Records of our own have what `about` gives."""
    if record.name in OURS:
        return {}
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def as_json(line: Mapping[str, Any]) -> bytes:
    """As JSON, whatever is in there: what cannot be said in it is said by its `repr`."""
    try:
        return msgspec.json.encode(line, enc_hook=repr)
    except BaseException:  # to read it is code of whoever has given it
        return msgspec.json.encode({_text(name): _shown(value) for name, value in line.items()})


def _shown(value: object) -> msgspec.Raw | str:
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=repr))
    except BaseException:
        return _text(value)


def _text(value: object) -> str:
    try:
        text = value if type(value) is str else repr(value)
        return text.encode("utf-8", "backslashreplace").decode()
    except BaseException as broken:
        return f"it could not be read: {type(broken).__qualname__}"
