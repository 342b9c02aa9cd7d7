"""From figures to what people look at: a page of tables, two pictures, a paragraph of the README, or the terminal."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from contenders import FLOORS, OTHERS

KINDS = {"floor": ("bare statements", "#9aa5b1"), "chancy": ("Chancy", "#2f6db5"), "other": ("other queues", "#c9a227")}
"""A contender's kind, in the words and the colour of the pictures."""

HEADS = {
    "rate": "a second",
    "cpu_us": "CPU of all, µs a job",
    "python_us": "CPU in Python, µs a job",
    "postgres_us": "CPU in Postgres, µs a job",
    "wal_bytes": "WAL, bytes a job",
    "blocks": "blocks read, a job",
    "busy": "slots busy",
    "p50": "p50, ms",
    "p95": "p95, ms",
    "p99": "p99, ms",
    "max": "largest, ms",
    "left_behind_s": "s until none was left",
}
DRAINS = "rate", "cpu_us", "python_us", "postgres_us", "wal_bytes", "blocks"
LATENCIES = "p50", "p95", "p99", "max"
MEASURES = {
    "drain": ("Drain of no-op async jobs, one worker process", DRAINS),
    "drain by two": ("The same by two worker processes", DRAINS),
    "small": ("The same with few slots", DRAINS),
    "sync": ("Drain of no-op sync jobs: in threads, in child processes", DRAINS),
    "limits": ("Drain of no-op async jobs by eight worker processes, with a limit that is full and without", DRAINS),
    "limits not reached": ("Jobs of 10 ms on 16 worker processes, with a limit that is far away and without", DRAINS),
    "slots": ("Jobs that sleep for 10 ms", ("rate", "busy")),
    "submit": ("Submit one by one, each in a transaction of its own", ("rate",)),
    "submit together": ("Submit one by one, in one transaction", ("rate",)),
    "submit_many 1": ("Submit in bulk, 1 in a call", ("rate",)),
    "submit_many 100": ("Submit in bulk, 100 in a call", ("rate",)),
    "submit_many 10,000": ("Submit in bulk, 10,000 in a call", ("rate",)),
    "latency": ("From the commit of a submit to the first line of the job, worker idle", LATENCIES),
    "latency under load": ("The same beside 500 other jobs a second", LATENCIES),
    "submitters": ("Commits of 16 clients that submit while a worker drains", ("rate", "left_behind_s")),
}
"""A title and the figures of each; the first is what is compared."""

DEEP = {
    "fresh": "fresh tables",
    "history": "10,000,000 finished jobs",
    "waiting": "1,000,000 jobs waiting",
    "future": "1,000,000 jobs in the future, at a higher priority",
    "pinned": "a snapshot that another session holds open",
}
LABELS = {"pipes": "bare round trips to a child process", "without any": "without any notification"}
"""How what is no contender is called in a table."""

BEST = "best"
"""The fastest of the other queues."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A promise about one contender's figure by another's: at least so much of a rate, at most so much of a latency."""

    what: str
    measure: str
    one: str
    other: str
    bound: float
    figure: str = "rate"
    within: str = ""
    """The measure of the other's figure, where it is another one."""


