"""`chancy batch`."""

from __future__ import annotations

import click

import chancy
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command

COUNTS = ("total", "waiting", "running", "succeeded", "failed", "discarded", "cancelled")


@command("batch")
@click.argument("batch_id", metavar="ID", type=int)
def batch(site: Site, batch_id: int) -> None:
    """How far a batch is: its jobs by what has become of them."""
    with site.connect() as conn:
        found = chancy.batch_progress(conn, batch_id, schema=site.schema)
    if site.json:
        return document(
            {"id": batch_id, **{name: getattr(found, name) for name in COUNTS}, "finished_at": found.finished_at}
        )
    Table(
        ("BATCH", *(name.upper() for name in COUNTS), "FINISHED"),
        [(batch_id, *(getattr(found, name) for name in COUNTS), found.finished_at)],
    ).show()
    return None
