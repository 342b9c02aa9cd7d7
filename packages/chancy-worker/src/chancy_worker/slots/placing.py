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
        self._tasks = tasks
        self._limits = {name: tightest(task.options.limits or ()) for name, task in tasks.items()}
        self._places = {name: task.place() for name, task in tasks.items()}
        self.names = {place: tuple(n for n, p in self._places.items() if p is place) for place in Place}
        """Of the tasks that run there, if a job does not say otherwise."""
        self.memory = {name: int(limits.get(LimitType.MEMORY, 0)) for name, limits in self._limits.items()}
        """Their limits in bytes; 0 is none."""

    def place(self, job: Claimed) -> Running:
        """The job as it is to run. Raises whatever somebody has written into its row."""
        task = self._tasks[job.task]
        if job.limits is None:
            return Running(job, task, self._limits[job.task], self._places[job.task], memory=self.memory[job.task])
        try:
            given = msgspec.json.decode(job.limits, type=list[Limit])
        except (msgspec.DecodeError, ValueError) as error:
            raise UnreadableLimits(job.limits, error) from None
        limits = tightest(given)
        try:
            place = task.place(given)
        except ValueError:  # the task has been given another executor since this job was submitted
            place = Place.PROCESS
        return Running(job, task, limits, place, memory=int(limits.get(LimitType.MEMORY, 0)))
