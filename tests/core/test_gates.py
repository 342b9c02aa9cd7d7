"""What a job has to pass: checked when the task is decorated, made of its arguments at the submit."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from chancy import InvalidArguments, InvalidTask, Limit, task
from chancy.keys.gates import Gate, Passes
from chancy.keys.key import LONGEST_BYTES

MINUTE = timedelta(minutes=1)


def passes(new):
    return msgspec.json.decode(new.gates, type=Passes)


@task
def plain(number: int) -> None: ...


@task(
    limits=[
        Limit.rate(9, per=MINUTE, key=lambda account: account),
        Limit.time(5),
        Limit.concurrency(5),
        Limit.concurrency(1, key=lambda tenant, account: [tenant, account]),
        Limit.concurrency(7, key="crm"),
    ],
    group=lambda tenant: tenant,
)
def everything(tenant: str, account: int = 3) -> None: ...


def test_a_plain_job_has_no_gates():
    assert plain.bind(1).gates is None


def test_limits_of_all_jobs_come_first_then_the_group_then_those_with_a_key():
    found = passes(everything.bind("acme"))
    names = [
        f"concurrency({everything.name})",
        "concurrency(crm)",
        "group(acme)",
        f"rate/60s({everything.name} account=3)",
        f'concurrency({everything.name} tenant,account=["acme",3])',
    ]
    assert found.key.split("\x1f") == names
    assert found.key[: found.turn].split("\x1f") == names[:3]
    assert [gate.name for gate in found.gates] == [*names[:2], *names[3:]]
    assert [(gate.most, gate.per) for gate in found.gates] == [(5, None), (7, None), (9, 60.0), (1, None)]
    assert [found.key[: gate.to].split("\x1f")[-1] for gate in found.gates] == [*names[:2], *names[3:]]


def test_time_and_memory_stay_limits_of_the_attempt():
    assert everything.options.limits == (Limit.time(5),)
    assert everything.using(limits=[]).bind("a").gates == everything.bind("a").gates
    assert everything.using(limits=[]).options.limits == ()


def test_one_submit_may_name_other_limits_and_another_group():
    changed = everything.using(limits=[Limit.concurrency(2, key="night")], group="last").bind("acme")
    gates = (Gate("concurrency(night)", 2, 18),)
    assert passes(changed) == Passes("concurrency(night)\x1fgroup(last)", gates, 30)
    assert changed.options.limits == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [("limits", [Limit.concurrency(2, key=lambda tenant: tenant)]), ("group", lambda tenant: tenant), ("limits", [3])],
)
def test_what_goes_into_a_row_is_data(option, value):
    with pytest.raises(InvalidArguments, match=f"argument '{option}' of task .*everything: expected a"):
        everything.using(**{option: value})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"limits": [Limit.concurrency(1, key=lambda order: order)]},
            "takes 'order', which is no argument of the task",
        ),
        ({"group": lambda *number: number}, r"takes '\*number'"),
        ({"limits": [Limit.concurrency(1), Limit.concurrency(2)]}, "two of its limits would count the same"),
        ({"limits": [1024]}, "limits: expected a list of Limit, got 1024"),
    ],
)
def test_a_limit_that_does_not_fit_the_task_is_refused_at_decoration(options, reason):
    def number_of(number: int) -> None: ...

    with pytest.raises(InvalidTask, match=reason):
        task(**options)(number_of)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Limit.concurrency(0), "most: expected 1 to 100000, got 0"),
        (lambda: Limit.concurrency(True), "got True"),
        (lambda: Limit.rate(1, per=timedelta(0)), "per: expected 0.001 s to 366 days"),
        (lambda: Limit.concurrency(1, key=""), "key: expected a text that is not empty"),
        (lambda: Limit.concurrency(1, key="a\0b"), "without NUL"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


@task(limits=[Limit.concurrency(1, key=lambda number: 1 // number)])
def divides(number: int) -> None: ...


def test_a_key_function_that_fails_is_told_before_anything_is_sent():
    with pytest.raises(InvalidArguments, match="its key function failed: ZeroDivisionError") as caught:
        divides.bind(0)
    assert (caught.value.argument, type(caught.value.__cause__)) == ("limits", ZeroDivisionError)


@task(group=lambda name: name)
def named(name: str) -> None: ...


def test_a_long_key_is_cut_and_told_apart_by_its_digest():
    one, two = (passes(named.bind("ž" * 5000 + end)).key for end in "ab")
    assert one != two
    assert max(len(key.encode()) for key in (one, two)) <= LONGEST_BYTES + len("group()")


def test_a_key_with_a_separator_or_a_nul_in_it_does_no_harm():
    assert passes(named.bind("a\x1fb")).key == "group(a b)"
    with pytest.raises(InvalidArguments, match="NUL"):
        named.bind("a\0b")


@task(limits=[Limit.rate(1, per=timedelta(seconds=n), key=lambda name: name) for n in range(1, 7)])
def named_often(name: str) -> None: ...


def test_keys_that_do_not_fit_into_an_index_are_refused_before_anything_is_sent():
    assert len(passes(named_often.bind("x" * 200)).gates) == 6
    with pytest.raises(InvalidArguments, match="more than 2,000 bytes in all"):
        named_often.bind("x" * 400)
