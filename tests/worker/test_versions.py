"""Workers with different versions of a task side by side: what the one cannot take is left to the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
import worker_tasks
from limit_tasks import add_in_process
from pydantic import BaseModel
from worker_help import all_finished, eventually, working
from worker_tasks import add

from chancy import InvalidArguments, State, task
from chancy.run import send
from chancy_worker import versions
from chancy_worker.attempts import refusals
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead

pytestmark = pytest.mark.any_postgres

OLD = """
from chancy import task

@task(max_attempts=1)
async def with_default(order: int) -> str:
    return "old"

@task(max_attempts=1)
async def without_default(order: int) -> str:
    return "old"

@task(max_attempts=1)
async def removed(order: int, note: str = "") -> str:
    return "old"

@task(max_attempts=1)
async def renamed(order: int, amount: int) -> str:
    return "old"

@task(max_attempts=1, executor="process")
def retyped(order: int, amount: int) -> str:
    return "old"

@task(max_attempts=1)
async def gone(order: int) -> str:
    return "old"
"""
NEW = """
from chancy import task

@task(max_attempts=1)
async def with_default(order: int, copies: int = 1) -> str:
    return "new"

@task(max_attempts=1)
async def without_default(order: int, copies: int) -> str:
    return "new"

@task(max_attempts=1)
async def removed(order: int) -> str:
    return "new"

@task(max_attempts=1)
async def renamed(order: int, total: int) -> str:
    return "new"

@task(max_attempts=1, executor="process")
def retyped(order: int, amount: str) -> str:
    return "new"

@task(max_attempts=1)
async def came(order: int) -> str:
    return "new"
"""
GIVEN = {
    "old": {
        "with_default": {},
        "without_default": {},
        "removed": {"note": "x"},
        "renamed": {"amount": 1},
        "retyped": {"amount": 1},
        "gone": {},
    },
    "new": {
        "with_default": {"copies": 2},
        "without_default": {"copies": 2},
        "removed": {},
        "renamed": {"total": 1},
        "retyped": {"amount": "one"},
        "came": {},
    },
}
EITHER = {("old", "with_default"), ("new", "removed")}
"""What was given fits both."""
OF_EACH = 85

SUBMIT = """
import json, sys, psycopg, chancy, deploy_tasks
dsn, schema, version, number, given = sys.argv[1:]
with psycopg.connect(dsn) as conn:
    chancy.submit_many(conn, [
        getattr(deploy_tasks, name).bind(order=order, **more)
        for order in range(int(number)) for name, more in json.loads(given).items()
    ], schema=schema)
