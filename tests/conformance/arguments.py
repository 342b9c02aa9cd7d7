"""Arguments arrive as they were given, or are refused at the submit."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import chancy
from chancy import InvalidArguments, Task, submit_many
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import (
    Box,
    Colour,
    Moment,
    Point,
    Point3,
    Safe,
    add,
    at_of,
    by_position,
    float_of,
    mutate,
    note,
    safe_of,
    takes_point,
    text_of,
    typed,
    wrapped,
)


def gives(function: Task[..., Any], expected: Any, *args: Any, **kwargs: Any) -> Callable[[Ground], Steps]:
    """Submitted with these arguments it has this result."""

    def steps(g: Ground) -> Steps:
        job = yield function.submit(g.conn, *args, **kwargs)
        yield g.perform()
        assert (yield job.result(g.conn)) == expected

    return steps


@case
def arguments_by_position_and_by_name_reach_the_function(g: Ground) -> Steps:
    yield from gives(add, 456, 4, b=5, c=6)(g)


@case
def an_argument_left_out_has_its_default(g: Ground) -> Steps:
    yield from gives(add, 123, 1)(g)


@case
def what_is_stored_with_the_job_is_what_was_given_in_the_order_of_the_signature(g: Ground) -> Steps:
    for job, stored in [
        ((yield add.submit(g.conn, 1)), b'{"a":1}'),
        ((yield add.submit(g.conn, 1, c=3)), b'{"a":1,"c":3}'),
        ((yield add.submit(g.conn, c=4, b=5, a=6)), b'{"a":6,"b":5,"c":4}'),
    ]:
        assert (yield chancy.get(g.conn, job.id)).arguments == stored


@case
def an_argument_by_position_only_reaches_the_function(g: Ground) -> Steps:
    yield from gives(by_position, -1, 1, b=2)(g)


@case
def typed_arguments_arrive_as_what_they_were(g: Ground) -> Steps:
    values = (
        datetime(2026, 3, 29, 2, 30, tzinfo=UTC), date(2024, 2, 29), timedelta(days=2, microseconds=5),
        uuid.UUID(int=7), Decimal("0.10"), Colour.RED, Point(1, 2), Box([Point(3)]), b"\x00\xff", {"x", "y"},
        (1, "one"), {1: [0.5, 1.0]}, "b", None,
    )  # fmt: skip
    yield submit_many(g.conn, [typed.bind(*values)])  # type: ignore[arg-type]
    yield g.perform()
    assert seen == [values]
    assert [type(value) for value in seen[0]] == [type(value) for value in values]


@case
def any_text_arrives_as_it_was(g: Ground) -> Steps:
    for text in ("", "ža\u0000b\n\\\"'%s{}", "\U0001f600", "a" * 100_000):
        yield from gives(text_of, text, text)(g)


@case
def large_and_small_numbers_arrive_as_they_were(g: Ground) -> Steps:
    for number in (2**63 - 1, -(2**63), 0):
        yield from gives(note, number, number)(g)
    for value in (1e308, 5e-324, 0.1 + 0.2, -0.0):
        yield from gives(float_of, value, value)(g)


@case
def an_argument_of_no_particular_type_is_what_json_knows(g: Ground) -> Steps:
    yield from gives(note, [1, [2, "three"], {"four": None}], [1, [2, "three"], {"four": None}])(g)
    with pytest.raises(InvalidArguments, match=r"argument 'value'.*a tuple would arrive as a list, at \[1\]"):
        note.bind([1, (2, "three")])


@case
def a_list_changed_after_the_submit_is_the_old_one_in_the_job(g: Ground) -> Steps:
    items = [1, 2, 3]
    job = mutate.bind(items)
    items.append(99)
    yield submit_many(g.conn, [job])
    yield g.perform()
    assert seen[0] == [1, 2, 3, 4]


@case
def a_function_that_changes_its_arguments_gets_fresh_ones_at_the_next_attempt(g: Ground) -> Steps:
    items = [1, 2, 3]
    job = yield mutate.submit(g.conn, items)
    yield g.perform()
    assert seen == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert items == [1, 2, 3]
    assert (yield chancy.get(g.conn, job.id)).arguments == b'{"items":[1,2,3]}'


def refuses(message: str, function: Any, *args: Any, **kwargs: Any) -> Callable[[Ground], Steps]:
    """The submit raises `InvalidArguments` that says this, and nothing is stored."""

    def steps(g: Ground) -> Steps:
        with pytest.raises(InvalidArguments, match=message):
            yield function.submit(g.conn, *args, **kwargs)
        assert (yield chancy.jobs(g.conn)) == []

    return steps


@case
def an_argument_of_a_wrong_type_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*[Ee]xpected `int`, got `str`", add, "1")(g)


@case
def a_missing_argument_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*is missing", add)(g)


@case
def an_unknown_argument_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'd'.*no such argument", add, 1, d=2)(g)


@case
def too_many_arguments_are_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("3 given by position, at most 2", add, 1, 2, 3)(g)


@case
def an_argument_given_twice_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'a'.*given twice", add, 1, a=2)(g)


@case
def an_argument_that_cannot_be_encoded_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'", note, object())(g)


@case
def a_nan_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'.*NaN", float_of, math.nan)(g)
    yield from refuses("argument 'value'.*NaN", note, [math.inf])(g)


@case
def arguments_above_16_mebibytes_are_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'value'.*at most 16,777,216", text_of, "x" * 16 * 1024**2)(g)


@case
def a_value_of_a_subclass_arrives_as_its_base(g: Ground) -> Steps:
    at = Moment(2031, 5, 5, 12, tzinfo=UTC)
    job = yield at_of.submit(g.conn, at)
    yield g.perform()
    assert [type(value) for value in seen] == [datetime]
    assert (yield job.result(g.conn)) == at
    text = yield safe_of.submit(g.conn, Safe("<b>"))
    number = yield add.submit(g.conn, True, c=False)
    yield g.perform()
    assert (yield text.result(g.conn)) == "<b>"
    assert (yield number.result(g.conn)) == 120


@case
def what_would_arrive_as_something_else_is_refused_at_the_submit(g: Ground) -> Steps:
    yield from refuses("argument 'point'.*a Point3 would arrive as a Point", takes_point, Point3(1))(g)
    yield from refuses("argument 'value'.*a bytes would arrive as a str", text_of, b"text")(g)
    yield from refuses("argument 'value'.*its keys would arrive as others", note, {1: 2})(g)


@case
def a_coroutine_behind_a_plain_wrapper_is_awaited(g: Ground) -> Steps:
    job = yield wrapped.submit(g.conn, 1)
    yield g.perform()
    assert (yield job.result(g.conn, timeout=30)) == 2
