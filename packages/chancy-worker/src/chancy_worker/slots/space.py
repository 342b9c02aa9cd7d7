"""How much room there is where functions run, of threads, children and memory: by what was claimed, and by what runs.

Who is claimed beyond it waits for a moment, and goes back then. The loop has room for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from chancy.options.limits import Place
from chancy_worker.attempts.attempt import Executor

from .room import Room, Shares
from .running import Running


class Space:
    """Of one worker. `names` are the tasks of each place, `needs` their memory limits in bytes, `memory` the budget."""

    def __init__(
        self,
        executors: Mapping[Place, Executor],
        names: Mapping[Place, Sequence[str]],
        needs: Mapping[str, int],
        memory: int | None,
    ) -> None:
        self._executors = executors
        self._names = names
        self._needs = {name: need for name, need in needs.items() if need}
        self._memory = memory
        self._used = dict.fromkeys(Place, 0)
        """By what was claimed, where not any number can run."""
        self._inside = dict.fromkeys(Place, 0)
        """Of those, by what has begun."""
        self._memory_used = self._memory_inside = 0
        self._in_vain: dict[str, tuple[Place, int]] = {}
        """Tasks of which a job has waited for room where it runs, and the least memory that one was to have."""
        self._shares = Shares()
        self._bounded = [place for place in executors if executors[place].size is not None and names[place]]
        """Where tasks of this worker run, but not any number; others are added with the first job that runs there."""
        self._open: list[Place] = []
        """Those that had room at the last claim."""

    def room(self, ahead: Mapping[str, int]) -> Room:
        """What there is room for; to be asked once before each claim.

        A place that is full has its tasks left out. What is claimed for a place beyond its room waits for it a moment,
        and goes back then; its task is left out until there is room.
        """
        self._shares.learn(self._open)
        self._open.clear()
        self._in_vain = {task: need for task, need in self._in_vain.items() if not self._has_room(*need)}
        without, bounds = [*self._in_vain, *self._too_large()], []
        for place in self._bounded:
            size = self._executors[place].size
            assert size is not None
            if (free := size - self._used[place]) > 0:
                self._open.append(place)
                bounds.append(self._shares.bound(place, free))
            else:
                without += self._names[place]
        return Room(bounds, without, ahead)

    @property
    def is_bounded(self) -> bool:
        """Whether any place has room for a few only, as far as is known."""
        return bool(self._bounded)

    def claim(self, running: Running) -> bool:
        """It is to run here, as soon as it can; False where its memory limit is above the whole budget.

        Raises KeyError of a place that this worker does not have.
        """
        place = running.place
        if self._executors[place].size is not None:
            if self._memory is not None and running.memory > self._memory:
                return False
            running.confined = True
            self._used[place] += 1
            self._memory_used += running.memory
            if place not in self._bounded:
                self._bounded.append(place)
        if self._bounded:
            self._shares.began(running.job.queue, place)
        return True

    def enter(self, running: Running) -> bool:
        """Whether there is room where it runs; then that is its own."""
        size = self._executors[running.place].size
        if size is not None and self._inside[running.place] >= size:
            return False
        if self._memory is not None and self._memory_inside + running.memory > self._memory:
            return False
        self._inside[running.place] += 1
        self._memory_inside += running.memory
        return True

    def leave(self, running: Running) -> None:
        """A confined one is over."""
        self._used[running.place] -= 1
        self._memory_used -= running.memory
        if running.inside:
            self._inside[running.place] -= 1
            self._memory_inside -= running.memory

    def waited(self, running: Running) -> None:
        """It has not begun in time; if that was for want of room here, its task is left out until there is some."""
        need = running.place, running.memory
        if running.confined and not self._has_room(*need):
            task = running.job.task
            self._in_vain[task] = min(need, self._in_vain.get(task, need))

    def _has_room(self, place: Place, memory: int) -> bool:
        """Whether there would be room for one more claim."""
        size = self._executors[place].size
        return (size is None or self._used[place] < size) and (
            self._memory is None or self._memory_used + memory <= self._memory
        )

    def _too_large(self) -> Iterable[str]:
        if self._memory is None:
            return ()
        free = self._memory - self._memory_used
        return [name for name, need in self._needs.items() if need > free]
