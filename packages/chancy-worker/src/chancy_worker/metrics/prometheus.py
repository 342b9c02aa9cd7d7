"""The numbers as Prometheus reads them. Its own library writes them, and is imported when somebody asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from chancy.tally.tally import end_of

from .numbers import Counted, Numbers

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MISSING = "there is no prometheus-client here; install chancy-worker[prometheus]\n"

BOUNDS = tuple(range(39, 39 + 12 * 8, 8))
"""The buckets of a histogram end with these of the tally: at 1 ms, four times that, … and 72 minutes."""
_ENDS = [f"{end_of(bucket):.6g}" for bucket in BOUNDS]


Values: TypeAlias = dict[tuple[str, ...], float]
"""By label values."""


def is_there() -> bool:
    """Whether the library can be imported; that takes a moment the first time."""
    try:
        import prometheus_client.core  # noqa: F401 - an extra
    except ImportError:
        return False
    return True


def page(workers: Mapping[str, Numbers | None], of_parent: Sequence[Counted] = ()) -> tuple[str, bytes]:
    """Content type and text. Of several workers, each with its name; None is of one that does not answer. Beside theirs
    what their parent has counted.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Families(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _families(workers, of_parent)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def _families(workers: Mapping[str, Numbers | None], of_parent: Sequence[Counted]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    there = {name: numbers for name, numbers in workers.items() if numbers is not None}
    process = ["process"] if len(workers) > 1 else []

    def labels(name: str, *values: str) -> list[str]:
        return [*values, name] if process else list(values)

    jobs = CounterMetricFamily(
        "chancy_jobs", "Attempts of jobs, by how they came out.", labels=["queue", "task", "outcome", *process]
    )
    waits = HistogramMetricFamily(
        "chancy_job_wait_seconds", "From when a job was due until it began.", labels=["queue", "task", *process]
    )
    runs = HistogramMetricFamily(
        "chancy_job_run_seconds", "How long an attempt ran, however it ended.", labels=["queue", "task", *process]
    )
    for each in of_parent:
        jobs.add_metric(labels("parent", each.queue, each.task, each.outcome), each.jobs)
    for name, numbers in there.items():
        for each in numbers.counted:
            jobs.add_metric(labels(name, each.queue, each.task, each.outcome), each.jobs)
        for (queue, task), cells in _by_task(numbers.counted).items():
            waits.add_metric(
                labels(name, queue, task), _buckets([each.waits for each in cells]), sum(each.waited for each in cells)
            )
            runs.add_metric(
                labels(name, queue, task), _buckets([each.runs for each in cells]), sum(each.ran for each in cells)
            )
    yield from (jobs, waits, runs)

    def gauge(name: str, told: str, what: Sequence[str], values: Values) -> Metric:
        made = GaugeMetricFamily(name, told, labels=what)
        for key, value in values.items():
            made.add_metric(list(key), value)
        return made

    def of_queues(pick: str) -> Values:
        return {
            tuple(labels(name, queue)): n
            for name, numbers in there.items()
            for queue, n in getattr(numbers, pick).items()
        }

    yield gauge("chancy_slots", "Jobs that may run at a time.", ["queue", *process], of_queues("slots"))
    yield gauge("chancy_running", "Jobs that run.", ["queue", *process], of_queues("running"))
    up = {tuple(labels(name)): float(name in there) for name in workers}
    yield gauge("chancy_worker_up", "Whether the worker's process answers.", process, up)
    ready = {tuple(labels(name)): float(numbers.ready) for name, numbers in there.items()}
    yield gauge("chancy_worker_ready", "Whether it works, as /ready says.", process, ready)
    verdicts = {tuple(labels(name)): float(numbers.verdicts) for name, numbers in there.items()}
    yield gauge("chancy_verdicts_waiting", "Ends of jobs that wait to be written.", process, verdicts)
    seen = next((numbers.seen for numbers in there.values() if numbers.seen is not None), None)
    reached: Values = {(): float(seen is not None)}
    yield gauge("chancy_database_up", "Whether the database has answered this scrape.", [], reached)
    if seen is None:
        return
    queues = {queue for numbers in there.values() for queue in numbers.slots}
    oldest: Values = {(queue,): seen.oldest.get(queue, 0.0) for queue in sorted(queues)}
    told = "For how long the longest waiting job that could begin has been due."
    yield gauge("chancy_oldest_ready_seconds", told, ["queue"], oldest)
    if seen.depths is not None:
        kinds = ("ready", "waiting", "scheduled", "blocked", "running")
        depths: Values = {
            (queue, kind): float(getattr(depth, kind)) for queue, depth in seen.depths.items() for kind in kinds
        }
        yield gauge(
            "chancy_depth",
            "Live jobs, once a minute, up to 10,000; those that wait for a limit or turn are ready, too.",
            ["queue", "state"],
            depths,
        )


def _by_task(counted: Sequence[Counted]) -> Mapping[tuple[str, str], list[Counted]]:
    found: defaultdict[tuple[str, str], list[Counted]] = defaultdict(list)
    for each in counted:
        found[each.queue, each.task].append(each)
    return found


def _buckets(histograms: Sequence[Mapping[int, int]]) -> list[Any]:
    """Cumulative, as Prometheus counts them."""
    made: list[Any] = [
        [end, sum(n for histogram in histograms for bucket, n in histogram.items() if bucket <= bound)]
        for bound, end in zip(BOUNDS, _ENDS, strict=True)
    ]
    return [*made, ["+Inf", sum(sum(histogram.values()) for histogram in histograms)]]