RATIOS = (
    Ratio("drain as shipped / best other queue, tuned", "drain", "chancy", BEST, 2),
    Ratio("drain as shipped / bare statements", "drain", "chancy", "floor", 0.6),
    Ratio("drain, [fast] and 400 at a time / best other queue", "drain", "chancy-fast", BEST, 2),
    Ratio("two processes / one", "drain by two", "chancy", "chancy", 1.2, within="drain"),
    Ratio("two processes / best other queue with two", "drain by two", "chancy", BEST, 2.3),
    Ratio("10 at a time / bare statements in batches of 10", "small", "chancy-10", "floor-10", 0.6),
    Ratio("sync in threads / procrastinate's threads", "sync", "chancy-thread", "procrastinate-thread", 2),
    Ratio("in child processes / bare round trips over a pipe", "sync", "chancy-child", "pipes", 0.4),
    Ratio("8 workers, 3 at a time of each of 50 keys / without", "limits", "chancy-keyed", "chancy-unkeyed", 0.75),
    Ratio("the same / without a limit, as many at a time", "limits", "chancy-keyed", "chancy-narrow", 0.75),
    Ratio(
        "16 workers, 10,000 at a time, jobs of 10 ms / without a limit",
        "limits not reached",
        "chancy-wide",
        "chancy-unlimited",
        0.8,
    ),
    Ratio("submit in a transaction, sync / bare INSERT", "submit together", "chancy-sync", "floor-sync", 0.8),
    Ratio("submit in a transaction, async / bare INSERT", "submit together", "chancy", "floor", 0.8),
    Ratio("submit_many of 10,000 / bare unnest", "submit_many 10,000", "chancy", "floor", 0.6),
    Ratio("submit_many of 10,000 / best other queue", "submit_many 10,000", "chancy", BEST, 1.5),
    Ratio("commit to start, p50 / bare LISTEN and claim, p50", "latency", "chancy", "floor", 1.5, "p50"),
    Ratio("commit to start, p99 / bare LISTEN and claim, p99", "latency", "chancy", "floor", 4, "p99"),
    Ratio("16 submitting clients / without any notification", "submitters", "with the doorbell", "without any", 0.75),
)


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
        return known["label"] if known else LABELS.get(key, key)

    def values(self, measure: str, key: str, figure: str = "rate") -> list[float]:
        """One figure of every run, in their order."""
        return [taken[figure] for taken in self.samples[measure][key] if figure in taken]

    def middle(self, measure: str, key: str, figure: str = "rate") -> float:
        """Its median."""
        return statistics.median(self.values(measure, key, figure))

    def ratio(self, measure: str, key: str, other: str, figure: str = "rate", *, within: str = "") -> float:
        """The median of one contender's figure by another's, run by run."""
        return ratio(self.values(measure, key, figure), self.values(within or measure, other, figure))

    def ranked(self, measure: str, figure: str = "rate") -> list[str]:
        """The contenders, the fastest first."""
        keys = self.samples.get(measure, ())
        return sorted(keys, key=lambda key: self.middle(measure, key, figure), reverse=figure == "rate")

    def peers(self, measure: str) -> list[str]:
        """The other queues, the fastest first."""
        return [key for key in self.ranked(measure) if key in OTHERS]

    def floor(self, measure: str, key: str) -> str | None:
        """The bare statements that a contender stands beside: those of its own size or style, where there are any."""
        floors = [floor for floor in self.samples[measure] if floor in FLOORS]
        own = "floor-" + key.rpartition("-")[2]
        return own if own in floors else next(iter(floors), None)


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median, run by run."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def checks(figures: Figures) -> Iterator[Check]:
    """The promises of which there are figures."""
    for promise in RATIOS:
        within = promise.within or promise.measure
        other = next(iter(figures.peers(within)), "") if promise.other == BEST else promise.other
        if promise.one in figures.samples.get(promise.measure, ()) and other in figures.samples.get(within, ()):
            seen = figures.ratio(promise.measure, promise.one, other, promise.figure, within=within)
            yield Check(promise.what, seen, promise.bound, at_least=promise.figure == "rate")
    if "slots" in figures.samples:
        seen = figures.middle("slots", "chancy", "busy")
        yield Check("slots busy, jobs of 10 ms, 100 at a time", seen, 0.9)
    if bell := figures.once.get("doorbell"):
        what = "doorbell, 8 workers idle, busy and killed: p99"
        yield Check(what, bell["p99"], 10, at_least=False, unit=" ms")
        yield Check("the same: the longest wait", bell["max"], 6250, at_least=False, unit=" ms")
    if deep := figures.once.get("deep"):
        for variant in list(DEEP)[1:]:
            seen = ratio(*([taken["rate"] for taken in deep[name]] for name in (variant, "fresh")))
            yield Check(f"drain with {DEEP[variant]} / fresh tables", seen, 0.7 if variant == "pinned" else 0.9)
    if idle := figures.once.get("idle"):
        seen = idle["chancy"]["transactions"]
        yield Check("transactions of an idle worker", seen, 1, at_least=False, unit=" /s")


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """From the least to the most."""
    return f"{number(min(values))} to {number(max(values))}"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown; all but the first column to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def checks_table(figures: Figures) -> str:
    """The promises."""

    def row(check: Check) -> Iterator[str]:
        yield check.what
        yield number(check.seen) + check.unit
        yield f"{'at least' if check.at_least else 'at most'} {number(check.bound)}{check.unit}"
        yield "yes" if check.met else "**no**"

    return table(["promise", "seen", "must be", "kept"], map(row, checks(figures)))


