"""`chancy grants`."""

from __future__ import annotations

import click

from chancy_ops.terminal.screen import answer
from chancy_ops.terminal.site import Site, command

KINDS = (
    ("producer", "Submits, and reads what became of jobs."),
    ("worker", "Works: for chancy-worker."),
    ("viewer", "Looks."),
    ("operator", "Looks, and steers: pauses, limits, cancels, requeues, edits, deletes, schedules."),
)


@command("grants")
@click.option("--producer", multiple=True, metavar="ROLE", help=KINDS[0][1])
@click.option("--worker", multiple=True, metavar="ROLE", help=KINDS[1][1])
@click.option("--viewer", multiple=True, metavar="ROLE", help=KINDS[2][1])
@click.option("--operator", multiple=True, metavar="ROLE", help=KINDS[3][1])
def grants(site: Site, /, **roles: tuple[str, ...]) -> None:
    """Print the SQL that grants roles of the database what they need.

    Sends nothing. Run it as the owner of the schema (`chancy grants --worker shop_worker | psql`), and again after an
    upgrade.
    """
    import chancy

    if not any(roles.values()):
        raise click.UsageError("name a role: --producer, --worker, --viewer or --operator")
    wanted = {kind: names for kind, names in roles.items() if names}
    sql = chancy.grants(wanted, schema=site.schema)  # type: ignore[arg-type] # by the names of the options
    answer(site.json, {"schema": site.schema, "sql": sql}, sql.rstrip("\n"))
