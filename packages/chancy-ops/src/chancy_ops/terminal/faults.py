"""What went wrong, as one line that says what to do, and the code that the command ends with."""

from __future__ import annotations

DONE, NOT_DONE, REFUSED = 0, 1, 2
"""Done; a check failed or a thing asked for is not there; bad usage, no database, or one of another version."""
ABSENT = {"DuplicateJob", "SchedulePaused", "UnknownBatch", "UnknownJob", "UnknownSchedule"}
"""Errors, by their names, that are about a thing which is not there or not as it was asked for."""
STOPPED = 130
"""Ended by Ctrl-C, as shells count it."""


class Refusal(Exception):
    """The command cannot do what it was asked; the message says what to do instead."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        self.code = code
        super().__init__(message)


def told(error: Exception) -> Refusal | None:
    """The error as a refusal; None of one that nobody expects, which is a defect and keeps its traceback."""
    import psycopg  # not before something went wrong: `chancy --help` does without

    from chancy import ChancyError

    if isinstance(error, Refusal):
        return error
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return Refusal(f"{error}; say where Postgres is with --dsn, CHANCY_DSN or PGHOST and the like")
    if isinstance(error, psycopg.Error):
        return Refusal(f"Postgres says: {error}")
    if isinstance(error, ChancyError):
        absent = type(error).__name__ in ABSENT
        return Refusal(str(error), NOT_DONE if absent else REFUSED)
    return Refusal(str(error)) if isinstance(error, ValueError) else None
