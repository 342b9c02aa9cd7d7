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
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import measures
import report
from contenders import (
    CHANCY,
    CHANCY_026,
    CHANCY_10,
    CHANCY_20,
    CHANCY_400,
    CHANCY_CHILD,
    CHANCY_FAST,
    CHANCY_KEYED,
    CHANCY_NARROW,
    CHANCY_SYNC,
    CHANCY_THREAD,
    CHANCY_UNKEYED,
    CHANCY_UNLIMITED,
    CHANCY_WIDE,
    CONTENDERS,
    DRAMATIQ,
    FLOOR,
    FLOOR_10,
    FLOOR_SYNC,
    HUEY,
    PEERS,
    PGQUEUER,
    PGQUEUER_SHIPPED,
    PGQUEUER_THREAD,
    PROCRASTINATE,
    PROCRASTINATE_100,
    PROCRASTINATE_SHIPPED,
    PROCRASTINATE_THREAD,
)
from place import Contender, Site, describe, machine, opened

ROOT = Path(__file__).parents[1]
RUNS = 3
SCALE = 1_000_000

Sample = Callable[[Site], measures.Figures]


def each(take: Callable[..., measures.Figures], contenders: Iterable[Contender], **fixed: Any) -> dict[str, Sample]:
    """The same sample of each contender."""
    return {contender.key: partial(take, contender=contender, **fixed) for contender in contenders}


def drains(contenders: Iterable[Contender], share: float, processes: int = 1) -> dict[str, Sample]:
    """Drains of each contender's own number of jobs, or of a share of it."""
    return {
        contender.key: partial(
            measures.drain, contender=contender, jobs=int(contender.jobs * share), processes=processes
        )
        for contender in contenders
    }


def samples(quick: bool) -> dict[str, dict[str, Sample]]:
    """What is sampled again and again, by measure and contender."""
    share = 0.4 if quick else 1.0
    peers = [PGQUEUER] if quick else PEERS

    def full(*contenders: Contender) -> list[Contender]:
        return [] if quick else [*contenders]

    submitting = [FLOOR, CHANCY, FLOOR_SYNC, CHANCY_SYNC, *peers]
    in_bulk = [contender for contender in submitting if contender not in (HUEY, DRAMATIQ)]
    found = {
        "drain": drains(
            [FLOOR, CHANCY, *peers, *full(CHANCY_400, CHANCY_FAST, PGQUEUER_SHIPPED, PROCRASTINATE_SHIPPED)], share
        ),
        "drain by two": drains([CHANCY, *peers, *full(CHANCY_FAST)], 1.5 * share, processes=2),
        "small": drains([FLOOR_10, CHANCY_10, *full(CHANCY_20)], share),
        "sync": {
            **drains([CHANCY_THREAD, CHANCY_CHILD, PROCRASTINATE_THREAD, *full(PGQUEUER_THREAD)], share),
            "pipes": lambda _: measures.round_trips(20_000),
        },
        "limits": {
            contender.key: partial(
                measures.drain_by_many, contender=contender, jobs=int(contender.jobs * share), processes=8
            )
            for contender in (CHANCY_KEYED, CHANCY_NARROW, CHANCY_UNKEYED)
        },
        "limits not reached": {
            contender.key: partial(
                measures.drain_by_many, contender=contender, jobs=int(contender.jobs * share), processes=16
            )
            for contender in full(CHANCY_WIDE, CHANCY_UNLIMITED)
        },
        "slots": {
            **each(measures.busy_slots, [CHANCY], jobs=int(20_000 * share)),
            **each(measures.busy_slots, full(PROCRASTINATE_100), jobs=1_500),
        },
        "submit": each(measures.submit, submitting, jobs=1_500),
        "submit together": each(measures.together, in_bulk, jobs=10_000),
        **{
            f"submit_many {batch:,}": each(measures.submit_many, in_bulk, batch=batch)
            for batch in ([10_000] if quick else [1, 100, 10_000])
        },
        "latency": each(measures.latency, [FLOOR, CHANCY, *full(*PEERS)], jobs=60 if quick else 200),
        "latency under load": each(
            measures.latency, full(FLOOR, CHANCY, PGQUEUER, PROCRASTINATE, CHANCY_026), jobs=200, load=True
        ),
        "submitters": {
            name: partial(measures.submitters, contender=CHANCY, notifying=notifying, seconds=4)
            for name, notifying in (("with the doorbell", True), ("without any", False))
        },
    }
    return {name: cells for name, cells in found.items() if cells}


