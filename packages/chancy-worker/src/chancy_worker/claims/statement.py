"""The hot path: one statement that writes the verdicts of finished attempts and claims more jobs."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from chancy.model import Statement
from chancy.states import State
from chancy.wires.literals import JsonColumn, of_intervals, of_numbers, of_texts
from chancy_worker.attempts.verdict import Completion

from .answer import Answer, parse_answer
from .forms import ROUND, form_of
from .parked import params_of_parked
from .wanted import CLAIM_BYTES, Wanted

# Columns of verdicts are taken in C: rounds carry a hundred, thousands of times a second.
_ID, _FENCE, _STATE, _RESULT, _ERRORS = map(attrgetter, ("id", "fence", "state", "result", "errors"))


def play_round(
    worker: int, verdicts: Sequence[Completion], wanted: Wanted, *, under: int | None = None, text: str = ROUND
) -> Statement[Answer]:
    """Write verdicts and claim, in one statement and one commit. `text` is one of the four forms. With `wanted.gated`,
    parked jobs are admitted, and slots of those that end are handed on.

    The verdicts are of claims under one lease, `under`; None is `worker`, under which is claimed.
    Of two claims of one job the later alone has a say; the other's verdict is not sent, and counts as not settled.
    """
    if len(set(map(_ID, verdicts))) < len(verdicts):
        verdicts = list({verdict.id: verdict for verdict in sorted(verdicts, key=attrgetter("fence"))}.values())
    done, again = verdicts, list[Completion]()
    if State.READY in map(_STATE, verdicts):
        done = [v for v in verdicts if v.state is not State.READY]
        again = [v for v in verdicts if v.state is State.READY]
    return Statement(
        form_of(wanted, text),
        params_of_parked(wanted)
        | {
            "worker": worker,
            "under": worker if under is None else under,
            "done_ids": of_numbers(map(_ID, done)),
            "done_fences": of_numbers(map(_FENCE, done)),
            "states": of_texts(map(_STATE, done)),
            "results": JsonColumn(map(_RESULT, done)),
            "done_errors": _errors_of(done),
            "done_places": of_texts(wanted.places.get(v.id) for v in done) if wanted.hands_on else None,
            "again_ids": of_numbers(map(_ID, again)),
            "again_fences": of_numbers(map(_FENCE, again)),
            "delays": of_intervals([None if v.snooze == "kept" else v.delay for v in again]),
            "refunds": of_numbers([int(v.refund) for v in again]),
            "refusals": of_numbers([int(v.refusal) for v in again]),
            "again_errors": _errors_of(again),
            "looking": of_texts(wanted.looking),
            "lane_queues": of_texts(queue for queue, _ in wanted.lanes),
            "lane_priorities": of_numbers(priority for _, priority in wanted.lanes),
            "mark_run_at": of_texts(run_at for run_at, _ in wanted.lanes.values()),
            "mark_ids": of_numbers(id_ for _, id_ in wanted.lanes.values()),
            "queues": of_texts(wanted.free),
            "free": of_numbers(wanted.free.values()),
            "in_line": of_texts(str(queue in wanted.in_line).lower() for queue in wanted.free),
            "bytes": of_numbers(wanted.large.get(queue, CLAIM_BYTES) for queue in wanted.free),
            "holds": of_texts(wanted.holds_of(("queue", queue))[0] for queue in wanted.free),
            "keeps": of_texts(wanted.holds_of(("queue", queue))[1] for queue in wanted.free),
            "presses": of_texts(queue in wanted.pressing for queue in wanted.free),
            "sent": len(verdicts),
            "without": of_texts(wanted.without),
            "full": of_texts(wanted.full),
            "suspects": of_numbers(id_ for id_, _ in wanted.suspects),
            "suspect_fences": of_numbers(fence for _, fence in wanted.suspects),
        },
        lambda rows: parse_answer(rows, worker),
    )


def _errors_of(verdicts: Sequence[Completion]) -> JsonColumn:
    """Column of errors. Where no verdict has any it is an empty array, whose every place is null: that is shorter."""
    return JsonColumn(map(_ERRORS, verdicts) if any(map(_ERRORS, verdicts)) else ())
