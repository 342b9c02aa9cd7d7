"""`chancy dev`: all that a project needs while it is written, in one command."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

import click

from chancy_ops.development import together
from chancy_ops.development.folder import Folder
from chancy_ops.development.programs import Log, Program
from chancy_ops.terminal.faults import Refusal
from chancy_ops.terminal.site import Site, command


@command("dev")
@click.argument("target", metavar="MODULE[:APP]")
@click.argument("more", metavar="[-- OPTIONS OF THE WORKER]", nargs=-1)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(".chancy"), show_default=True, metavar="FOLDER",
    help="Where the data of Postgres stay.",
)  # fmt: skip
def dev(site: Site, target: str, more: tuple[str, ...], folder: Path) -> int:
    """Develop with all that a queue needs: Postgres, its schema, a worker that takes each change of the code, pages.

    Postgres is a program of this command, and keeps its data in the project's folder; --dsn names another one, and
    CHANCY_DSN does not. When a Python file changes, running jobs are given back, their attempt refunded, and run again
    with the new code. Ctrl-C ends all of it.
    """
    if os.name == "nt":
        raise Refusal("this needs Linux or macOS: on Windows start `chancy-worker --reload` and a Postgres of your own")
    if not all(map(importlib.util.find_spec, ("chancy_worker", "chancy_testing"))):
        raise Refusal("this needs the worker and an embedded Postgres: install chancy-ops[dev]")
    named: str | None = click.get_current_context().ensure_object(dict).get("dsn")
    with Folder(folder) as place, together.ending() as asked, contextlib.ExitStack() as stack:
        log, programs = Log(asked.set), list[Program]()
        dsn = named
        if dsn is None:
            dsn, server = stack.enter_context(together.postgres(place, log))
            programs.append(server)
        migrate(dsn, site.schema)
        for line in where(place, dsn) if named is None else []:
            click.echo(line)
        pages = stack.enter_context(together.dashboard(target, dsn, site.schema, log))
        click.echo(f"dashboard  {pages}\nCtrl-C ends all of it")
        programs.append(stack.enter_context(together.worker(target, more, dsn, site.schema, log, asked)))
        return together.until_ended(programs, asked)


def migrate(dsn: str, schema: str) -> None:
    """Bring the schema up to date."""
    import psycopg

    import chancy
    from chancy.wires.dsn import understood

    with psycopg.connect(understood(dsn), autocommit=True, connect_timeout=10) as conn:
        chancy.migrate(conn, schema=schema)


def where(place: Folder, dsn: str) -> list[str]:
    """What other programs have to know of the server."""
    short = together.in_short(dsn)
    lines = [f"postgres   {short}", f'           in other terminals: export CHANCY_DSN="$(cat {place.note(short)})"']
    if os.environ.get("CHANCY_DSN", short) not in (dsn, short):
        lines.append("           CHANCY_DSN names another one, which is left alone: --dsn would use it")
    return [*lines, f"           its data stay in {place.path}"]
