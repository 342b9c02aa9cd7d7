"""The places where functions run in a worker: made at its start, where what cannot be kept in them is refused."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from chancy.app import Surround
from chancy.errors import InvalidTask
from chancy.options.limits import LimitType, Place
from chancy.task import BaseTask

from .attempts.attempt import Executor
from .attempts.executors import Loop
from .attempts.surround import place_of
from .config import WorkerConfig
from .threads.threads import Threads


def refuse_what_cannot_be_kept(
    tasks: Mapping[str, BaseTask[..., Any]],
    preload: Iterable[str],
    around: Surround | None,
    memory_budget: int | None,
) -> None:
    """Raises `InvalidTask` for limits that nothing here enforces, `ValueError` for a module that is not there, and for
    what is to be `around` functions and could not be imported in children.
    """
    for module in preload:
        if not _exists(module):
            raise ValueError(f"preload: there is no module {module!r} here; install it, or leave it out")
    place_of(around)
    for name, task in tasks.items():
        place = task.place()
        for limit in task.options.limits or ():
            if limit.type is not LimitType.MEMORY:
                continue
            if sys.platform != "linux":
                raise InvalidTask(name, "it has a memory limit, which can be enforced on Linux only")
            if memory_budget is not None and limit.value > memory_budget:
                raise InvalidTask(
                    name,
                    f"its memory limit of {limit.value:,.0f} bytes is above this worker's budget of {memory_budget:,}; "
                    f"lower the limit, raise --memory-budget, or let another worker have its queue",
                )
        if place is Place.PROCESS and sys.platform == "win32":
            raise InvalidTask(name, "it runs in a child process, which Windows has no fork server for")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def executors(
    tasks: Mapping[str, BaseTask[..., Any]],
    preload: Sequence[str],
    around: Surround | None,
    config: WorkerConfig,
    recovered: Callable[[], None],
) -> dict[Place, Executor]:
    """One for each place that there is here. Calls `recovered` when there is room where there was none."""
    places: dict[Place, Executor] = {Place.LOOP: Loop(around), Place.THREAD: Threads(config.threads, around)}
    if sys.platform != "win32":
        from .children.pool import Children, setup_for

        setup = setup_for(tasks.values(), preload, around)
        places[Place.PROCESS] = Children(config.children, setup, recycle=config.recycle, recovered=recovered)
    return places


def processes(executors: Mapping[Place, Executor]) -> Sequence[int]:
    """The ids of the worker's child processes, and of their fork server."""
    if sys.platform == "win32":
        return ()
    from .children.pool import Children

    children = executors[Place.PROCESS]
    return children.processes if isinstance(children, Children) else ()


async def close(executors: Mapping[Place, Executor]) -> int:
    """Close all of them; how many threads are still busy, and left to themselves."""
    for executor in executors.values():
        await executor.close()
    threads = executors[Place.THREAD]
    return threads.stranded if isinstance(threads, Threads) else 0