def measure_table(figures: Figures, measure: str) -> str:
    """Medians, the fastest on top; the first figure with its spread, beside the floor's and the best queue's."""
    seen = {name for runs in figures.samples[measure].values() for taken in runs for name in taken}
    first, *rest = [name for name in MEASURES[measure][1] if name in seen]
    keys = figures.ranked(measure, first)
    with_floor = any(figures.floor(measure, key) for key in keys)
    best = next(iter(figures.peers(measure)), None) if first == "rate" else None

    def row(key: str) -> Iterator[str]:
        yield figures.label(key)
        yield number(figures.middle(measure, key, first))
        yield spread(figures.values(measure, key, first))
        if floor := figures.floor(measure, key):
            yield number(figures.ratio(measure, key, floor, first))
        if best:
            yield number(figures.ratio(measure, key, best))
        for name in rest:
            yield number(figures.middle(measure, key, name)) if figures.values(measure, key, name) else ""

    head = ["", HEADS[first], "least to most"]
    head += ["of bare statements"] * with_floor + ["of the best other queue"] * bool(best)
    return table([*head, *(HEADS[name] for name in rest)], map(row, keys))


def deep_table(deep: dict[str, list[dict[str, float]]]) -> str:
    """Drains of tables that have lived, the fresh ones' on top."""
    rates = {variant: [taken["rate"] for taken in runs] for variant, runs in deep.items()}
    rows = (
        [DEEP[variant], number(statistics.median(seen)), spread(seen), number(ratio(seen, rates["fresh"]))]
        for variant, seen in rates.items()
    )
    return table(["", HEADS["rate"], "least to most", "of fresh tables"], rows)


def idle_table(figures: Figures) -> str:
    """The quietest worker on top."""
    ranked = sorted(figures.once["idle"].items(), key=lambda item: item[1]["transactions"])
    rows = ([figures.label(key), number(seen["transactions"]), number(seen["megabytes"])] for key, seen in ranked)
    return table(["", "transactions a second", "MB of memory"], rows)


def imports_table(imports: dict[str, dict[str, float]]) -> str:
    """The quickest on top."""
    ranked = sorted(imports.items(), key=lambda item: item[1]["ms"])
    rows = ([f"`import {module}`", number(seen["ms"]), number(seen["modules"])] for module, seen in ranked)
    return table(["", "ms", "modules"], rows)


def doorbell_words(bell: dict[str, float]) -> str:
    """What was done to the workers, and how long jobs waited."""
    return (
        "10,000 lone submits at random gaps of 0 to 40 ms, to 8 workers that fall idle between bursts of 1,000"
        f" jobs; {bell['kills']:.0f} workers were killed and replaced. {bell['rescued']:.0f} of the lone jobs were in"
        f" the hands of a worker that was killed. The others began after {number(bell['p50'])} ms (p50),"
        f" {number(bell['p95'])} ms (p95), {number(bell['p99'])} ms (p99), and {number(bell['max'])} ms at most."
    )


def sections(figures: Figures) -> str:
    """All that was measured, each under its title."""
    once = figures.once
    parts = {
        title: measure_table(figures, measure) for measure, (title, _) in MEASURES.items() if measure in figures.samples
    }
    if "deep" in once:
        parts["Drain of tables that have lived"] = deep_table(once["deep"])
    if "idle" in once:
        parts["An idle worker"] = idle_table(figures)
    if "doorbell" in once:
        parts["The doorbell"] = doorbell_words(once["doorbell"])
    if "import" in once:
        parts["Imports"] = imports_table(once["import"])
    return "\n\n".join(f"### {title}\n\n{part}" for title, part in parts.items())


def about(figures: Figures) -> str:
    """On what, with which settings, and who took part."""
    machine = figures.found["machine"]
    settings = ", ".join(f"{name} = {value}" for name, value in figures.found["settings"].items())
    named = {}
    for found in figures.found["contenders"].values():
        named.setdefault(f"**{found['name']}** {found['version']}".rstrip(), found)
    lines = (f"- {name}. As shipped: {found['default']} Tuned: {found['best']}" for name, found in named.items())
    return (
        f"{machine['cores']} cores ({machine['processor']}), shared by Postgres, workers and clients;"
        f" Python {machine['python']}; each figure is the median of {figures.found['runs']} runs in turn.\n\n"
        f"Postgres: {settings}.\n\n" + "\n".join(lines)
    )