def once(quick: bool) -> dict[str, Callable[[Site], Any]]:
    """What is measured once, because it takes long or does not drift."""
    found: dict[str, Callable[[Site], Any]] = {
        "deep": partial(deep, scale=SCALE // 20 if quick else SCALE, runs=1 if quick else RUNS),
        "idle": partial(measures.idle, contenders=[CHANCY] if quick else [CHANCY, *PEERS], seconds=10 if quick else 30),
        "import": lambda _: imports(quick),
    }
    if not quick:
        found |= {"curves": curves, "doorbell": partial(measures.doorbell, contender=CHANCY, jobs=10_000)}
    return found


def deep(site: Site, scale: int, runs: int) -> dict[str, list[measures.Figures]]:
    """Drains of tables that have lived, in turn with a fresh one's."""
    variants = ("fresh", "history", "waiting", "future", "pinned")
    found: dict[str, list[measures.Figures]] = {variant: [] for variant in variants}
    with contextlib.ExitStack() as stack:
        sites = {variant: stack.enter_context(measures.deep(site, CHANCY, variant, scale)) for variant in variants}
        for _ in range(runs):
            for variant, run in sites.items():
                found[variant].append(measures.drain_deep(run, 100_000))
    return found


def imports(quick: bool) -> dict[str, measures.Figures]:
    """By module, the median of five interpreters."""
    modules = {"psycopg": CHANCY, "chancy": CHANCY, "chancy_worker": CHANCY}
    if not quick:
        modules |= {"pgqueuer": PGQUEUER, "procrastinate": PROCRASTINATE}
    return {module: middle([measures.imports(where, module) for _ in range(5)]) for module, where in modules.items()}


def middle(taken: list[measures.Figures]) -> measures.Figures:
    """Figure by figure, the median."""
    return {name: statistics.median(figures[name] for figures in taken) for name in taken[0]}


def curves(site: Site) -> dict[str, list[tuple[int, float]]]:
    """What a round takes, by what stands in its way and by how much of that there is."""
    sizes = [1_000, 10_000, 100_000]
    return {
        "jobs waiting": measures.curve(site, CHANCY, "waiting", [5_000, *sizes[1:], SCALE]),
        "jobs in history": measures.curve(site, CHANCY, "history", [*sizes, SCALE, 10 * SCALE]),
        "jobs done under a pinned xmin": measures.curve(site, CHANCY, "pinned", [*sizes, 300_000]),
    }


def measure(site: Site, quick: bool, runs: int, only: list[str]) -> dict[str, Any]:
    """All figures, as the report wants them."""

    def chosen(name: str) -> bool:
        return not only or any(name.startswith(wish) for wish in only)

    turns = {name: cells for name, cells in samples(quick).items() if chosen(name)}
    singles = {name: take for name, take in once(quick).items() if chosen(name)}
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
            taken: dict[str, list[measures.Figures]] = {key: [] for key in cells}
            for _ in range(runs):
                for key in list(taken):
                    progress.update(bar, description=f"{name}: {key}")
                    try:
                        taken[key].append(cells[key](site))
                    except (RuntimeError, TimeoutError) as error:  # half an hour is not lost to one queue
                        del taken[key]
                        progress.console.print(f"{key} has no figures for {name!r}: {error}")
                    progress.advance(bar)
            found["samples"][name] = taken
        for name, take in singles.items():
            progress.update(bar, description=name)
            found["once"][name] = take(site)
            progress.advance(bar)
    return found


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, help=f"how often each figure is taken ({RUNS}; with --quick 1)")
    parser.add_argument("--only", action="append", default=[], metavar="MEASURE")
    parser.add_argument("--report", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.report:
        report.write(json.loads(options.report.read_text()), ROOT / "docs")
        return
    with opened() as site:
        figures = measure(site, options.quick, options.runs or (1 if options.quick else RUNS), options.only)
    if options.quick or options.only:
        report.show(figures, Console())
    else:
        report.write(figures, ROOT / "docs")
        print("written: docs/benchmarks.md, docs/benchmarks.json and the pictures beside them")


if __name__ == "__main__":
    main()
