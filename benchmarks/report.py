"""From figures to what people look at: a page of tables, two pictures, a paragraph of the README, or the terminal."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

FLOORS = {"floor", "floor-10", "floor-sync", "pipes"}
OURS = "chancy"
COLOURS = {"floor": "#9aa5b1", "ours": "#2f6db5", "peer": "#c9a227"}

DRAINS = "rate", "python_us", "postgres_us", "wal_bytes"
HEADS = {
    "rate": "a second",
    "python_us": "CPU in Python, µs a job",
    "postgres_us": "CPU in Postgres, µs a job",
    "wal_bytes": "WAL, bytes a job",
    "busy": "slots busy",
    "p50": "p50, ms",
    "p95": "p95, ms",
    "p99": "p99, ms",
    "max": "largest, ms",
    "left_behind_s": "s until none was left",
}
MEASURES = {
    "drain": ("Drain of no-op async jobs, one worker process", DRAINS),
    "drain by two": ("The same by two worker processes", DRAINS),
    "small": ("The same with few slots", DRAINS),
    "sync": ("Drain of no-op sync jobs: in threads, in child processes", DRAINS),
    "slots": ("Jobs that sleep for 10 ms", ("rate", "busy")),
    "submit": ("Submit one by one, each in a transaction of its own", ("rate",)),
    "submit together": ("Submit one by one, in one transaction", ("rate",)),
    "submit_many 1": ("Submit in bulk, 1 in a call", ("rate",)),
    "submit_many 100": ("Submit in bulk, 100 in a call", ("rate",)),
    "submit_many 10,000": ("Submit in bulk, 10,000 in a call", ("rate",)),
    "latency": ("From the commit of a submit to the first line of the job, worker idle", ("p50", "p95", "p99", "max")),
    "latency under load": ("The same beside 500 other jobs a second", ("p50", "p95", "p99", "max")),
    "submitters": ("Commits of 16 clients that submit while a worker drains", ("rate", "left_behind_s")),
}


@dataclass(frozen=True, slots=True)
class Check:
    """A promise about speed, and what was seen."""

    what: str
    seen: float
    bound: float
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.seen >= self.bound if self.at_least else self.seen <= self.bound


class Figures:
    """The figures of one run of the benchmark, asked for by measure and contender."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found
        self.samples: dict[str, dict[str, list[dict[str, float]]]] = found["samples"]
        self.once: dict[str, Any] = found["once"]

    def label(self, key: str) -> str:
        """How a contender is called in a table."""
        known = self.found["contenders"].get(key)
        return known["label"] if known else {"pipes": "bare round trips to a child process"}.get(key, key)

    def values(self, measure: str, key: str, figure: str = "rate") -> list[float]:
        """One figure of every run, in their order."""
        return [taken[figure] for taken in self.samples[measure][key] if figure in taken]

    def middle(self, measure: str, key: str, figure: str = "rate") -> float:
        """Its median."""
        return statistics.median(self.values(measure, key, figure))

    def ratio(self, measure: str, key: str, other: str, figure: str = "rate", *, within: str = "") -> float:
        """The median of one contender's figure by another's, run by run."""
        pairs = zip(self.values(measure, key, figure), self.values(within or measure, other, figure), strict=True)
        return statistics.median(one / another for one, another in pairs)

    def peers(self, measure: str) -> list[str]:
        """The other queues, fastest first."""
        others = [
            key
            for key in self.samples.get(measure, ())
            if key not in FLOORS and not key.startswith(OURS + "-") and key != OURS
        ]
        others += [key for key in self.samples.get(measure, ()) if key == "chancy-026"]
        return sorted(others, key=lambda key: -self.middle(measure, key))


