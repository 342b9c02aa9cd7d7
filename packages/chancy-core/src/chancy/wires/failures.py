"""What an error of the caller's stack means, where it is about Chancy's own schema or about the session.

Any other error stays as the stack has raised it. Each stack has its own classes around the driver's error, and each
driver its own names for what the server has said; the SQLSTATE is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator

from chancy.errors import InvalidConnection, SchemaOutdated

_MISSING = {
    "3F000": "schema",
    "42P01": "table",
    "42703": "column",
    "42883": "function",
    "42704": "object",
}


def meaning(error: BaseException, schema: str) -> Exception | None:
    """What to raise in its place; None for the error itself."""
    if str(error) == "the connection is closed":  # psycopg, of which nothing was sent
        return InvalidConnection("this connection is closed: submit on one that is open")
    for each in _layers(error):
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if not state:
            continue
        message, context = _said(each)
        if state in _MISSING:
            # unless a trigger or a function that is not ours has raised it
            ours = not context or f"{schema}." in context or f'"{schema}".' in context
            return SchemaOutdated(schema, lacks=message) if ours else None
        if state.startswith("22") and message.endswith(': "NULL"'):
            return InvalidConnection("the session has array_nulls = off, and Chancy sends arrays with NULLs: set it on")
        return None
    return None


def _layers(error: BaseException) -> Iterator[object]:
    """The driver's own error, behind SQLAlchemy's `orig` and Django's cause, and asyncpg's behind both."""
    for each in (error, getattr(error, "orig", None)):
        if each is not None:
            yield each.__cause__  # of an adapter's: it has all that the server said
            yield each


def _said(error: object) -> tuple[str, str]:
    diag = getattr(error, "diag", error)
    message = getattr(diag, "message_primary", None) or getattr(diag, "message", None)
    return message or str(error), getattr(diag, "context", None) or ""
