"""What griffe, which reads the packages for the reference, cannot see: `@verb` adds the connection."""

from __future__ import annotations

import re

import griffe

_CONNECTION = "SyncConn | AsyncConn"


class Verbs(griffe.Extension):
    """A function with `@verb` takes a connection first, and gives what its statements come to."""

    def on_function_instance(self, *, func: griffe.Function, **_: object) -> None:
        """Show the call that there is: `chancy.get(conn, job_id)`."""
        if any(str(each.value) == "verb" for each in func.decorators):
            as_called(func)


def as_called(func: griffe.Function) -> None:
    """Add the connection, and take the answer out of what says how it is asked for."""
    conn = griffe.Parameter("conn", annotation=_CONNECTION, kind=griffe.ParameterKind.positional_only)
    func.parameters._params.insert(0, conn)  # noqa: SLF001 - there is no other way to the front
    answers = re.findall(r"(?:Steps|Statement)\[(.*?)\](?= \||$)", str(func.returns or ""))
    if answers:
        func.returns = " | ".join(dict.fromkeys(answers))
