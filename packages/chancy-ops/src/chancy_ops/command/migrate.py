"""`chancy migrate`."""

from __future__ import annotations

import click
import psycopg

import chancy
from chancy.migrations.migrate import printed, steps_after
from chancy_ops.terminal.faults import DONE, NOT_DONE, Refusal
from chancy_ops.terminal.screen import answer
from chancy_ops.terminal.site import Site, command


@command("migrate", needs="owner")
@click.option("--print", "shown", is_flag=True, help="Print the SQL and send nothing.")
@click.option("--after", type=int, default=0, metavar="N", help="With --print: only steps above number N.")
@click.option("--check", is_flag=True, help="Change nothing; end with 1 and the names if something is missing.")
def migrate(site: Site, shown: bool, after: int, check: bool) -> int:
    """Bring the schema up to date, or say what is missing."""
    if shown and check:
        raise click.UsageError("--print sends nothing and --check prints no SQL: give one of them")
    if after and not shown:
        raise click.UsageError("--after belongs to --print")
    if shown:
        sql = printed(site.schema, after)
        answer(site.json, {"schema": site.schema, "sql": sql}, sql.rstrip("\n"))
        return DONE
    with site.connect_to_any() as conn:
        found = site.version(conn)
        missing = [step.name for step in steps_after(found.number)]
        if not check:
            try:
                missing = chancy.migrate(conn, schema=site.schema)
            except psycopg.errors.LockNotAvailable:
                raise Refusal(
                    "another session holds a lock that the migration needs; nothing was changed, try again"
                ) from None
    done = f"schema {site.schema}: "
    if not missing:
        done += "is up to date"
    else:
        done += f"{'lacks' if check else 'applied'} {', '.join(missing)}"
    answer(site.json, {"schema": site.schema, "missing" if check else "applied": missing}, done)
    return NOT_DONE if check and missing else DONE
