"""Where a job runs and under which limits: what its task declares, or what its row gives instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from chancy.errors import ChancyError
from chancy.options.limits import Limit, LimitType, Place, tightest
from chancy.task import BaseTask
from chancy_worker.attempts.verdict import Claimed

from .running import Running


class UnreadableLimits(ChancyError):
    """A job's limits are none that this version knows. They are not kept, so it does not run here."""

    def __init__(self, given: bytes, error: Exception) -> None:
        said = given[:200].decode("utf-8", "replace")
        super().__init__(
            f"its limits cannot be read by this worker, and so not be kept: {error} in {said}. If a newer version of "
            f"Chancy has submitted it, start workers of that version; else submit it again with limits=[Limit…]"
        )


class Placing:
    """The tasks of a worker, each with its place and its limits."""

    def __init__(self, tasks: Mapping[str, BaseTask[..., Any]]) -> None:
        places = {name: task.place() for name, task in tasks.items()}
        limits = {name: tightest(task.options.limits or ()) for name, task in tasks.items()}
        self.names = {place: tuple(n for n, p in places.items() if p is place) for place in Place}
        """Of the tasks that run there, if a job does not say otherwise."""
        self.memory = {name: _memory_of(limits[name]) for name in tasks}
        """Their limits in bytes; 0 is none."""
        self._plain = {name: (task, limits[name], places[name], self.memory[name]) for name, task in tasks.items()}

    def place(self, job: Claimed) -> Running:
        """The job as it is to run. Raises whatever somebody has written into its row."""
        if job.limits is None:
            return Running(job, *self._plain[job.task])
        task = self._plain[job.task][0]
        try:
            given = msgspec.json.decode(job.limits, type=list[Limit])
        except (msgspec.DecodeError, ValueError) as error:
            raise UnreadableLimits(job.limits, error) from None
        limits = tightest(given)
        try:
            place = task.place(given)
        except ValueError:  # the task has been given another executor since this job was submitted
            place = Place.PROCESS
        return Running(job, task, limits, place, _memory_of(limits))


def _memory_of(limits: Mapping[str, float]) -> int:
    return int(limits.get(LimitType.MEMORY, 0))
