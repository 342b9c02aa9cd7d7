"""What jobs log, from `logging` to the database: each attempt collects records in a `Book` of bounded size, and once a
second the worker writes the records of all of them.

What an attempt has said is true whoever owns the job by now. Only where the row says that there never was such a claim,
as after a failover that has lost it, its records are of another job that had the same id, and are not kept.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chancy.arguments.codec import encode_json
from chancy.current import running_attempt
from chancy.logs.kept import Entry
from chancy.logs.records import OURS
from chancy.model import Statement
from chancy.wires.literals import JsonColumn, of_numbers
from chancy_worker.words import MAX_MESSAGE_BYTES, safe

from .verdict import Claimed

MOST_RECORDS = 1_000
"""Of one attempt."""
MOST_BYTES = 256 * 1024
"""Of one attempt, as stored."""
MAX_TRACEBACK_BYTES = 16 * 1024
MAX_NAME_BYTES = 256
"""Of a logger, and of a level."""
MOST_WAITING_BYTES = 64 * 1024**2
"""Of all attempts of a worker, while the database is slow or away."""
ROOM_FOR_LAST_WORDS = 1024**2
"""Above that, for the number of records that an attempt has lost."""
RECORD_BYTES = 256
"""What a record that waits costs beside its text."""
BATCH_RECORDS, BATCH_BYTES = 1_000, 1024**2
"""Of one statement: to make it holds the loop for some milliseconds."""

_CLAIMS = 2_000_000
"""So many claims of one attempt are told apart in a number of 31 bits."""

WRITE_LOGS = """
    WITH never AS MATERIALIZED (
        SELECT claim.nth
        FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(leases)s::bigint[]) WITH ORDINALITY
            AS claim (id, fence, lease, nth)
        WHERE EXISTS (
            SELECT FROM {schema}.job AS job
            WHERE job.id = claim.id
                AND (job.claims < claim.fence OR job.claims = claim.fence AND job.worker <> claim.lease)
        ) OR EXISTS (
            SELECT FROM {schema}.history AS past
            WHERE past.id = claim.id AND past.finished_at > {schema}.clock() - interval '1 hour'
                AND (past.claims < claim.fence OR past.claims = claim.fence AND past.worker <> claim.lease)
        )
    ),
    written AS (
        INSERT INTO {schema}.log (job, attempt, n, at, entry)
        SELECT (%(ids)s::bigint[])[nth], attempt, n, {schema}.clock() - age * interval '1 second', entry
        FROM unnest(
            %(nths)s::integer[], %(attempts)s::smallint[], %(numbers)s::integer[], %(ages)s::double precision[],
            %(entries)s::json[]
        ) AS said (nth, attempt, n, age, entry)
        WHERE nth <> ALL (ARRAY(SELECT never.nth FROM never))
        RETURNING job
    )
    SELECT count(*) FROM written
"""


class Kept(NamedTuple):
    """One record that waits to be written down."""

    job: int
    attempt: int
    fence: int
    lease: int
    n: int
    at: float
    """By `time.monotonic`: the clock on this machine's wall may be wrong."""
    entry: bytes

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return RECORD_BYTES + len(self.entry)


def write_logs(batch: Sequence[Kept]) -> Statement[int]:
    """Keep these records, at the instants by the database's clock that their ages say; how many."""
    now = time.monotonic()
    claims = {(kept.job, kept.fence, kept.lease): 0 for kept in batch}
    nths = {claim: nth for nth, claim in enumerate(claims, 1)}
    return Statement(
        WRITE_LOGS,
        {
            "ids": of_numbers(id_ for id_, _, _ in claims),
            "fences": of_numbers(fence for _, fence, _ in claims),
            "leases": of_numbers(lease for _, _, lease in claims),
            "nths": of_numbers(nths[kept.job, kept.fence, kept.lease] for kept in batch),
            "attempts": of_numbers(kept.attempt for kept in batch),
            "numbers": of_numbers(kept.n for kept in batch),
            "ages": f"{{{','.join(f'{now - kept.at:.6f}' for kept in batch)}}}",
            "entries": JsonColumn(kept.entry for kept in batch),
        },
        lambda rows: int(rows[0][0]),
    )


