"""What an error of the caller's stack means, where it is about Chancy's own schema or about the session.

Any other error stays as the stack has raised it. Each stack has its own classes around the driver's error, and each
driver its own names for what the server has said; the SQLSTATE is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator

from chancy.errors import InvalidConnection, SchemaOutdated

from .wire import CLOSED

_MISSING = frozenset({"3F000", "42P01", "42703", "42883", "42704"})
"""The states for an unknown schema, table, column, function and object."""


def meaning(error: BaseException, schema: str) -> Exception | None:
    """What to raise in its place; None for the error itself."""
    if str(error) == "the connection is closed":  # psycopg, of which nothing was sent
        return InvalidConnection(CLOSED)
    for each in _layers(error):
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if not state:
            continue
        message, inside = _said(each)
        # Unless a trigger or a function that is not ours has raised it. Our functions fire those triggers, too: so what
        # counts is the innermost statement, or function.
        ours = not inside or f"{schema}." in inside or f'"{schema}".' in inside
        if state in _MISSING:
            return SchemaOutdated(schema, lacks=message) if ours else None
        if state == "42501" and ours:
            # The error stays the stack's own, whoever catches it: who reads its traceback finds the way out there.
            error.add_note(denied(error, "", schema))
            return None
        if state.startswith("22") and message.endswith(': "NULL"'):
            return InvalidConnection("the session has array_nulls = off, and Chancy sends arrays with NULLs: set it on")
        return None
    return None


NEEDS = {
    "producer": "may not submit here",
    "worker": "lacks what a worker needs",
    "viewer": "may not look at this",
    "operator": "may not do that",
}
"""What is said of a role that lacks the rights of this kind (`chancy.migrations.roles`)."""


def denied(error: BaseException, role: str, schema: str, kind: str | None = None) -> str:
    """What to say of Postgres' refusal of a right: who lacks what, and the command that gives it.

    `kind` is what the role would have to be; None where only its owner knows what it is for. `role` may be empty where
    nobody knows its name.
    """
    what = next((_said(each)[0] for each in _layers(error) if getattr(each, "diag", None) is not None), str(error))
    who, name = (f"role {role}", role) if role else ("the role of this connection", "ROLE")
    here = "chancy grants" if schema == "chancy" else f"chancy grants --schema {schema}"
    if kind == "owner":
        return (
            f"{who} may not migrate schema {schema} ({what}): migrate as the role that owns it, or, if it is not there "
            f"yet, as one that may create it in this database"
        )
    if kind is None:
        return (
            f"{who} has no right to that ({what}): have the owner of schema {schema} run what `{here}` prints, with "
            f"--producer {name} to submit, --worker {name} to work, --viewer {name} to look or "
            f"--operator {name} to steer"
        )
    return f"{who} {NEEDS[kind]} ({what}): have the owner of schema {schema} run what `{here} --{kind} {name}` prints"


def _layers(error: BaseException) -> Iterator[object]:
    """The driver's own error, behind SQLAlchemy's `orig` and Django's cause, and asyncpg's behind both."""
    for each in (error, getattr(error, "orig", None)):
        if each is not None:
            yield each.__cause__  # of an adapter's: it has all that the server said
            yield each


def _said(error: object) -> tuple[str, str]:
    """The server's message, and in which statement or function within the one that was sent it came up."""
    diag = getattr(error, "diag", error)
    message = getattr(diag, "message_primary", None) or getattr(diag, "message", None)
    context = getattr(diag, "context", None) or ""
    return message or str(error), getattr(diag, "internal_query", None) or context.partition("\n")[0]
