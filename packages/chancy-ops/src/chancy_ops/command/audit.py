"""`chancy audit`: what people did."""

from __future__ import annotations

from dataclasses import asdict

import click
import msgspec

import chancy_ops
from chancy.options.phrases import one_line
from chancy_ops import AuditRow
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command


@command("audit")
@click.option("--who", metavar="NAME", help="Of this person: ann@web-1, or as the dashboard calls him.")
@click.option("--verb", "did", metavar="VERB", help="Of this kind: cancel, requeue, pause and the like.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=int, metavar="ID", help="The next page: what was done before this one.")
def audit(site: Site, who: str | None, did: str | None, limit: int, before: int | None) -> None:
    """What people did by this command and by the dashboard, newest first.

    Of many jobs that were changed at once CHANGED counts while it goes on, and `chancy stop ID` ends it.
    """
    with site.connect() as conn:
        rows = chancy_ops.audit(conn, who=who, did=did, limit=limit, before=before, schema=site.schema)
    if site.json:
        return document({"audit": [asdict(row) for row in rows]})
    Table(
        ("ID", "AT", "WHO", "VIA", "VERB", "CHANGED", "NOTE", "WHAT"),
        [
            (
                row.id, row.at, one_line(row.who, 80), one_line(row.via, 80), one_line(row.verb, 80), row.changed,
                state(row), whom(row),
            )
            for row in rows
        ],
    ).show()  # fmt: skip
    return None


def state(row: AuditRow) -> str:
    """How far a sweep is, or why it ended early; nothing of what is simply done."""
    if row.done_at is not None:
        return one_line(row.note, 60)
    if not row.is_running:
        return f"lost its process, of {row.fits:,}"
    return f"{'stopping' if row.stop_at else 'running'}, of {row.fits:,}"


def whom(row: AuditRow) -> str:
    """`queue mail, state failed`"""
    said = {name: value for name, value in row.what.items() if value is not None}
    return one_line(
        ", ".join(f"{name} {value if isinstance(value, str) else _json(value)}" for name, value in said.items()), 200
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
