"""What a person is shown of a job: all but what its task calls a secret, and what the application hides besides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from chancy.carried.secrets import HIDDEN, NO_SECRETS, Secrets, hidden, secrets_in
from chancy.errors import InvalidOption
from chancy.model import JobRow, Rows, Statement
from chancy.options.plain import several, shown, text
from chancy.registry import registered
from chancy.verb import verb
from chancy.wires.literals import of_texts

if TYPE_CHECKING:
    from .searching import JobLine

Part: TypeAlias = Literal["arguments", "result", "error", "log", "step"]
Redact: TypeAlias = Callable[[Part, str, Any], Any]
"""Is given a part of a job, its task's name and the value, and gives what is shown in its place: of arguments and
results what the JSON says, of errors, logs and results of steps a text."""


@dataclass(frozen=True, slots=True)
class Hiding:
    """What is hidden of jobs of some tasks. Whatever fails to be hidden is not shown at all."""

    secrets: Mapping[str, Secrets]
    """By the names of tasks."""
    redact: Redact | None = None
    """What the application hides besides."""

    def arguments(self, task: str, payload: bytes) -> bytes:
        """The `payload` of a job of this task, as it may be shown."""
        return self._redacted("arguments", task, hidden(payload, self.secrets.get(task, NO_SECRETS).arguments))

    def result(self, task: str, payload: bytes | None) -> bytes | None:
        """The `payload` that a job of this task has returned, as it may be shown."""
        if payload is None:
            return None
        return self._redacted("result", task, hidden(payload, self.secrets.get(task, NO_SECRETS).result))

    def words(self, part: Part, task: str, said: str) -> str:
        """What was `said` in this part of a job: a message, a traceback, a line of a log, or the result of a step."""
        if self.redact is None or not said:
            return said
        try:
            return str(self.redact(part, task, said))
        except Exception:
            return HIDDEN

    def job(self, row: JobRow) -> JobRow:
        """The same job, as it may be shown."""
        errors = tuple(
            msgspec.structs.replace(
                error,
                message=self.words("error", row.task, error.message),
                traceback=self.words("error", row.task, error.traceback),
            )
            for error in row.errors
        )
        arguments, result = self.arguments(row.task, row.arguments), self.result(row.task, row.result)
        return msgspec.structs.replace(row, arguments=arguments, result=result, errors=errors)

    def line(self, line: JobLine) -> JobLine:
        """The same line, as it may be shown. Arguments that were cut no function could read."""
        if self.redact is None:
            return line
        return replace(line, arguments=None, message=self.words("error", line.task, line.message))

    def _redacted(self, part: Part, task: str, payload: bytes) -> bytes:
        if self.redact is None:
            return payload
        try:
            return msgspec.json.encode(self.redact(part, task, msgspec.json.decode(payload)))
        except Exception:
            return msgspec.json.encode(HIDDEN)


SELECT_SECRETS = """
    SELECT name, convert_to(secrets::text, 'UTF8')
    FROM {schema}.task
    WHERE name = ANY (%(names)s::text[]) AND secrets IS NOT NULL
"""


@verb
def hiding(tasks: Iterable[str], /, *, redact: Redact | None = None, schema: str | None = None) -> Statement[Hiding]:
    """What is to be hidden of jobs of these tasks, by their names: what their code says, where this process has it, and
    what workers that have it have written down. One round trip. Raises `InvalidOption`.
    """
    if not (redact is None or callable(redact)):
        raise InvalidOption("redact", f"expected a function, got {shown(redact)}")
    return select_hiding([text("tasks", name) for name in several("tasks", tasks, "names of tasks")], redact)


def select_hiding(names: Sequence[str], redact: Redact | None = None) -> Statement[Hiding]:
    """What is to be hidden of jobs of these tasks."""
    parse = functools.partial(_parse, names, redact)
    return Statement(SELECT_SECRETS, {"names": of_texts(names)}, parse, name="secrets")


def _parse(names: Iterable[str], redact: Redact | None, rows: Rows) -> Hiding:
    declared: dict[str, bytes] = dict(rows)
    return Hiding({name: secrets_of(name, declared.get(name)) for name in names}, redact)


def secrets_of(task: str, declared: bytes | None) -> Secrets:
    """Those that its code has here, and those that were written down."""
    known = registered().get(task)
    here = NO_SECRETS if known is None else secrets_in(known.function)
    if declared is None:
        return here
    there = msgspec.json.decode(declared, type=Secrets)
    return Secrets((*here.arguments, *there.arguments), (*here.result, *there.result))
