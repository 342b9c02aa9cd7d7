"""An error as it is kept on its job.

What a handler says is untrusted: texts are made encodable, capped, and live in JSON.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from chancy.arguments.codec import encode_json
from chancy.errors import InvalidResult
from chancy.model import AttemptError
from chancy.options.outcomes import Discard, Retry
from chancy_worker.fingerprint import fingerprint, fingerprint_of
from chancy_worker.words import (
    MAX_KIND_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TRACEBACK_BYTES,
    handlers_traceback,
    kind_of,
    safe,
    words_of,
)

KEPT_ERRORS = 10


def error_of(
    error: BaseException, task: str, attempt: int, worker: str, at: float, seconds: float, trace: str
) -> AttemptError:
    """How an attempt went wrong that began `at`, as Unix time, and took so many seconds. Never raises."""
    says_all = issubclass(type(error), (Discard, Retry, InvalidResult))
    kind, message = safe(kind_of(error), MAX_KIND_BYTES), safe(words_of(error), MAX_MESSAGE_BYTES)
    return AttemptError(
        attempt=attempt,
        kind=kind,
        message=message,
        traceback="" if says_all else safe(handlers_traceback(error), MAX_TRACEBACK_BYTES),
        worker=worker,
        started_at=datetime.fromtimestamp(at, UTC),
        duration=round(seconds, 6),
        fingerprint=fingerprint_of(error, task, kind, message),
        trace=safe(trace, MAX_KIND_BYTES),
    )


def unstored(reason: str) -> AttemptError:
    """A verdict that the database did not take."""
    message = safe(f"the verdict of this attempt could not be stored: {reason}", MAX_MESSAGE_BYTES)
    return AttemptError(
        attempt=0, kind="InvalidResult", message=message, fingerprint=fingerprint("InvalidResult", "", message)
    )


def appended(errors: bytes | None, error: AttemptError) -> bytes:
    """A job's errors with this one, as JSON: the newest ten, oldest first."""
    old: Sequence[msgspec.Raw] = []
    if errors is not None:
        with contextlib.suppress(msgspec.DecodeError, ValueError):  # what is no list was not written by a worker
            old = msgspec.json.decode(errors, type=list[msgspec.Raw])
    return encode_json([*old[1 - KEPT_ERRORS :], error])
