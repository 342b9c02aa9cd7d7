"""What a person does on a page is done, noted with the person's name, and led back from; what may not be done is not."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import act_tasks
import psycopg
import pytest
import shop_tasks
from act_help import acts, eventually, forms_of, leads_to, press, working
from act_tasks import Address, greet, pack, told, waits
from psycopg import sql
from web_help import BY_PAGE, HOST, Pages

import chancy
import chancy_ops
from chancy import State
from chancy_ops.web import OPERATE, VIEW, Action, User


@pytest.fixture
def state_of(shell):
    return lambda job_id: shell.row(job_id).state


# One job.


async def test_a_waiting_job_is_cancelled_and_requeued_and_a_worker_does_it(shell, pages, state_of):
    (job,) = shell.submit(greet.bind("ann"))
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel")
    assert leads_to(answer) == f"/jobs/{job}?did=cancelled"
    assert "Cancelled." in (await pages(leads_to(answer))).text
    assert state_of(job) is State.CANCELLED
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/requeue", attempts="2")
    assert leads_to(answer) == f"/jobs/{job}?did=requeued"
    async with working(shell.dsn, shell.schema, greet):
        await eventually(lambda: state_of(job) is State.SUCCEEDED)
    assert acts(shell) == [("cancel", {"job": job}, 1), ("requeue", {"job": job, "attempts": 2}, 1)]


async def test_a_running_job_is_asked_to_stop_and_stops(shell, pages, state_of):
    (job,) = shell.submit(waits.bind())
    async with working(shell.dsn, shell.schema, waits):
        await eventually(lambda: state_of(job) is State.RUNNING)
        answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel")
        assert leads_to(answer) == f"/jobs/{job}?did=stopping"
        await eventually(lambda: state_of(job) is State.CANCELLED)


async def test_a_job_is_told_what_it_waits_for(shell, pages, state_of):
    act_tasks.dsn = shell.dsn
    (job,) = shell.submit(told.bind())
    async with working(shell.dsn, shell.schema, told):
        await eventually(lambda: chancy.steps(shell.conn, job, schema=shell.schema))
        answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/signal", name="go", value='"now"')
        assert leads_to(answer) == f"/jobs/{job}?did=told"
        row = await eventually(lambda: shell.row(job) if state_of(job) is State.SUCCEEDED else None)
    assert row.result == b'"now"'
    assert acts(shell) == [("signal", {"job": job, "name": "go"}, 1)]
    answer = await pages.post(f"/jobs/{job}/signal", {"name": "go", "value": "{"}, BY_PAGE)
    assert (answer.status, "is no JSON" in answer.text) == (400, True)


async def test_a_job_is_edited_and_deleted(shell, pages, state_of):
    (job,) = shell.submit(greet.using(delay=7200).bind("ann"))
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/edit", priority="7", run_at="")
    assert leads_to(answer) == f"/jobs/{job}?did=edited"
    assert (shell.row(job).priority, state_of(job)) == (7, State.SCHEDULED)
    await press(pages, f"/jobs/{job}", f"/jobs/{job}/edit", run_at="0s")
    assert state_of(job) is State.READY
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/delete")
    assert leads_to(answer) == "/jobs?did=deleted"
    assert (await pages(f"/jobs/{job}", 404)).status == 404
    assert [verb for verb, *_ in acts(shell)] == ["edit", "edit", "delete"]


@pytest.mark.parametrize(
    ("act", "typed", "words"),
    [
        ("edit", {"priority": "101"}, "expected -100 to 100"),
        ("edit", {"priority": "x"}, "expected a whole number"),
        ("edit", {"priority": "", "run_at": "soon"}, "expected an instant"),
        ("edit", {"priority": "", "run_at": "2026-01-01T00:00"}, "add Z"),
        ("edit", {"priority": "", "run_at": ""}, "say what to change"),
        ("edit", {"priority": "1" * 30}, "expected a whole number"),
        ("edit", {"seen": ""}, "has gone on"),
        ("cancel", {"seen": "\0\ud7ff<script>"}, "has gone on"),
        ("delete", {"seen": "failed:9"}, "has gone on"),
    ],
)
async def test_what_no_job_takes_is_told_in_words_and_changes_nothing(shell, pages, act, typed, words):
    (job,) = shell.submit(greet.bind("ann"))
    before = shell.row(job)
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/{act}", **typed)
    assert answer.status in (400, 409)
    assert words in answer.text
    assert "<script>" not in answer.html.replace('<script type="module"', "")
    assert shell.row(job) == before
    assert acts(shell) == []


async def test_a_job_that_has_gone_on_meanwhile_is_left_alone(shell, pages, state_of):
    """Somebody looks at a failed job, another one requeues it, and the first one deletes what he saw."""
    (job,) = shell.submit(greet.bind("ann"))
    shell.finish(job)
    form = forms_of(await pages(f"/jobs/{job}"))[f"/jobs/{job}/delete"]
    chancy.requeue(shell.conn, job, schema=shell.schema)
    answer = await pages.post(f"/jobs/{job}/delete", form.fields, BY_PAGE)
    assert answer.status == 409
    assert f"Job {job} has gone on: it is ready now" in answer.text
    assert state_of(job) is State.READY
    without = await pages.post(f"/jobs/{job}/delete", {}, BY_PAGE)
    assert (without.status, "open its page again" in without.text) == (400, True)


async def test_a_button_that_is_pressed_twice_does_it_once(shell, pages, state_of):
    (job,) = shell.submit(greet.bind("ann"))
    form = forms_of(await pages(f"/jobs/{job}"))[f"/jobs/{job}/cancel"]
    first, second = await asyncio.gather(*(pages.post(f"/jobs/{job}/cancel", form.fields, BY_PAGE) for _ in range(2)))
    assert sorted([first.status, second.status]) in ([303, 303], [303, 409])
    assert state_of(job) is State.CANCELLED
    assert acts(shell) == [("cancel", {"job": job}, 1)]


@pytest.mark.parametrize(
    ("act", "state"),
    [("cancel", "ready"), ("requeue", "failed"), ("edit", "scheduled"), ("delete", "ready"), ("delete", "failed")],
)
async def test_a_form_that_is_posted_again_later_by_the_back_button_changes_nothing_more(shell, pages, act, state):
    (job,) = shell.submit(greet.using(delay=7200 if state == "scheduled" else 0).bind("ann"))
    if state == "failed":
        shell.finish(job)
    fields = forms_of(await pages(f"/jobs/{job}"))[f"/jobs/{job}/{act}"].fields | {"priority": "7", "run_at": ""}
    assert (await pages.post(f"/jobs/{job}/{act}", fields, BY_PAGE)).status == 303
    after, noted = shell.rows("SELECT * FROM {}.any_job"), acts(shell)
    again = await pages.post(f"/jobs/{job}/{act}", fields, BY_PAGE)
    assert again.status in (303, 404, 409)
    assert shell.rows("SELECT * FROM {}.any_job") == after
    assert len(noted) == 1
    if act != "edit":  # the same priority once more is what was asked for
        assert acts(shell) == noted


async def test_of_two_who_act_at_once_one_is_told_that_the_job_has_gone_on(shell, open_dashboard):
    for _ in range(5):
        (job,) = shell.submit(greet.bind("ann"))
        shell.finish(job)
        before = len(acts(shell))
        async with Pages(open_dashboard()) as ann, Pages(open_dashboard()) as bob:
            forms = forms_of(await ann(f"/jobs/{job}"))
            requeued, deleted = await asyncio.gather(
                ann.post(f"/jobs/{job}/requeue", forms[f"/jobs/{job}/requeue"].fields, BY_PAGE),
                bob.post(f"/jobs/{job}/delete", forms[f"/jobs/{job}/delete"].fields, BY_PAGE),
            )
        noted = [verb for verb, *_ in acts(shell)[before:]]
        left = shell.rows("SELECT state::text FROM {}.any_job WHERE id = %s", job)
        assert (noted, left) in ((["requeue"], [("ready",)]), (["delete"], []), (["requeue", "delete"], []))
        assert {requeued.status, deleted.status} <= {303, 404, 409}


async def test_a_name_never_becomes_a_header(shell, pages):
    for name in ("a\r\nSet-Cookie: a=b", "a\nLocation: //evil.example", "//evil.example", "\\evil", "?x=1#y", "%0d%0a"):
        answer = await pages.post("/queue/pause", {"name": name}, BY_PAGE)
        assert leads_to(answer).startswith("/queue?name=")
        assert "set-cookie" not in answer.answer.headers
        assert len(answer.answer.headers.get_list("location")) == 1


async def test_an_unknown_job_is_told(pages):
    answer = await pages.post("/jobs/404/cancel", {"seen": "waits:0"}, BY_PAGE)
    assert (answer.status, "404" in answer.text) == (404, True)


async def test_the_reason_why_it_waits_has_its_remedy_as_a_button(shell, pages, state_of):
    (job,) = shell.submit(greet.bind("ann"))
    chancy_ops.pause(shell.conn, "default", schema=shell.schema)
    answer = await press(pages, f"/jobs/{job}", "/queue/resume")
    assert leads_to(answer) == f"/jobs/{job}?did=resumed"
    chancy_ops.pause(shell.conn, task=greet, schema=shell.schema)
    assert leads_to(await press(pages, f"/jobs/{job}", "/task/resume")) == f"/jobs/{job}?did=resumed"
    chancy_ops.limit(shell.conn, "default", concurrency=0, schema=shell.schema)
    async with working(shell.dsn, shell.schema, greet):
        await eventually(lambda: chancy_ops.why(shell.conn, job, schema=shell.schema).reason == "limit")
        assert leads_to(await press(pages, f"/jobs/{job}", "/queue/limit")) == f"/jobs/{job}?did=unlimited"
        await eventually(lambda: state_of(job) is State.SUCCEEDED)
    (later,) = shell.submit(greet.using(delay=7200).bind("ann"))
    assert leads_to(await press(pages, f"/jobs/{later}", f"/jobs/{later}/edit")) == f"/jobs/{later}?did=edited"


# Queues, tasks, schedules.


async def test_a_queue_is_paused_resumed_limited_and_kept(shell, pages):
    shell.submit(greet.bind("ann"))
    row = lambda: next(q for q in chancy_ops.queues(shell.conn, schema=shell.schema) if q.name == "default")  # noqa: E731
    answer = await press(pages, "/queue?name=default", "/queue/pause", until="2h")
    assert leads_to(answer) == "/queue?name=default&did=paused"
    assert row().paused_until is not None
    await press(pages, "/queue?name=default", "/queue/resume")
    assert row().paused_until is None
    await press(pages, "/queue?name=default", "/queue/limit", concurrency="3")
    assert row().limit == 3
    await press(pages, "/queue?name=default", "/queue/limit", concurrency="")
    assert row().limit is None
    await press(pages, "/queue?name=default", "/queue/keep", succeeded="3", failed="30", results="1")
    assert shell.rows("SELECT what, days FROM {}.retention ORDER BY what") == [
        ("failed", 30), ("results", 1), ("succeeded", 3)
    ]  # fmt: skip
    form = forms_of(await pages("/queue?name=default"))["/queue/keep"]
    assert (form.fields["succeeded"], form.fields["failed"], form.fields["cancelled"]) == ("3", "30", "")
    await press(pages, "/queue?name=default", "/queue/keep", succeeded="", failed="", results="")
    assert shell.rows("SELECT count(*) FROM {}.retention") == [(0,)]
    assert [verb for verb, *_ in acts(shell)] == ["pause", "resume", "limit", "limit", "keep", "keep"]


async def test_a_name_that_nobody_knows_is_said_to_be_one(shell, pages):
    for kind, act, said in [
        ("queue", "pause", "unknown"), ("queue", "limit", "unknown"), ("queue", "resume", "unknown"),
        ("queue", "resume", "strange"), ("task", "pause", "unknown"),
    ]:  # fmt: skip
        answer = await pages.post(f"/{kind}/{act}", {"name": "nosuch"}, BY_PAGE)
        assert leads_to(answer) == f"/{kind}?name=nosuch&did={said}"
    assert "nobody knows this name" in (await pages("/queue?name=nosuch&did=unknown")).text


@pytest.mark.parametrize(
    ("act", "typed"),
    [
        ("limit", {"concurrency": "-1"}),
        ("limit", {"concurrency": "many"}),
        ("limit", {"concurrency": "99999999999"}),
        ("pause", {"until": "2026-01-01T00:00"}),
        ("pause", {"until": "99999999w"}),
        ("pause", {"name": "q" * 501}),
        ("pause", {"name": ""}),
        ("keep", {"succeeded": "0.5"}),
        ("keep", {"succeeded": "3651"}),
        ("keep", {"results": "9", "succeeded": "3"}),
    ],
)
async def test_what_no_queue_takes_is_told_and_changes_nothing(shell, pages, act, typed):
    shell.submit(greet.bind("ann"))
    answer = await press(pages, "/queue?name=default", f"/queue/{act}", **typed)
    assert answer.status == 400
    assert acts(shell) == []


async def test_a_task_is_paused_by_all_its_names_and_resumed(shell, pages):
    shell.submit(shop_tasks.ship.bind(1))
    await press(pages, "/task?name=shop_tasks.ship", "/task/pause")
    assert shell.rows("SELECT name FROM {}.pause WHERE kind = 'task' ORDER BY name") == [
        ("shop_tasks.send",), ("shop_tasks.ship",)
    ]  # fmt: skip
    answer = await pages.post("/task/resume", {"name": "shop_tasks.ship"}, BY_PAGE)
    assert leads_to(answer) == "/task?name=shop_tasks.ship&did=resumed"
    assert shell.rows("SELECT count(*) FROM {}.pause") == [(0,)]


async def test_a_schedule_ticks_now_is_paused_resumed_and_forgotten(shell, pages, state_of):
    chancy.schedule(shell.conn, "nightly", greet.bind("ann"), chancy.every(hours=25), schema=shell.schema)
    row = lambda: chancy.schedules(shell.conn, schema=shell.schema)  # noqa: E731
    assert leads_to(await press(pages, "/schedules", "/schedule/pause")) == "/schedules?did=paused"
    assert row()[0].paused_until is not None
    await press(pages, "/schedules", "/schedule/resume")
    assert row()[0].paused_until is None
    async with working(shell.dsn, shell.schema, greet):
        assert leads_to(await press(pages, "/schedules", "/schedule/run")) == "/schedules?did=ticks"
        await eventually(lambda: row()[0].last_job)
    await press(pages, "/schedules", "/schedule/unschedule")
    assert row() == []
    assert [verb for verb, *_ in acts(shell)] == ["pause", "resume", "run_now", "unschedule"]
    gone = await pages.post("/schedule/run", {"name": "nightly"}, BY_PAGE)
    assert (gone.status, "nightly" in gone.text) == (409, True)


# Submitting.


async def test_a_job_is_submitted_by_a_form_that_is_made_of_the_signature(shell, pages):
    page = await pages("/task/submit?name=acts.pack")
    assert "Whole years." in page.text
    answer = await press(
        pages, "/task/submit?name=acts.pack", "/task/submit",
        **{
            "argument-text": "a\r\n<b>", "argument-years": "18", "argument-size": "large", "argument-mode": "fast",
            "argument-day": "2028-02-29", "argument-at": "2026-02-28T12:00Z", "argument-numbers": "[1, 2]",
            "argument-to": '{"street": "Long"}', "argument-pin": "4711", "option-priority": "5", "option-delay": "60",
        },
    )  # fmt: skip
    (row,) = chancy.jobs(shell.conn, schema=shell.schema)
    assert leads_to(answer) == f"/jobs/{row.id}?did=submitted"
    assert json.loads(row.arguments) == {
        "text": "a\n<b>", "years": 18, "flag": True, "size": "large", "mode": "fast", "day": "2028-02-29",
        "at": "2026-02-28T12:00:00Z", "numbers": [1, 2], "to": {"street": "Long", "number": 1}, "pin": "4711",
    }  # fmt: skip
    assert (row.queue, row.priority, row.run_at - row.submitted_at) == ("mail", 5, timedelta(minutes=1))
    assert acts(shell) == [("submit", {"job": row.id, "task": "acts.pack"}, 1)]
    assert "4711" not in (await pages(f"/jobs/{row.id}")).html


async def test_what_is_wrong_is_told_beside_each_field_and_what_was_typed_stays(shell, pages):
    answer = await press(
        pages, "/task/submit?name=acts.pack", "/task/submit",
        **{
            "argument-text": "<script>alert(1)</script>", "argument-years": "17", "argument-size": "huge",
            "argument-day": "2026-02-30", "argument-numbers": "[1, x]", "argument-to": "{}", "argument-pin": "4711",
            "option-priority": "much",
        },
    )  # fmt: skip
    assert answer.status == 400
    assert shell.rows("SELECT count(*) FROM {}.any_job") == [(0,)]
    for words in ("Expected `int` >= 18", "expected one of small, large", "Invalid RFC3339 encoded date",
                  "expected JSON", "Object missing required field `street`", "expected a whole number"):  # fmt: skip
        assert words in answer.text
    form = forms_of(answer)["/task/submit"]
    assert form.fields["argument-text"] == "<script>alert(1)</script>"
    assert form.fields["argument-numbers"] == "[1, x]"
    assert "4711" not in answer.html
    assert "<script>alert" not in answer.html
    wrong = [attrs for tag, attrs in answer.tags if attrs.get("aria-invalid") == "true"]
    assert len(wrong) == 6


async def test_a_secret_that_is_wrong_is_repeated_neither_in_its_field_nor_in_what_is_said_of_it(shell, pages, caplog):
    answer = await press(
        pages, "/task/submit?name=acts.hides", "/task/submit",
        **{
            "argument-mode": "XYZZY-1", "argument-number": "XYZZY-2", "argument-card": '{"owner": "ann", "pin": "XYZZY-3"}',
            "argument-other": '{"owner": "XYZZY-4"', "argument-checked": '{"pin": "XYZZY-5"}',
        },
    )  # fmt: skip
    assert answer.status == 400
    assert "XYZZY" not in answer.html
    assert "expected a whole number" in answer.text
    assert (
        answer.text.count("it is not said what is wrong with it") == 3
    )  # a literal, a field of one, a check of its own
    form = forms_of(answer)["/task/submit"]
    assert json.loads(form.fields["argument-card"]) == {"owner": "ann", "pin": "[secret]"}
    assert form.fields["argument-other"] == ""
    assert "XYZZY" not in caplog.text
    assert acts(shell) == []


async def test_a_job_is_submitted_again_with_changes(shell, pages):
    (job,) = shell.submit(pack.using(priority=9).bind("ann", 30, flag=False, to=Address("Long", 3), pin="4711"))
    page = await pages(f"/jobs/{job}")
    assert f"jobs/{job}/again" in page.html
    assert "4711" not in (await pages(f"/jobs/{job}/again")).html
    answer = await press(pages, f"/jobs/{job}/again", "/task/submit", **{"argument-text": "bob"})
    new = chancy.jobs(shell.conn, schema=shell.schema)[0]
    assert leads_to(answer) == f"/jobs/{new.id}?did=submitted"
    before = json.loads(shell.row(job).arguments)
    before.pop("pin")
    assert json.loads(new.arguments).items() >= (before | {"text": "bob"}).items()
    assert (new.priority, new.queue) == (9, "mail")


async def test_a_unique_job_that_is_there_already_is_led_to(shell, pages):
    (job,) = shell.submit(shop_tasks.invoice.bind(7))
    answer = await press(pages, "/task/submit?name=shop_tasks.invoice", "/task/submit", **{"argument-order": "7"})
    assert leads_to(answer) == f"/jobs/{job}?did=existing"
    assert acts(shell) == []


async def test_a_task_whose_code_is_not_here_says_how_it_would_come(pages):
    page = await pages("/task/submit?name=other.task", 400)
    assert "chancy dashboard myapp.tasks" in page.text


# Who may, and from where.

EVERY_ACT = [
    ("/jobs/{job}/cancel", Action.CANCEL), ("/jobs/{job}/requeue", Action.REQUEUE), ("/jobs/{job}/edit", Action.EDIT),
    ("/jobs/{job}/delete", Action.DELETE), ("/jobs/{job}/signal", Action.SIGNAL), ("/jobs/{job}/forget", Action.SIGNAL),
    ("/task/submit", Action.SUBMIT), ("/task/pause", Action.PAUSE), ("/task/resume", Action.PAUSE),
    ("/queue/pause", Action.PAUSE), ("/queue/resume", Action.PAUSE), ("/queue/limit", Action.LIMIT),
    ("/queue/keep", Action.KEEP), ("/schedule/run", Action.SCHEDULE), ("/schedule/pause", Action.SCHEDULE),
    ("/schedule/resume", Action.SCHEDULE), ("/schedule/unschedule", Action.SCHEDULE), ("/sweep", Action.SWEEP),
    ("/sweep/stop", Action.SWEEP), ("/sweep/ticked", Action.DELETE),
]  # fmt: skip


def typed(job):
    """What every one of them would take."""
    return {
        "seen": "waits:0", "priority": "5", "name": "default", "value": "1", "task": "acts.greet", "argument-name": "a",
        "until": "", "concurrency": "3", "succeeded": "3", "verb": "delete", "queue": "default", "id": "1",
        "job": f"{job}:waits:0",
    }  # fmt: skip


@pytest.fixture
def everything(shell):
    """A job that every act could be about; what the tables have."""
    (job,) = shell.submit(greet.bind("ann"))
    chancy.schedule(shell.conn, "default", greet.bind("ann"), chancy.every(hours=25), schema=shell.schema)

    def tables():
        names = ("job", "history", "pause", "queue_limit", "retention", "schedule", "step", "audit")
        return [
            shell.conn.execute(
                sql.SQL("SELECT array_agg(each::text ORDER BY each::text) FROM {}.{} AS each").format(
                    sql.Identifier(shell.schema), sql.Identifier(name)
                )
            ).fetchone()
            for name in names
        ]

    return job, tables


def test_every_act_is_in_these_tests():
    from chancy_ops.web.routes import ACTS

    assert {path.replace("{id:job}", "{job}") for path in ACTS} == {path for path, _ in EVERY_ACT}


async def test_without_its_right_nothing_of_any_act_is_done(shell, open_dashboard, everything):
    job, tables = everything
    before = tables()
    for path, right in EVERY_ACT:
        for rights in (VIEW, OPERATE - {right}):
            async with Pages(open_dashboard(auth=lambda request, r=rights: User("bob", frozenset(r)))) as pages:
                answer = await pages.post(path.format(job=job), typed(job), BY_PAGE)
                assert answer.status == 403, path
                assert "bob has no right to" in answer.text, path
        assert tables() == before, path


async def test_in_a_read_only_dashboard_postgres_refuses_every_act(open_dashboard, everything):
    job, tables = everything
    before = tables()
    async with Pages(open_dashboard(read_only=True)) as pages:
        for path, _ in EVERY_ACT:
            fields = typed(job)
            if path == "/sweep":
                fields["until"] = "2099-01-01T00:00Z"
            answer = await pages.post(path.format(job=job), fields, BY_PAGE)
            either = (403, 409) if path in ("/sweep/stop", "/sweep/ticked") else (403,)
            assert answer.status in either, path
            assert "read-only: nothing was changed" in answer.text, path
            assert tables() == before, path
        for page in (f"/jobs/{job}", "/queue?name=default", "/schedules", "/jobs", "/task?name=acts.greet"):
            assert forms_of(await pages(page)) == {}


async def test_a_role_that_may_only_look_is_refused_every_act(shell, open_dashboard, everything):
    job, tables = everything
    role = f"chancy_looker_{shell.schema[-6:]}"
    shell.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        shell.conn.execute(chancy.grants({"viewer": role}, schema=shell.schema))
        before = tables()
        dsn = psycopg.conninfo.make_conninfo(shell.dsn, user=role)
        async with Pages(open_dashboard(dsn=dsn)) as pages:
            for path, _ in EVERY_ACT:
                fields = typed(job)
                if path == "/sweep":
                    fields["until"] = "2099-01-01T00:00Z"
                answer = await pages.post(path.format(job=job), fields, BY_PAGE)
                assert answer.status == 403, path
                assert f"role {role} may not do that (permission denied" in answer.text, path
                assert f"chancy grants --schema {shell.schema} --operator {role}`" in answer.text, path
                assert tables() == before, path
    finally:
        shell.conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": HOST},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
async def test_what_another_site_posts_is_refused(pages, everything, headers):
    job, tables = everything
    before = tables()
    for path, _ in EVERY_ACT:
        answer = await pages.post(path.format(job=job), typed(job), headers)
        assert answer.status == 403
        assert answer.html.startswith("refused: ")
    assert tables() == before


async def test_a_browser_that_says_its_origin_alone_is_heard(shell, pages, state_of):
    (job,) = shell.submit(greet.bind("ann"))
    await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel", headers={"Origin": HOST})
    assert state_of(job) is State.CANCELLED


async def test_no_act_is_done_by_a_link(pages, everything):
    job, tables = everything
    before = tables()
    for path, _ in EVERY_ACT:
        answer = await pages.client.get(path.format(job=job), params=typed(job))
        assert answer.status_code in (200, 400, 404, 405), path
        assert tables() == before, path


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
        "jobs/7\r\nSet-Cookie: a=b", "/etc", "../../other", "jobs?x=\n", "data:text/html,x", "jobs#x", " jobs", "JOBS",
    ],
)  # fmt: skip
async def test_an_act_leads_back_to_our_own_pages_alone(shell, pages, following):
    (job,) = shell.submit(greet.bind("ann"))
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel", next=following)
    assert leads_to(answer) == f"/jobs/{job}?did=cancelled"
    assert "set-cookie" not in answer.answer.headers


async def test_an_act_leads_back_with_the_filter_that_it_came_from(shell, pages):
    (job,) = shell.submit(greet.bind("ann"))
    answer = await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel", next="jobs?state=ready&did=deleted&queue=a%20b")
    assert leads_to(answer) == "/jobs?state=ready&queue=a%20b&did=cancelled"


async def test_words_about_what_was_done_are_ours_whatever_an_address_says(pages):
    page = await pages("/jobs?did=<b>call this number</b>")
    assert "call this number" not in page.html
