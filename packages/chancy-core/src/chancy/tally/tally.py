"""What a tally is made of: outcomes, and histograms that can be added up.

A histogram has a bucket for each quarter of an octave, from a microsecond on, and only those in which there is
anything: two of them are added by adding equal buckets, over workers, tasks and hours. A percentile is told as the
middle of its bucket, which is wrong by 9 % at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

_PER_OCTAVE = 4
_MICRO = 1e6


class Tallied(StrEnum):
    """As what a job is counted by its last attempt, or an attempt that was not the last."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    """It failed, and the job has attempts left."""
    SNOOZED = "snoozed"
    BLOCKED = "blocked"
    """It has returned what another job will come to, and waits for that."""
    RELEASED = "released"
    """It was given back unharmed, or never begun."""
    DIED = "died"
    """Its worker did."""
    LOST = "lost"
    """Its verdict came too late: another claim has the job."""


FINAL = (Tallied.SUCCEEDED, Tallied.FAILED, Tallied.DISCARDED, Tallied.CANCELLED)
"""With these a job ends."""


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; up to a microsecond it is the first."""
    micros = seconds * _MICRO
    return int(math.log2(micros) * _PER_OCTAVE) if micros > 1 else 0


def end_of(bucket: int) -> float:
    """Where it ends, in seconds: that, and not more."""
    return float(2 ** ((bucket + 1) / _PER_OCTAVE)) / _MICRO


def middle_of(bucket: int) -> float:
    """What is told of what is in it, in seconds."""
    return float(2 ** ((bucket + 0.5) / _PER_OCTAVE)) / _MICRO


def percentile(histogram: Mapping[int, int], fraction: float) -> float | None:
    """So large a part of all is at most so many seconds; None if there is nothing."""
    rank = math.ceil(sum(histogram.values()) * fraction)
    for bucket in sorted(histogram):
        rank -= histogram[bucket]
        if rank <= 0:
            return middle_of(bucket)
    return None