def checks(figures: Figures) -> list[Check]:
    """The promises of which there are figures."""
    has, ratio, middle = figures.samples, figures.ratio, figures.middle
    found: list[Check] = []

    def best(measure: str) -> str:
        return figures.peers(measure)[0]

    if "drain" in has:
        found.append(Check("drain as shipped / best other queue, tuned", ratio("drain", "chancy", best("drain")), 2))
        found.append(Check("drain as shipped / bare statements", ratio("drain", "chancy", "floor"), 0.6))
        if "chancy-fast" in has["drain"]:
            found.append(
                Check(
                    "drain, [fast] and 400 at a time / best other queue",
                    ratio("drain", "chancy-fast", best("drain")),
                    2,
                )
            )
    if "drain by two" in has:
        if "drain" in has:
            found.append(Check("two processes / one", ratio("drain by two", "chancy", "chancy", within="drain"), 1.2))
        found.append(
            Check(
                "two processes / best other queue with two", ratio("drain by two", "chancy", best("drain by two")), 2.3
            )
        )
    if "small" in has:
        found.append(
            Check("10 at a time / bare statements in batches of 10", ratio("small", "chancy-10", "floor-10"), 0.6)
        )
    if "sync" in has:
        found.append(
            Check(
                "sync in threads / procrastinate's threads", ratio("sync", "chancy-thread", "procrastinate-thread"), 2
            )
        )
        found.append(
            Check("in child processes / bare round trips over a pipe", ratio("sync", "chancy-child", "pipes"), 0.4)
        )
    if "submit together" in has:
        found.append(
            Check(
                "submit in a transaction, sync / bare INSERT",
                ratio("submit together", "chancy-sync", "floor-sync"),
                0.8,
            )
        )
        found.append(
            Check("submit in a transaction, async / bare INSERT", ratio("submit together", "chancy", "floor"), 0.8)
        )
    if "submit_many 10,000" in has:
        found.append(Check("submit_many of 10,000 / bare unnest", ratio("submit_many 10,000", "chancy", "floor"), 0.6))
        found.append(
            Check(
                "submit_many of 10,000 / best other queue",
                ratio("submit_many 10,000", "chancy", best("submit_many 10,000")),
                1.5,
            )
        )
    if "latency" in has:
        found.append(
            Check(
                "commit to start, p50 / bare LISTEN and claim, p50",
                ratio("latency", "chancy", "floor", "p50"),
                1.5,
                at_least=False,
            )
        )
        found.append(
            Check(
                "commit to start, p99 / bare LISTEN and claim, p99",
                ratio("latency", "chancy", "floor", "p99"),
                4,
                at_least=False,
            )
        )
    if "submitters" in has:
        found.append(
            Check(
                "16 submitting clients / without any notification",
                ratio("submitters", "with the doorbell", "without any"),
                0.75,
            )
        )
    if "slots" in has:
        found.append(Check("slots busy, jobs of 10 ms, 100 at a time", middle("slots", "chancy", "busy"), 0.9))
    if bell := figures.once.get("doorbell"):
        found.append(
            Check("doorbell, 8 workers idle, busy and killed: p99", bell["p99"], 10, at_least=False, unit=" ms")
        )
        found.append(Check("the same: the longest wait", bell["max"], 6250, at_least=False, unit=" ms"))
    if deep := figures.once.get("deep"):
        for variant, what, bound in (
            ("history", "10,000,000 finished jobs", 0.9), ("waiting", "1,000,000 waiting", 0.9),
            ("future", "1,000,000 in the future at a higher priority", 0.9), ("pinned", "a pinned xmin", 0.7),
        ):  # fmt: skip
            pairs = zip(deep[variant], deep["fresh"], strict=True)
            found.append(
                Check(
                    f"drain with {what} / fresh tables",
                    statistics.median(one["rate"] / fresh["rate"] for one, fresh in pairs),
                    bound,
                )
            )
    if idle := figures.once.get("idle"):
        found.append(
            Check("transactions of an idle worker", idle["chancy"]["transactions"], 1, at_least=False, unit=" /s")
        )
    return found


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown; all but the first column to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def checks_table(figures: Figures) -> str:
    """The promises."""
    return table(
        ["promise", "seen", "must be", "kept"],
        (
            [
                check.what,
                number(check.seen) + check.unit,
                f"{'at least' if check.at_least else 'at most'} {number(check.bound)}{check.unit}",
                "yes" if check.met else "**no**",
            ]
            for check in checks(figures)
        ),
    )


