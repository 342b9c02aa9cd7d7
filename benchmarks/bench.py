"""Everything that is said of Chancy's speed, measured in one run, beside the bare statements and other queues.

    hatch run bench                 all of it, about half an hour: writes docs/benchmarks.md and its pictures
    hatch run bench --quick         the heart of it in two minutes, on the terminal
    hatch run bench --only drain    some of it (again: drain deep …), on the terminal
    hatch run bench --report FILE   the page and the pictures again, from the figures of an earlier run

Each figure is the median of runs that take turns: A B C A B C. The machine drifts, so only ratios within one run mean
something, and nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import measures
import report
from place import Contender, Site, describe, machine, opened

ROOT = Path(__file__).parents[1]
SCALE = 1_000_000

FLOOR = Contender("floor", "bare statements, batches of 100", "floor.py", setting="best", jobs=80_000)
FLOOR_10 = Contender(
    "floor-10", "bare statements, batches of 10", "floor.py", setting="best", concurrency=10, jobs=25_000
)
FLOOR_SYNC = Contender("floor-sync", "bare statements, sync", "floor.py", style="sync")
CHANCY = Contender("chancy", "Chancy as shipped", "chancy_here.py")
CHANCY_SYNC = Contender("chancy-sync", "Chancy, sync", "chancy_here.py", style="sync")
CHANCY_10 = Contender(
    "chancy-10", "Chancy, 10 at a time", "chancy_here.py", setting="best", concurrency=10, jobs=25_000
)
CHANCY_20 = Contender(
    "chancy-20", "Chancy, 20 at a time", "chancy_here.py", setting="best", concurrency=20, jobs=35_000
)
CHANCY_400 = Contender(
    "chancy-400", "Chancy, 400 at a time", "chancy_here.py", setting="best", concurrency=400, jobs=80_000
)
CHANCY_FAST = Contender(
    "chancy-fast",
    "Chancy[fast], 400 at a time",
    "chancy_here.py",
    env="bench-fast",
    setting="best",
    concurrency=400,
    jobs=80_000,
)
CHANCY_THREAD = Contender("chancy-thread", "Chancy, in threads", "chancy_here.py", kind="thread", jobs=20_000)
CHANCY_CHILD = Contender("chancy-child", "Chancy, in child processes", "chancy_here.py", kind="child", jobs=20_000)
PGQUEUER = Contender(
    "pgqueuer", "pgqueuer on asyncpg, tuned", "peers/pgqueuer_asyncpg.py", "peer-pgqueuer", "best", jobs=30_000
)
PGQUEUER_SHIPPED = Contender(
    "pgqueuer-shipped", "pgqueuer on asyncpg as shipped", "peers/pgqueuer_asyncpg.py", "peer-pgqueuer", jobs=10_000
)
PGQUEUER_THREAD = Contender(
    "pgqueuer-thread",
    "pgqueuer, by to_thread",
    "peers/pgqueuer_asyncpg.py",
    "peer-pgqueuer",
    "best",
    kind="thread",
    jobs=10_000,
)
PGQUEUER_PSYCOPG = Contender(
    "pgqueuer-psycopg", "pgqueuer on psycopg, tuned", "peers/pgqueuer_psycopg.py", "peer-pgqueuer", "best", jobs=25_000
)
PROCRASTINATE = Contender(
    "procrastinate", "procrastinate, tuned", "peers/procrastinate_peer.py", "peer-procrastinate", "best", 20, jobs=1_500
)
PROCRASTINATE_100 = Contender(
    "procrastinate-100",
    "procrastinate, 100 at a time",
    "peers/procrastinate_peer.py",
    "peer-procrastinate",
    "best",
    100,
    jobs=1_500,
)
PROCRASTINATE_SHIPPED = Contender(
    "procrastinate-shipped", "procrastinate as shipped", "peers/procrastinate_peer.py", "peer-procrastinate", jobs=600
)
PROCRASTINATE_THREAD = Contender(
    "procrastinate-thread",
    "procrastinate, in threads",
    "peers/procrastinate_peer.py",
    "peer-procrastinate",
    "best",
    20,
    kind="thread",
    jobs=1_500,
)
CHANCY_026 = Contender(
    "chancy-026", "chancy 0.26 of PyPI, tuned", "peers/chancy_026.py", "peer-chancy026", "best", 100, jobs=8_000
)
HUEY = Contender("huey", "huey on SQL, tuned", "peers/huey_peer.py", "peer-huey", "best", 20, jobs=1_500)
DRAMATIQ = Contender(
    "dramatiq", "dramatiq-pg, tuned", "peers/dramatiq_peer.py", "peer-dramatiq", "best", 20, jobs=1_500
)

CONTENDERS = {found.key: found for found in list(globals().values()) if isinstance(found, Contender)}
PEERS = [PGQUEUER, PGQUEUER_PSYCOPG, PROCRASTINATE, CHANCY_026, HUEY, DRAMATIQ]

Sample = Callable[[Site], dict[str, float]]


def samples(quick: bool) -> dict[str, dict[str, Sample]]:
    """What is sampled again and again, by measure and contender."""
    peers = [PGQUEUER] if quick else PEERS
    drains = [FLOOR, CHANCY, *peers]
    twice = [CHANCY, *peers]
    submitting = [FLOOR, CHANCY, FLOOR_SYNC, CHANCY_SYNC, *peers]
    share = 0.4 if quick else 1.0
    if not quick:
        drains += [CHANCY_400, CHANCY_FAST, PGQUEUER_SHIPPED, PROCRASTINATE_SHIPPED]
        twice += [CHANCY_FAST]

    def jobs(contender: Contender) -> int:
        return int(contender.jobs * share)

    found: dict[str, dict[str, Sample]] = {
        "drain": {c.key: lambda site, c=c: measures.drain(site, c, jobs(c)) for c in drains},
        "drain by two": {c.key: lambda site, c=c: measures.drain(site, c, int(jobs(c) * 1.5), 2) for c in twice},
        "small": {
            c.key: lambda site, c=c: measures.drain(site, c, jobs(c))
            for c in ([FLOOR_10, CHANCY_10] if quick else [FLOOR_10, CHANCY_10, CHANCY_20])
        },
        "sync": {
            c.key: lambda site, c=c: measures.drain(site, c, jobs(c))
            for c in [CHANCY_THREAD, CHANCY_CHILD, PROCRASTINATE_THREAD, *([] if quick else [PGQUEUER_THREAD])]
        }
        | {"pipes": lambda site: measures.round_trips(20_000)},
        "slots": {
            c.key: lambda site, c=c: measures.busy_slots(site, c, int(n * share))
            for c, n in [(CHANCY, 20_000), *([] if quick else [(PROCRASTINATE_100, 1_500)])]
        },
        "submit": {c.key: lambda site, c=c: measures.submit(site, c, 1_500) for c in submitting},
        "submit together": {
            c.key: lambda site, c=c: measures.together(site, c, 3_000)
            for c in submitting
            if c not in (HUEY, DRAMATIQ, CHANCY_026)
        },
        **{
            f"submit_many {batch:,}": {
                c.key: lambda site, c=c, batch=batch: measures.submit_many(site, c, batch)
                for c in submitting
                if c not in (HUEY, DRAMATIQ)
            }
            for batch in ((10_000,) if quick else (1, 100, 10_000))
        },
        "latency": {
            c.key: lambda site, c=c: measures.latency(site, c, 60 if quick else 200)
            for c in [FLOOR, CHANCY, *([] if quick else peers)]
        },
    }
    if not quick:
        found["latency under load"] = {
            c.key: lambda site, c=c: measures.latency(site, c, 200, load=True)
            for c in [FLOOR, CHANCY, PGQUEUER, PROCRASTINATE, CHANCY_026]
        }
    return found


def once(quick: bool) -> dict[str, Callable[[Site], Any]]:
    """What is measured once, because it takes long or does not drift."""
    peers = [] if quick else PEERS
    scale = SCALE // 20 if quick else SCALE
    found: dict[str, Callable[[Site], Any]] = {
        "deep": lambda site: deep(site, scale, 1 if quick else 5),
        "idle": lambda site: measures.idle(site, [CHANCY, *peers], 10 if quick else 30),
        "import": lambda site: {
            module: middle([measures.imports(contender, module) for _ in range(5)])
            for contender, module in (
                (CHANCY, "psycopg"), (CHANCY, "chancy"), (CHANCY, "chancy_worker"),
                *([] if quick else [(PGQUEUER, "pgqueuer"), (PROCRASTINATE, "procrastinate"), (CHANCY_026, "chancy")]),
            )
        },
    }  # fmt: skip
    if not quick:
        found |= {
            "curves": lambda site: {
                "jobs waiting": measures.curve(site, CHANCY, "waiting", [1_000, 10_000, 100_000, SCALE]),
                "jobs in history": measures.curve(site, CHANCY, "history", [1_000, 10_000, 100_000, SCALE, 10 * SCALE]),
                "jobs done under a pinned xmin": measures.curve(
                    site, CHANCY, "pinned", [1_000, 10_000, 100_000, 300_000]
                ),
            },
            "doorbell": lambda site: measures.doorbell(site, CHANCY, 10_000),
        }
    return found


def deep(site: Site, scale: int, runs: int) -> dict[str, list[dict[str, float]]]:
    """Drains of tables that have lived, in turn with a fresh one's."""
    variants = ("fresh", "history", "waiting", "future", "pinned")
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    with contextlib.ExitStack() as stack:
        sites = {variant: stack.enter_context(measures.deep(site, CHANCY, variant, scale)) for variant in variants}
        for _ in range(runs):
            for variant, run in sites.items():
                found[variant].append(measures.drain_deep(run, 100_000))
    return found


