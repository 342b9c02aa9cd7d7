"""How long each page of the dashboard takes on the database of `looks.py`, the server's part and all of Postgres'.

    hatch run pages                      fills a database (some minutes, 4 GB) in a temporary folder, and measures
    hatch run pages --keep FOLDER        the same, in a folder that is found again: `hatch run looks` has the same one
    hatch run pages --finished 1000000   smaller

Each page is opened twenty times, one after the other, in this process, with nothing shared between two: the table has
the median and the slowest but one, in milliseconds, and how large it is. Nothing else may run beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import httpx
import psycopg

from chancy_ops.web import OPERATE, Dashboard, User
from looks import arguments, filled

RUNS = 20
MOST_MS = 100


def paths(conn: psycopg.Connection[Any]) -> list[str]:
    """Every page that looks, of what is there."""
    ((waiting, running, failed, batch),) = conn.execute(
        """SELECT (SELECT max(id) FROM chancy.job WHERE queue = 'mail'),
        (SELECT max(id) FROM chancy.job WHERE state = 'running'),
        (SELECT id FROM chancy.history WHERE state <> 'succeeded' ORDER BY finished_at DESC, id DESC LIMIT 1),
        (SELECT max(id) FROM chancy.batch)"""
    ).fetchall()
    ((fingerprint,),) = conn.execute("SELECT fingerprint FROM chancy.history WHERE id = %s", [failed]).fetchall()
    return [
        "/", "/jobs", "/jobs?state=failed", "/jobs?state=ready&queue=mail", "/jobs?state=running",
        "/jobs?task=shop.tasks.yearly", "/jobs?state=failed&error=ConnectTimeout", "/jobs?text=no such words",
        f"/jobs/{waiting}", f"/jobs/{running}", f"/jobs/{failed}", "/failures", f"/failure?fingerprint={fingerprint}",
        "/queues", "/queue?name=mail", "/tasks", "/task?name=shop.tasks.welcome", "/schedules", "/limits", "/batches",
        f"/batch?id={batch}", "/workers", "/doctor",
    ]  # fmt: skip


async def measure(dsn: str, asked: list[str]) -> None:
    """Print the table; what takes longer than it may has a star."""
    dashboard = Dashboard(dsn, auth=lambda request: User("ann", OPERATE))
    shared = dashboard._desk.shared  # noqa: SLF001 - what others have asked is no measurement
    transport = httpx.ASGITransport(app=dashboard)
    print("| page | median | slowest but one | kB |\n|---|---|---|---|")
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
        for path in asked:
            took = []
            for _ in range(RUNS + 1):
                shared._answers.clear()  # noqa: SLF001
                began = time.perf_counter()
                answer = await client.get(path)
                took.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (path, answer.text)
            *_, slow, _ = sorted(took[1:])
            size = len(answer.content) / 1024
            star = "*" if slow > MOST_MS else ""
            print(f"| {path} | {statistics.median(took[1:]):.1f} | {slow:.1f}{star} | {size:.0f} |", flush=True)
    dashboard.close()


def main() -> None:
    """Fill, and measure."""
    args = arguments(__doc__)
    with filled(args.keep, args.finished, args.live) as conn:
        asyncio.run(measure(conn.info.dsn, paths(conn)))


if __name__ == "__main__":
    main()