def measure_table(figures: Figures, measure: str) -> str:
    """One measure: medians, and how wide they scatter; the first figure beside the floor's and the best queue's."""
    wanted = MEASURES[measure][1]
    cells = figures.samples[measure]
    names = [name for name in wanted if any(name in taken for runs in cells.values() for taken in runs)]
    first = names[0]
    floor = next((key for key in cells if key in FLOORS and measure != "sync"), None)
    peers = figures.peers(measure) if first == "rate" else []
    head = [
        "",
        HEADS[first],
        "from – to",
        *([] if floor is None else ["of the floor"]),
        *(["of the best other"] if peers else []),
    ]
    rows = []
    for key in sorted(
        cells,
        key=lambda key: (
            -figures.middle(measure, key, first) if first == "rate" else figures.middle(measure, key, first)
        ),
    ):
        values = figures.values(measure, key, first)
        row = [figures.label(key), number(statistics.median(values)), f"{number(min(values))} – {number(max(values))}"]
        row += [] if floor is None else [number(figures.ratio(measure, key, floor, first))]
        row += [number(figures.ratio(measure, key, peers[0], first))] if peers else []
        rest = [figures.values(measure, key, name) for name in names[1:]]
        rows.append([*row, *(number(statistics.median(values)) if values else "" for values in rest)])
    return table([*head, *(HEADS[name] for name in names[1:])], rows)


def sections(figures: Figures) -> str:
    """Every table, each under its title."""
    parts = []
    for measure, (title, _) in MEASURES.items():
        if measure in figures.samples:
            parts += [f"### {title}", measure_table(figures, measure)]
    if deep := figures.once.get("deep"):
        names = {
            "fresh": "fresh tables",
            "history": "10,000,000 finished jobs",
            "waiting": "1,000,000 jobs waiting",
            "future": "1,000,000 jobs in the future, at a higher priority",
            "pinned": "another session holds a snapshot open",
        }
        rows = []
        for variant, runs in deep.items():
            rates = [taken["rate"] for taken in runs]
            share = statistics.median(
                one["rate"] / fresh["rate"] for one, fresh in zip(runs, deep["fresh"], strict=True)
            )
            rows.append(
                [
                    names[variant],
                    number(statistics.median(rates)),
                    f"{number(min(rates))} – {number(max(rates))}",
                    number(share),
                ]
            )
        parts += [
            "### Drain of tables that have lived",
            table(["", "jobs a second", "from – to", "of fresh tables"], rows),
        ]
    if idle := figures.once.get("idle"):
        rows = [
            [figures.label(key), number(found["transactions"]), number(found["megabytes"])]
            for key, found in idle.items()
        ]
        parts += ["### An idle worker", table(["", "transactions a second", "MB of memory"], rows)]
    if bell := figures.once.get("doorbell"):
        text = (
            f"10,000 lone submits at random gaps of 0 to 40 ms, to 8 workers that fall idle, are kept busy by bursts of 1,000, and "
            f"of which {bell['kills']:.0f} were killed and replaced. {bell['rescued']:.0f} jobs were in the hands of a worker that was "
            f"killed; the others began after p50 {number(bell['p50'])}, p95 {number(bell['p95'])}, p99 {number(bell['p99'])}, "
            f"at most {number(bell['max'])} ms."
        )
        parts += ["### The doorbell", text]
    if imports := figures.once.get("import"):
        rows = [
            [f"`import {module}`", number(found["ms"]), number(found["modules"])] for module, found in imports.items()
        ]
        parts += ["### Imports", table(["", "ms", "modules"], rows)]
    return "\n\n".join(parts)


def about(figures: Figures) -> str:
    """On what, with which settings, and who took part."""
    machine, settings = figures.found["machine"], figures.found["settings"]
    lines = [
        f"{machine['cores']} cores ({machine['processor']}), shared by Postgres, workers and clients; Python {machine['python']}; "
        f"medians of {figures.found['runs']} interleaved runs.",
        "",
        "Postgres: " + ", ".join(f"{name} = {value}" for name, value in settings.items()) + ".",
        "",
    ]
    seen: dict[str, dict[str, Any]] = {}
    for found in figures.found["contenders"].values():
        seen.setdefault(found["name"], found)
    for name, found in seen.items():
        lines.append(f"- **{name}** {found['version']}. As shipped: {found['default']} Tuned: {found['best']}")
    return "\n".join(lines)


