"""Tasks that tick each second, and, run as a script, a worker of them whose own clock is an hour ahead."""

from __future__ import annotations

import datetime as dt
import sys
import time

from chancy import cron, every, task

Real = dt.datetime


@task(schedule=every(seconds=1, missed="all"))
async def declared() -> None: ...


@task
async def made() -> None: ...


@task(schedule=cron("*/2 * * * * *", timezone="Europe/Prague", missed="one", overlap="allow"))
async def on_time() -> None: ...


class _AsBefore(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Real)


class Wrong(Real, metaclass=_AsBefore):
    """What this process takes for the time of day."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return Real.now(tz) + dt.timedelta(hours=1)


if __name__ == "__main__":
    sys.modules["schedule_patience_tasks"] = sys.modules["__main__"]
    import chancy_worker.worker  # noqa: F401 - whose modules are patched, too
    from chancy_worker.cli import main

    right = time.time
    time.time = lambda: right() + 3600
    for name, module in list(sys.modules.items()):
        if name.startswith("chancy") and getattr(module, "datetime", None) is Real:
            module.datetime = Wrong  # type: ignore[attr-defined]
    print(f"its own clock is {time.time() - right():.0f} s ahead", flush=True)
    sys.exit(main(sys.argv[1:]))
