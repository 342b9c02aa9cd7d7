"""The table of the demo, computed from typed results that are read back out of Postgres."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import msgspec
import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import chancy
from tree_tasks import FileFacts, analyse


def rows_of(conn: psycopg.Connection) -> Iterator[chancy.JobRow]:
    """Every job of the task, page by page, newest first."""
    before = None
    while page := chancy.jobs(conn, task=analyse.name, limit=1000, before=before):
        yield from page
        before = page[-1].id


def report(conn: psycopg.Connection, folder: Path) -> None:
    """Print what the jobs have found out, and how they fared."""
    rows = list(rows_of(conn))
    done = [row for row in rows if row.state is chancy.State.SUCCEEDED]
    facts = sorted((msgspec.json.decode(row.result, type=FileFacts) for row in done), key=lambda fact: fact.path)
    digest = hashlib.sha256("".join(fact.sha256 for fact in facts).encode()).hexdigest()
    waits = [(row.started_at - row.submitted_at).total_seconds() for row in rows if row.attempt == 1]
    cuts = quantiles(waits, n=20) if len(waits) > 1 else [0.0] * 19
    failed = [row for row in reversed(rows) if row.state is chancy.State.FAILED]

    table = Table(title="What the jobs found", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("files", f"{len(facts):,} of {len(rows):,}")
    table.add_row("lines", f"{sum(fact.lines for fact in facts):,}")
    table.add_row("bytes", f"{sum(fact.bytes for fact in facts):,}")
    table.add_row("SHA-256 of all", digest)
    table.add_section()
    for title, unit, key in (("largest", "bytes", "bytes"), ("most deeply nested", "blocks", "depth")):
        for fact in sorted(facts, key=lambda fact: getattr(fact, key), reverse=True)[:3]:
            table.add_row(title, f"{getattr(fact, key):,} {unit}  {Path(fact.path).relative_to(folder)}")
    table.add_section()
    table.add_row("retried", f"{sum(row.attempt > 1 for row in rows):,}")
    table.add_row("submit to start", f"p50 {cuts[9]:.3f} s, p95 {cuts[18]:.3f} s")
    table.add_row("failed for real", f"{len(failed):,}")
    for row in failed:
        path = Path(msgspec.json.decode(row.arguments)["path"]).relative_to(folder)
        table.add_row(f"  {row.errors[-1].kind}", escape(f"{path}: {row.errors[-1].message}"))
    Console().print(table)