PAGE = """# Benchmarks

`hatch run bench` measures all of this in about half an hour on a Postgres of its own, with full durability, and writes this
page; `hatch run bench --quick` measures the heart of it in two minutes. Figures of different runs cannot be compared: machines drift. Ratios
within one run can. [How one round works](how-it-works/hot-path.md) says where the speed comes from.

![Drain](benchmarks/drain.svg)

![A round](benchmarks/rounds.svg)

## What is promised, and what was seen

{checks}

## Where and how

{about}

How to read the tables: “bare statements” are Chancy's own SQL with nothing around it, which no worker can outrun with the same
guarantees; a ratio is the median of the ratios run by run. A backlog is drained from the start of its first job to the completion of its last. What runs is
the same empty function everywhere; each queue has so many jobs that it is busy for two or three seconds.

## Figures

{sections}
"""


def write(found: dict[str, Any], docs: Path) -> None:
    """The page, its pictures, the figures themselves, and the README's paragraph."""
    figures = Figures(found)
    pictures = docs / "benchmarks"
    pictures.mkdir(exist_ok=True)
    (docs / "benchmarks.json").write_text(json.dumps(found, indent=1) + "\n")
    (docs / "benchmarks.md").write_text(
        PAGE.format(checks=checks_table(figures), about=about(figures), sections=sections(figures))
    )
    draw_drain(figures, pictures / "drain.svg")
    if curves := figures.once.get("curves"):
        draw_rounds(curves, pictures / "rounds.svg")
    readme = docs.parent / "README.md"
    text = readme.read_text()
    readme.write_text(
        re.sub(
            r"(<!-- benchmark -->\n).*?(<!-- /benchmark -->)",
            lambda m: m[1] + summary(figures) + m[2],
            text,
            flags=re.DOTALL,
        )
    )


def summary(figures: Figures) -> str:
    """The README's words."""
    best = figures.peers("drain")
    names = ["floor", "chancy-fast", "chancy", *best]
    rows = [
        [figures.label(key), number(figures.middle("drain", key)), number(figures.ratio("drain", key, "chancy"))]
        for key in names
        if key in figures.samples["drain"]
    ]
    return table(["no-op async jobs, one worker process", "jobs a second", "of Chancy as shipped"], rows) + "\n"


def show(found: dict[str, Any], console: Console) -> None:
    """On the terminal."""
    figures = Figures(found)
    console.print(Markdown(f"{about(figures)}\n\n{sections(figures)}\n\n### Promises\n\n{checks_table(figures)}"))


def draw_drain(figures: Figures, file: Path) -> None:
    """Bars, the fastest on top."""
    from matplotlib.figure import Figure

    cells = [
        (key, measure)
        for measure in ("drain", "drain by two")
        if measure in figures.samples
        for key in figures.samples[measure]
    ]
    cells.sort(key=lambda cell: figures.middle(cell[1], cell[0]))
    figure = Figure(figsize=(9, 0.32 * len(cells) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, (key, measure) in enumerate(cells):
        values = figures.values(measure, key)
        middle = statistics.median(values)
        kind = "floor" if key in FLOORS else "peer" if key in figures.peers(measure) else "ours"
        axes.barh(place, middle, color=COLOURS[kind], alpha=1 if measure == "drain" else 0.6)
        axes.plot([min(values), max(values)], [place, place], color="#333333", linewidth=1)
        axes.text(max(values), place, f" {middle:,.0f}", va="center", fontsize=8)
    axes.set_yticks(
        range(len(cells)),
        [figures.label(key) + (", two processes" if measure != "drain" else "") for key, measure in cells],
        fontsize=8,
    )
    axes.set_xlabel("no-op async jobs a second: median, and from the least to the most")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    save(figure, file)


def draw_rounds(curves: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """Lines, flat if all is well."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(curves.items(), ("#2f6db5", "#3c8f5a", "#b5522f"), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=colour)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms a round (complete 100, claim 100)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    """As SVG with letters, the same bytes for the same figures."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": file.stem, "font.family": "sans-serif"}):
        figure.savefig(file, metadata={"Date": None})
