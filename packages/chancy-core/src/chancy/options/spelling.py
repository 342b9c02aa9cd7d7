"""How it is said here: what was meant by a name that is no option's, and how a value of several parts is written."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from chancy.errors import InvalidOption

_TIME = "a limit of an attempt's time is limits=[Limit.time(60)], in seconds"
_MEMORY = "a limit of its memory is limits=[Limit.memory(1024**3)], in bytes"
_ATTEMPTS = "how often it is tried in all is max_attempts=, which counts the first attempt"
_RATE = 'a rate over all workers is limits=[Limit.rate(10, per=60)], "10 in 60 seconds"'
_CONCURRENCY = "how many run at a time over all workers is limits=[Limit.concurrency(5)]"
_BACKOFF = "how long to wait before the next attempt is retry=Backoff(base=5, factor=3)"
_DELAY = "a delay is of one job: the_task.using(delay=60).submit(…), in seconds"
_RUN_AT = "an instant is of one job: the_task.using(run_at=…).submit(…), an aware datetime"
_SCHEDULE = 'what is submitted by itself says schedule=every(minutes=5), or schedule=cron("0 9 * * *")'
_UNIQUE = "what must not be there twice says unique=Unique(key=…)"

ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("timeout", "time_limit", "soft_time_limit", "job_timeout", "max_runtime", "max_age"), _TIME),
    **dict.fromkeys(("memory", "memory_limit", "max_memory"), _MEMORY),
    **dict.fromkeys(("max_retries", "retries", "max_tries", "tries", "attempts", "autoretry_for"), _ATTEMPTS),
    **dict.fromkeys(("rate_limit", "rate", "throttle"), _RATE),
    **dict.fromkeys(("concurrency", "max_concurrency", "concurrency_limit"), _CONCURRENCY),
    **dict.fromkeys(("backoff", "retry_backoff", "retry_delay", "default_retry_delay", "min_backoff"), _BACKOFF),
    **dict.fromkeys(("countdown", "delay", "defer_by", "schedule_in"), _DELAY),
    **dict.fromkeys(("eta", "run_at", "defer_until", "schedule_at"), _RUN_AT),
    **dict.fromkeys(("cron", "crontab", "every", "interval", "periodic"), _SCHEDULE),
    **dict.fromkeys(("lock", "queueing_lock", "singleton", "once", "task_id", "job_id"), _UNIQUE),
}
"""By the names that other queues have for it, how it is said here."""


def refuse_others(names: Iterable[str], known: Collection[str]) -> None:
    """Raise `InvalidOption` if any of the names is none of the `known` options: it says which there are, and which was
    meant, as far as that can be guessed.
    """
    if (name := min(set(names).difference(known), default=None)) is None:
        return
    said = f"is no option (there are: {', '.join(known)})"
    if name in ELSEWHERE:
        said += f"; {ELSEWHERE[name]}"
    elif near := difflib.get_close_matches(name, known, 1, 0.75):
        said += f"; you may mean {near[0]}="
    raise InvalidOption(name, said)


def _struct_meta() -> type:
    """The metaclass of structs that people write: whoever calls one wrongly is told how it is written, by its
    `SPELLING`.
    """
    usual = type(msgspec.Struct)

    def call(kind: Any, *args: Any, **parts: Any) -> Any:
        """Raises `InvalidOption` for parts that it has not."""
        try:
            return usual.__call__(kind, *args, **parts)
        except TypeError:
            given = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in parts.items())])
            name = kind.__name__
            raise InvalidOption(name, f"say {kind.SPELLING}, got {name}({given[:100]})") from None

    try:
        return type("Spelled", (usual,), {"__call__": call})
    except TypeError:  # of a msgspec before 0.20, which says in its own words what is wrong
        return usual


if TYPE_CHECKING:
    Spelled: TypeAlias = msgspec.StructMeta
else:
    Spelled = _struct_meta()
