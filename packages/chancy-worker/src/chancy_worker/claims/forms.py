"""The forms of the round: which pieces its text has for which round.

Each kind (of plain jobs alone, with suspects, of parked jobs that are admitted, of these with suspects, of a limit that
flows, of slots that are handed on) is there in four ways: locked rows are waited for or passed by, large jobs are
weighed or come without arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

from chancy.history.moving import KEEP, keeping
from chancy.wires.literals import readable

from . import pieces
from .wanted import Wanted

LARGE_BYTES = 4 * 1024
"""Jobs with more than that in arguments and errors, as stored, are large: claims count their bytes."""

_SIZE = "pg_catalog.pg_column_size(job.arguments) + coalesce(pg_catalog.pg_column_size(job.errors), 0)"
"""In bytes as stored. To know how long a compressed JSON is would be to read and write out all of it."""
_WEIGHT = """CASE WHEN pg_catalog.pg_column_compression(job.arguments) IS NULL THEN 1 ELSE 8 END
                        * pg_catalog.pg_column_size(job.arguments)
                        + coalesce(pg_catalog.pg_column_size(job.errors), 0) - {large}"""
"""Of a large job: JSON is seldom compressed to less than an eighth. Where it is, and the answer is too long for the
line, the next claim asks for fewer."""

_UNWEIGHED = {
    "weight": "",
    "weight_of_mine": "",
    "bytes_of_suspect": "",
    "bytes_of_plain": "",
    "bytes_of_ready": "",
    "bytes_of_chosen": "",
    "no_bytes": "",
    "weighed": "",
    "within": "",
    "arguments": "CASE WHEN {size} <= {large} THEN job.arguments::json END",
    "errors": "CASE WHEN pg_catalog.pg_column_size(job.errors) <= {large} THEN job.errors END",
}
"""Large jobs come without their arguments: they have to go back, and the next claims weigh. So a claim of the usual
jobs costs next to nothing more, and what it brings has a bound.
"""
_WEIGHED = {
    "weight": ", greatest({weight_of}, 0) AS bytes",
    "weight_of_mine": ", greatest(" + _WEIGHT.replace("job.", "mine.") + ", 0) AS bytes",
    "bytes_of_suspect": ", suspect.bytes",
    "bytes_of_plain": ", plain.bytes",
    "bytes_of_ready": ", ready.bytes",
    "bytes_of_chosen": ", chosen.bytes",
    "no_bytes": ", 0",
    "weighed": ", ready.bytes, sum(ready.bytes) OVER (ROWS UNBOUNDED PRECEDING) AS total",
    "within": """
                AND (chosen.total <= want.bytes OR chosen.total - chosen.bytes < want.bytes)""",
    "arguments": "job.arguments::json",
    "errors": "job.errors",
}

_NTH = "array_position(%(again_ids)s::bigint[], job.id)"
_DONE_NTH = "array_position(%(done_ids)s::bigint[], job.id)"
_NTH_TAKEN = "array_position((SELECT slots FROM taken)::tid[], slot.ctid)"


def _filled(text: str, slots: Mapping[str, str]) -> str:
    for slot, piece in slots.items():
        text = text.replace("{" + slot + "}", piece)
    return text


_NOWHERE = {"place": "", "place_of_ready": "", "place_of_suspect": "", "place_of_plain": ""}
_PLACES = {
    "place": ", job.priority, job.run_at, job.id",
    "place_of_ready": ", ready.priority, ready.run_at, ready.id",
    "place_of_suspect": ", suspect.priority, suspect.run_at, suspect.id",
    "place_of_plain": ", plain.priority, plain.run_at, plain.id",
}
_CLAIMED = {
    **dict.fromkeys(("slots", "and_entered", "handed_on", "entered"), ""),
    **dict.fromkeys(("key", "share", "slot_at"), "NULL"),
}
_PLAIN = _CLAIMED | {
    "chosen": "",
    "first": _filled(pieces.PLAIN_FIRST, _NOWHERE),
    "answers": "NULL::text",
}
_ADMITTING = _CLAIMED | {
    "chosen": pieces.ADMIT.replace("{plain_first}", _filled(pieces.PLAIN_FIRST, _PLACES)),
    "first": pieces.BESIDE,
    "and_entered": pieces.AND_ENTERED,
    "answers": pieces.ANSWERS,
    "entered": pieces.ENTERED,
}
_FLOWS = _CLAIMED | {
    "chosen": pieces.FLOW,
    "first": pieces.FLOWING,
    "slots": ", slots = NULL",
    "share": "parked",
    "answers": "(SELECT to_json(free)::text FROM flow)",
}
_HANDS_ON = _CLAIMED | {
    "chosen": pieces.HAND_ON.replace("{plain_first}", _filled(pieces.PLAIN_FIRST, _NOWHERE)),
    "first": pieces.FOLLOWING,
    "slots": pieces.GIVEN,
    "key": "parked",
    "slot_at": pieces.SLOT_AT,
    "handed_on": pieces.HANDED_ON.replace("{nth_taken}", _NTH_TAKEN),
    "answers": pieces.HANDED,
}


def _form(kind: Mapping[str, str]) -> str:
    places = {"in_use": pieces.IN_USE, "lease": pieces.LEASE, "paused": pieces.PAUSED, "allowed": pieces.ALLOWED}
    text = pieces.FINISH + _filled(_filled(pieces.CLAIM, places), kind)
    return (
        keeping(text.replace("{settled}", "(SELECT jobs FROM settled)"), "(%(states)s::text[])[{done_nth}]")
        .replace("{keep_cancelled}", KEEP.replace("{state}", "'cancelled'"))
        .replace("{refused_of_late}", pieces.REFUSED_OF_LATE)
        .replace("{known}", pieces.KNOWN)
        .replace("{nth}", _NTH)
        .replace("{done_nth}", _DONE_NTH)
        .replace("{run_at}", readable("run_at"))
        .replace("{submitted_at}", readable("submitted_at"))
    )


def _without_suspects(kind: Mapping[str, str], places: Mapping[str, str]) -> str:
    return _filled(_form(kind).replace("    {suspects}\n", "").replace("{ready}", pieces.READY), places)


def _with_suspects(kind: Mapping[str, str], places: Mapping[str, str]) -> str:
    first = pieces.SUSPECTS_FIRST.replace("{ready}", pieces.READY)
    return _filled(_form(kind).replace("{suspects}", pieces.SUSPECTS).replace("{ready}", first), places)


def _round(lock: str, weighing: Mapping[str, str], text: str) -> str:
    way = {"lock": lock, **weighing, "size": _SIZE, "weight_of": _WEIGHT, "large": str(LARGE_BYTES)}
    return _filled(text, way)


_WAITS, _PASSES_BY = "", "FOR UPDATE SKIP LOCKED"
_WAYS = ((_WAITS, _UNWEIGHED), (_PASSES_BY, _UNWEIGHED), (_WAITS, _WEIGHED), (_PASSES_BY, _WEIGHED))
ROUND, PATIENT_ROUND, WEIGHED_ROUND, PATIENT_WEIGHED_ROUND = FORMS = tuple(
    _round(*way, _without_suspects(_PLAIN, _NOWHERE)) for way in _WAYS
)
"""The first waits for a locked row as long as the connection's lock_timeout lets it. A patient one passes locked rows
by; a third dearer: for when the first form ran into a lock, until nothing is left over. A weighed one claims large
jobs, up to so many bytes; a twentieth dearer: for when there have been any lately.
"""

WAYS = {
    (False, False): ROUND,
    (True, False): PATIENT_ROUND,
    (False, True): WEIGHED_ROUND,
    (True, True): PATIENT_WEIGHED_ROUND,
}
"""By whether it passes locked rows by, and whether it weighs."""


def _like(text: str) -> Mapping[str, str]:
    """The four that differ from one another as those do, by those."""
    return {form: _round(*way, text) for form, way in zip(FORMS, _WAYS, strict=True)}


WITH_SUSPECTS = _like(_with_suspects(_PLAIN, _NOWHERE))
"""The four for when there are suspects to claim: what they need would cost every other round a twentieth."""
ADMITTING = _like(_without_suspects(_ADMITTING, _PLACES))
"""The four for rounds that go through parked jobs, or hand on slots."""
ADMITTING_WITH_SUSPECTS = _like(_with_suspects(_ADMITTING, _PLACES))
"""The same with suspects that are not parked."""
FLOWING = _like(_without_suspects(_FLOWS, _NOWHERE))
"""The four for rounds that claim of one limit that is far from full, by this worker's share of it."""
HANDING_ON = _like(_without_suspects(_HANDS_ON, _NOWHERE))
"""The four for rounds that hand slots on, and admit nobody else."""


def form_of(wanted: Wanted, way: str) -> str:
    """The text for what is wanted, in one of the four ways, which is called by its plain form."""
    if wanted.flow is not None:
        return FLOWING[way]
    if wanted.hands_on:
        return HANDING_ON[way]
    if wanted.gated:
        return (ADMITTING_WITH_SUSPECTS if wanted.suspects else ADMITTING)[way]
    return WITH_SUSPECTS[way] if wanted.suspects else way
