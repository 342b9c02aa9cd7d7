"""What a page says of what was done just now, and how it tells an act what somebody has seen."""

from __future__ import annotations

from collections.abc import Mapping

from chancy import JobRow, State
from chancy_ops import JobLine

_WAITS = (State.READY, State.SCHEDULED, State.BLOCKED)


def seen_of(job: JobRow | JobLine) -> str:
    """How somebody sees a job, for the form that acts on it: `failed:3`. That one gets due changes nothing."""
    return f"{'waits' if job.state in _WAITS else job.state.value}:{job.attempt}"


SAID: Mapping[str, str] = {
    "cancelled": "Cancelled.",
    "stopping": "It was asked to stop.",
    "requeued": "It is ready again.",
    "edited": "Changed.",
    "deleted": "Deleted.",
    "told": "It was told.",
    "untold": "It was not told: it is finished, was told before, or has waited long enough.",
    "forgotten": "Its steps are forgotten.",
    "paused": "Paused.",
    "resumed": "It goes on.",
    "limited": "The limit is set.",
    "unlimited": "There is no limit any more.",
    "kept": "The retention is set.",
    "submitted": "Submitted.",
    "existing": "A job with the same key was there already: this is it.",
    "ticks": "It ticks with the next look of a worker, within seconds.",
    "unscheduled": "The schedule is gone.",
    "left": "Nothing was changed: it was so already, or has gone on.",
    "unknown": "Done. But nobody knows this name: no worker has it, and no job waits or runs under it. Is it misspelt?",
    "strange": "Nothing was changed: nobody knows this name, which may be misspelt.",
    "stops": "It stops after its next batch.",
    "swept": "Done.",
    "some": "Done, but for some that had gone on, and were left as they were.",
}
"""Words about what was done. What is in an address may be anybody's, so it names one of these."""


def said_of(asked: Mapping[str, str]) -> str:
    """What was done just now, for the page that it led to."""
    return SAID.get(asked.get("did", ""), "")