class Keeper(logging.Handler):
    """Puts the records of attempts that have a book of its own into that book. From any thread."""

    passes_over = OURS

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Kept] = deque()
        self._bytes = 0
        self._changing = threading.Lock()

    def open(self, job: Claimed) -> Book:
        """For a new attempt."""
        return Book(self, job)

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of handlers: to read a message may be code of the job, and the loop does not wait for it."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, if the attempt in whose context it is made has a book here."""
        if (current := running_attempt.get(None)) is None:
            return
        book = current.book
        if isinstance(book, Book) and book.keeper is self and record.name not in self.passes_over:
            book.add(record)

    def put(self, kept: Kept, room: int) -> bool:
        """Let it wait to be written down; False if more than `room` bytes would wait then."""
        with self._changing:
            if self._bytes + kept.size > room:
                return False
            self._bytes += kept.size
            self._waiting.append(kept)
        return True

    def take(self) -> list[Kept]:
        """The oldest that wait, as many as go into one statement; none is none."""
        batch: list[Kept] = []
        size = 0
        with self._changing:
            while self._waiting and len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            self._bytes -= size
        return batch

    def put_back(self, batch: Sequence[Kept]) -> None:
        """They could not be written now."""
        with self._changing:
            self._waiting.extendleft(reversed(batch))
            self._bytes += sum(kept.size for kept in batch)

    @property
    def waiting(self) -> int:
        """Records that are not yet written down."""
        return len(self._waiting)


@contextlib.contextmanager
def listening(keeper: Keeper | None) -> Iterator[None]:
    """Within the block it hears what is logged in this process, and is passed on to the root logger."""
    if keeper is None:
        yield
        return
    logging.getLogger().addHandler(keeper)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(keeper)


class Book:
    """What one attempt logs: the beginning, and how much more there was."""

    def __init__(self, keeper: Keeper, job: Claimed) -> None:
        self.keeper = keeper
        self._job = job.id
        self._attempt = job.attempt
        self._fence, self._lease = job.fence, job.lease
        # The claims of an attempt that did not count before, by a snooze or a release, have had their numbers.
        self._n = (job.fence - job.attempt) % _CLAIMS * (MOST_RECORDS + 1)
        self._left = MOST_RECORDS
        self._bytes_left = MOST_BYTES
        self._lost = 0
        self._closed = False
        self._writing = threading.Lock()

    def add(self, record: logging.LogRecord) -> None:
        """Keep a record, if there is room for it. From any thread."""
        if self._left <= 0 or self._closed:
            self._lost += 1
            return
        entry = encode_json(entry_of(record))
        with self._writing:
            if self._closed or len(entry) > self._bytes_left:
                self._left = 0
            if self._left <= 0 or not self._put(entry):
                self._lost += 1
                return
            self._left -= 1
            self._bytes_left -= len(entry)

    def close(self) -> None:
        """The attempt is over: nothing more is kept but how much was lost."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            if self._lost:
                words = (
                    f"{self._lost:,} more records were not kept: an attempt keeps at most {MOST_RECORDS:,} and "
                    f"{MOST_BYTES // 1024} kB, and fewer while the database is slow"
                )
                self._put(encode_json(Entry("WARNING", "chancy.worker", words)), ROOM_FOR_LAST_WORDS)

    def _put(self, entry: bytes, more: int = 0) -> bool:
        kept = Kept(
            self._job, self._attempt, self._fence, self._lease, self._n + 1, time.monotonic(), entry
        )  # fmt: skip
        if not self.keeper.put(kept, MOST_WAITING_BYTES + more):
            return False
        self._n += 1
        return True


def entry_of(record: logging.LogRecord) -> Entry:
    """What is stored of a record: texts that can be encoded, within their bounds. Never raises."""
    return Entry(
        safe(str(record.levelname), MAX_NAME_BYTES),
        safe(str(record.name), MAX_NAME_BYTES),
        safe(message_of(record), MAX_MESSAGE_BYTES),
        safe(traceback_of(record), MAX_TRACEBACK_BYTES),
    )


def message_of(record: logging.LogRecord) -> str:
    """The message of a record, or why there is none: to read it is code of the job. Never raises."""
    try:
        return record.getMessage()
    except BaseException as broken:
        return f"its message could not be read: {type(broken).__qualname__}"


def traceback_of(record: logging.LogRecord) -> str:
    """The traceback of a record, "" for none. Never raises."""
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    try:
        return "".join(traceback.format_exception(*record.exc_info))
    except BaseException as broken:
        return f"the traceback could not be formatted: {type(broken).__qualname__}"