"""
WORK = "import sys; from chancy_worker.cli import main; sys.argv[0] = 'chancy-worker'; sys.exit(main())"


@pytest.fixture
def version(site, tmp_path, monkeypatch):
    """Starts a worker that has the module `deploy_tasks` of that version, when what a producer of it submits is there."""
    for name, text in (("old", OLD), ("new", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "deploy_tasks.py").write_text(text, encoding="utf-8")

    def path(name):
        return os.pathsep.join([str(tmp_path / name), os.environ.get("PYTHONPATH", "")])

    class Version:
        @staticmethod
        def submits(name):
            told = [site.dsn, site.schema, name, str(OF_EACH), json.dumps(GIVEN[name])]
            subprocess.run(
                [sys.executable, "-c", SUBMIT, *told], check=True, env=os.environ | {"PYTHONPATH": path(name)}
            )

        @staticmethod
        def works(name):
            with monkeypatch.context() as patch:
                patch.setenv("PYTHONPATH", path(name))
                return site.run("-c", WORK, "deploy_tasks", "--dsn", site.dsn, "--schema", site.schema)

    return Version


def ended(site):
    """How many jobs each version has performed, of which task, submitted by which."""
    submitted = {
        json.dumps({"order": order} | more, separators=(",", ":")) + name: by
        for by, given in GIVEN.items()
        for name, more in given.items()
        for order in range(OF_EACH)
    }
    return Counter(
        (submitted[arguments + name.rpartition(".")[2]], name.rpartition(".")[2], json.loads(result))
        for name, arguments, result in site.rows("SELECT task, arguments::text, result::text FROM {}.history")
    )


@pytest.mark.long
@pytest.mark.parametrize(("first", "then"), [("old", "new"), ("new", "old")], ids=["deploy", "roll back"])
async def test_a_thousand_waiting_jobs_run_each_under_a_version_that_takes_them_and_no_attempt_is_burnt(
    site, version, first, then
):
    version.submits("old")
    version.submits("new")
    before = version.works(first)
    mine = sum(OF_EACH for by, given in GIVEN.items() for name in given if by == first or (by, name) in EITHER)
    await eventually(lambda: site.count("succeeded") == mine, 40)
    refused = "SELECT count(*) FROM {}.job WHERE refused_at IS NOT NULL AND attempt = 0"
    await eventually(lambda: site.one(refused) > OF_EACH)
    version.works(then)
    await eventually(lambda: site.count("succeeded") > mine, 40)
    before.signal(signal.SIGTERM)
    await all_finished(site, 60)
    assert site.rows("SELECT DISTINCT state::text, attempt, max_attempts FROM {}.history") == [("succeeded", 1, 1)]
    for (by, name, under), number in ended(site).items():
        assert under == by or (by, name) in EITHER, f"{number} jobs of {name}, submitted by the {by} version"
    await eventually(lambda: before.code is not None)
    assert before.code == 0


def misfit(site, task=add, **more):
    """A job of the task with an argument that it does not have."""
    arguments = json.dumps({"a": 1, "b": 2} | (more or {"c": 3}))
    return site.one("SELECT {}.submit(%s, %s)", task.name, arguments)


def entry(site, job):
    errors = site.row(job).errors
    return errors[-1] if errors else None


@pytest.mark.parametrize("task", [add, worker_tasks.add_in_thread, add_in_process], ids=["loop", "thread", "process"])
async def test_a_job_with_arguments_that_do_not_fit_goes_back_unharmed_and_says_why(site, task, caplog):
    job = misfit(site, task)
    async with working(site.app()):
        await eventually(lambda: site.one("SELECT claims FROM {}.any_job") >= 2)  # it is offered again
        row = await eventually(lambda: (row := site.row(job)).state is State.SCHEDULED and row)
    assert (row.attempt, row.crashes, len(row.errors)) == (0, 0, 1)
    assert row.errors[0].kind == "InvalidArguments"
    assert "argument 'c'" in row.errors[0].message
    assert "its arguments are: a, b" in row.errors[0].message
    warnings = [line for line in caplog.text.splitlines() if "does not take" in line]
    assert len(warnings) == 1
    assert f"job {job}" in warnings[0]


async def test_what_does_not_fit_keeps_nobody_waiting_who_does(site):
    misfits = [misfit(site, c=n) for n in range(250)]
    fitting = site.submit(*[add.bind(1, n) for n in range(50)])
    async with working(site.app(concurrency=10)):
        await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in fitting))
    assert {site.row(job).attempt for job in misfits} == {0}


async def test_an_error_of_the_function_itself_is_a_failed_attempt(site, monkeypatch):
    calls_another = worker_tasks.submits_a_misfit
    (job,) = site.submit(calls_another.using(max_attempts=1).bind())
    async with working(site.app()):
        await all_finished(site)
    assert (site.row(job).state, site.row(job).errors[-1].kind) == (State.FAILED, "InvalidArguments")


def long_ago(site, refused="61 minutes", due="0 minutes"):
    """What waits was refused so long ago for the first time, and is due."""
    site.rows(
        "UPDATE {}.job SET refused_at = now() - %s::interval, run_at = now() - %s::interval "
        "WHERE refused_at IS NOT NULL AND state = 'ready' RETURNING id",
        refused,
        due,
    )


async def an_hour_later(site):
    """All that is there is refused once more."""
    before = dict(site.rows("SELECT id, claims FROM {}.job"))

    def again():
        long_ago(site)
        left = dict(site.rows("SELECT id, claims FROM {}.job WHERE state = 'ready'"))
        running = site.count("running")
        return not running and all(left.get(job, claims + 1) > claims for job, claims in before.items())

    await eventually(again)


@pytest.fixture
def soon(monkeypatch):
    """Workers ask who else is there soon after they have refused something."""
    monkeypatch.setattr(refusals, "ASK_SECONDS", 0.2)


async def test_when_for_an_hour_nobody_could_take_it_the_job_fails_and_says_so(site, soon):
    job = misfit(site)
    async with working(site.app()):
        await eventually(lambda: entry(site, job))
        await eventually(lambda: (long_ago(site), site.row(job).finished_at)[1])
    row = site.row(job)
    assert (row.state, row.attempt, len(row.errors)) == (State.FAILED, 1, 1)
    assert row.errors[0].kind == "InvalidArguments"
    assert row.errors[0].message.startswith("for an hour no worker could take it; ")
    assert "argument 'c'" in row.errors[0].message


async def test_not_while_a_worker_is_alive_that_has_another_version_of_the_task(site, soon):
    other = send(site.conn, register("other", 3600, Offer(["default"], [add.name], ["another"])), site.schema)
    job = misfit(site)
    async with working(site.app()):
        await eventually(lambda: entry(site, job))
        for _ in range(5):
            await an_hour_later(site)
        assert site.row(job).attempt == 0
        send(site.conn, declare_dead(worker=other), site.schema)
        await eventually(lambda: (long_ago(site), site.row(job).finished_at)[1])
    assert site.row(job).state is State.FAILED


async def test_the_hour_begins_anew_when_for_a_while_nobody_has_tried(site, soon):
    job = misfit(site)
    async with working(site.app()):
        await eventually(lambda: entry(site, job))
    long_ago(site, "2 hours", "11 minutes")
    async with working(site.app()):
        await eventually(lambda: site.one("SELECT refused_at > now() - interval '1 minute' FROM {}.job"))
        long_ago(site, "59 minutes")
        claims = site.one("SELECT claims FROM {}.job")
        await eventually(lambda: site.one("SELECT claims FROM {}.job") > claims)
    assert (site.row(job).finished_at, site.row(job).attempt) == (None, 0)


async def test_jobs_of_a_task_that_nobody_knows_fail_after_an_hour_and_say_so(site, soon):
    jobs = [site.one("SELECT {}.submit('nobody.knows')") for _ in range(3)]
    async with working(site.app()):
        await eventually(lambda: all(entry(site, job) for job in jobs))
        assert {site.row(job).attempt for job in jobs} == {0}
        await eventually(lambda: (long_ago(site), all(site.row(job).finished_at for job in jobs))[1])
    for job in jobs:
        row = site.row(job)
        assert (row.state, row.errors[-1].kind) == (State.FAILED, "UnknownTask")
        assert row.errors[-1].message.startswith("for an hour no worker could take it; ")


async def test_those_of_one_that_another_live_worker_knows_are_left_alone(site, soon):
    send(site.conn, register("other", 3600, Offer(["default"], ["nobody.knows"], ["another"])), site.schema)
    jobs = [site.one("SELECT {}.submit('nobody.knows')") for _ in range(3)]
    async with working(site.app()):
        await eventually(lambda: site.one("SELECT max(claims) FROM {}.job") == 1)
        site.submit(*[worker_tasks.nap.bind(1)])
        await eventually(lambda: site.count("succeeded") == 1)
    assert {(site.row(job).state, site.row(job).attempt, site.row(job).errors) for job in jobs} == {
        (State.READY, 0, ())
    }
    assert site.one("SELECT max(claims) FROM {}.job") == 1


async def test_however_many_tasks_are_unknown_a_claim_names_a_bounded_number(site, monkeypatch):
    monkeypatch.setattr(refusals, "MOST_LEFT_OUT", 3)
    strange = [site.one("SELECT {}.submit(%s)", f"nobody.knows_{n}") for n in range(20)]
    fitting = site.submit(*[add.bind(1, n) for n in range(20)])
    async with working(site.app(concurrency=5)):
        await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in fitting))
    assert {site.row(job).attempt for job in strange} == {0}


def test_versions_are_told_apart_by_what_they_take():
    def of(function):
        return versions.signature_of(task(name=f"versions.{function.__name__}")(function))

    async def one(a: int, b: str = "x") -> None: ...
    async def same(a: int, b: str = "x") -> str: ...
    async def retyped(a: str, b: str = "x") -> None: ...
    async def more(a: int, b: str = "x", c: int = 1) -> None: ...
    async def renamed(a: int, d: str = "x") -> None: ...

    assert of(one) == of(same)
    assert len({of(each) for each in (one, retyped, more, renamed)}) == 4


def test_versions_are_told_apart_by_their_models():
    class Order(BaseModel):
        id: int

    class Wider(Order):
        note: str = ""

    Wider.__name__ = Wider.__qualname__ = "Order"
    kinds = [Order, Wider, list[Order], Order | str, dict[str, Order]]

    def of(kind, number):
        async def takes(order, /): ...

        takes.__annotations__ = {"order": kind}
        return versions.signature_of(task(name=f"versions.models_{number}")(takes))

    assert len({of(kind, number) for number, kind in enumerate(kinds)}) == len(kinds)
    assert of(Order, 10) == of(Order, 11)


def test_the_text_of_a_key_is_the_same_whether_a_default_was_given_or_not():
    made = worker_tasks.once_by_all
    assert made.bind(1).unique == made.bind(1, 2).unique == made.bind(b=2, a=1).unique
    with pytest.raises(InvalidArguments):
        made.bind(1, c=2)