PAGE = """# Benchmarks

`hatch run bench` measures all of this in about half an hour, on a Postgres of its own with full durability, and writes
this page; `hatch run bench --quick` measures the heart of it in two minutes. Figures of different runs cannot be
compared, since machines drift; ratios within one run can. [How one round works](how-it-works/hot-path.md) says where
the speed comes from.

![No-op async jobs a second, by queue](benchmarks/drain.svg)

![Milliseconds of a round, by the size of the tables](benchmarks/rounds.svg)

## What is promised, and what was seen

{checks}

## Where and how

{about}

How to read the tables: "bare statements" are Chancy's own SQL with nothing around it, which no worker can outrun with
the same guarantees; a ratio is the median of the ratios run by run. A backlog is drained from the start of its first
job to the completion of its last. What runs is the same empty function everywhere; each queue has so many jobs that it
is busy for two or three seconds.

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
    marked = re.compile(r"(?<=<!-- benchmark -->\n).*?(?=<!-- /benchmark -->)", re.DOTALL)
    readme.write_text(marked.sub(lambda _: summary(figures), readme.read_text()))


def summary(figures: Figures) -> str:
    """The README's words."""
    shown = {"floor", "chancy-fast", "chancy", *OTHERS}
    rows = (
        [figures.label(key), number(figures.middle("drain", key)), number(figures.ratio("drain", key, "chancy"))]
        for key in figures.ranked("drain")
        if key in shown
    )
    return table(["no-op async jobs, one worker process", "jobs a second", "of Chancy as shipped"], rows) + "\n"


def show(found: dict[str, Any], console: Console) -> None:
    """On the terminal."""
    figures = Figures(found)
    console.print(Markdown(f"{about(figures)}\n\n{sections(figures)}\n\n### Promises\n\n{checks_table(figures)}"))


def draw_drain(figures: Figures, file: Path) -> None:
    """Bars, the fastest on top; those of two processes below those of one, on the same scale."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    titles = {"drain": "one worker process", "drain by two": "two worker processes"}
    groups = {measure: figures.ranked(measure) for measure in titles if measure in figures.samples}
    counts = [len(keys) for keys in groups.values()]
    figure = Figure(figsize=(9, 0.3 * sum(counts) + 0.7 * len(groups) + 0.5), layout="constrained")
    grid = figure.subplots(len(groups), sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (measure, keys) in zip(grid, groups.items(), strict=True):
        for place, key in enumerate(keys):
            values = figures.values(measure, key)
            kind = "floor" if key in FLOORS else "other" if key in OTHERS else "chancy"
            axes.barh(place, statistics.median(values), color=KINDS[kind][1])
            axes.plot([min(values), max(values)], [place, place], color="#333333", linewidth=1)
            axes.text(max(values), place, f" {statistics.median(values):,.0f}", va="center", fontsize=8)
        axes.set_yticks(range(len(keys)), map(figures.label, keys), fontsize=8)
        axes.set_ylim(len(keys) - 0.4, -0.6)
        axes.set_title(titles[measure], loc="left", fontsize=10)
        axes.margins(x=0.1)
    legend = [Patch(color=colour, label=words) for words, colour in KINDS.values()]
    grid[0].legend(handles=legend, loc="lower right", frameon=False)
    grid[-1].set_xlabel("no-op async jobs a second: the median, and a line from the least to the most")
    grid[-1].xaxis.set_major_formatter("{x:,.0f}")
    save(figure, file)


def draw_rounds(curves: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """Lines, flat if all is well."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(curves.items(), ("#2f6db5", "#3c8f5a", "#b5522f"), strict=True):
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("jobs")
    axes.set_ylabel("ms a round (complete 100, claim 100)")
    axes.legend(loc="lower left", frameon=False)
    axes.grid(alpha=0.3)
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    """As SVG with letters, the same bytes for the same figures."""
    import matplotlib as mpl

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": file.stem, "font.family": "sans-serif"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
