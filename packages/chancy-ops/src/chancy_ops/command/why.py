"""`chancy why`."""

from __future__ import annotations

import click

import chancy_ops
from chancy_ops.terminal.screen import answer
from chancy_ops.terminal.site import Site, command


@command("why")
@click.argument("job_id", metavar="ID", type=int)
def why(site: Site, job_id: int) -> None:
    """Why a job does not run, in a sentence; or what it does, or how it ended."""
    with site.connect() as conn:
        found = chancy_ops.why(conn, job_id, schema=site.schema)
    told = {"id": job_id, "reason": str(found.reason), "sentence": str(found), "until": found.until}
    answer(site.json, told, str(found))