def middle(taken: list[dict[str, float]]) -> dict[str, float]:
    """Figure by figure, the median."""
    return {name: statistics.median(figures[name] for figures in taken) for name in taken[0]}


def measure(site: Site, quick: bool, runs: int, only: list[str]) -> dict[str, Any]:
    """All figures, as the report wants them."""

    def chosen(name: str) -> bool:
        return not only or any(name.startswith(wish) for wish in only)

    turns = {name: cells for name, cells in samples(quick).items() if chosen(name)}
    singles = {name: take for name, take in once(quick).items() if chosen(name)}
    if chosen("submitters"):
        turns["submitters"] = {
            "with the doorbell": lambda site: measures.submitters(site, CHANCY, notifying=True, seconds=4),
            "without any": lambda site: measures.submitters(site, CHANCY, notifying=False, seconds=4),
        }
    found: dict[str, Any] = {
        "machine": machine(),
        "settings": site.settings(),
        "contenders": {
            key: {"label": c.label, "jobs": c.jobs, "setting": c.setting, "concurrency": c.concurrency} | describe(c)
            for key, c in CONTENDERS.items()
            if any(key in cells for cells in turns.values())
        },
        "runs": runs,
        "samples": {},
        "once": {},
    }
    columns = TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=runs * sum(map(len, turns.values())) + len(singles))
        for name, cells in turns.items():
            taken = found["samples"][name] = {key: [] for key in cells}
            for _ in range(runs):
                for key, take in cells.items():
                    progress.update(bar, description=f"{name}: {key}")
                    taken[key].append(take(site))
                    progress.advance(bar)
        for name, take in singles.items():
            progress.update(bar, description=name)
            found["once"][name] = take(site)
            progress.advance(bar)
    return found


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, help="how often each figure is taken (5; with --quick 1)")
    parser.add_argument("--only", action="append", default=[], metavar="MEASURE")
    parser.add_argument("--report", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.report:
        report.write(json.loads(options.report.read_text()), ROOT / "docs")
        return
    with opened() as site:
        figures = measure(site, options.quick, options.runs or (1 if options.quick else 5), options.only)
    if options.quick or options.only:
        report.show(figures, Console())
    else:
        report.write(figures, ROOT / "docs")
        print("written: docs/benchmarks.md, docs/benchmarks.json and the pictures beside them")


if __name__ == "__main__":
    main()
