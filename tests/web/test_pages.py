"""Each page says what it is for, without a script, of what is really there."""

from __future__ import annotations

import json
from datetime import timedelta

import every_verb
import psycopg
import pytest
import shop_tasks
from web_help import Pages, paths

import chancy
import chancy_ops
from chancy_ops.web import OPERATE, VIEW, Action, User
from chancy_ops.web.pages import doctor
from chancy_ops.web.pages import jobs as jobs_page


async def test_every_page_answers_where_there_is_nothing_at_all(pages):
    found = await pages.crawl()
    assert {place: status for place, status in found.items() if status != 200} == {}
    assert len(found) > 10
    assert "No worker is alive" in (await pages("/")).text


async def test_every_page_answers_and_names_where_it_is(things, pages):
    for path in paths(things):
        page = await pages(path)
        current = [attrs for attrs in page.all("a") if attrs.get("aria-current") == "page"]
        assert len(current) == 1, path
        assert page.html.count("<h1>") == 1, path
        assert page.html.startswith("<!doctype html>"), path


async def test_nothing_on_a_page_is_inline_and_every_table_has_its_name(things, pages):
    for path in paths(things):
        page = await pages(path)
        for tag, attrs in page.tags:
            assert not [name for name in attrs if name == "style" or name.startswith("on")], (path, tag, attrs)
            assert tag != "style"
            assert tag != "script" or attrs.get("src"), path
        assert len(page.all("caption")) == len(page.all("table")), path
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids)), path


async def test_the_overview_says_what_waits_what_came_out_and_who_works(things, shell, pages):
    page = await pages("/")
    assert "default" in page.text
    assert every_verb.NAME in page.text  # a queue, and a task
    assert "web-1:77" in page.text
    assert f"job {things.running.id}" in page.text
    assert "paused" in page.text  # a queue
    assert "3 succeeded" in page.text  # in a bar of the chart


async def test_behind_the_last_of_a_list_is_said_to_be_nothing_more_and_not_that_there_is_none(things, shell, pages):
    chancy_ops.note(shell.conn, "cancel", {"job": 1}, who="ann", via="test", schema=shell.schema)
    for path in (
        "/workers?after=9:~", "/queues?after=~", "/schedules?after=~", "/limits?after=~", "/batches?before=1", "/audit?before=1"
    ):  # fmt: skip
        page = await pages(path)
        assert "Nothing comes behind this." in page.text, path
        assert "No worker is alive" not in page.text


async def test_workers_are_shown_with_their_memory_and_since_when_it_is_known(shell, pages, chancy_clock):
    chancy_clock.set(chancy_clock.now())  # three seconds ago is so however long a page takes
    (job,) = shell.submit(shop_tasks.welcome.bind(1))
    shell.run(job)
    page = await pages("/workers")
    assert "96 MiB 240 MiB 3 s ago" in page.text
    shell.rows("UPDATE {0}.worker SET memory_at = {0}.clock() - interval '7 min' RETURNING 1")
    assert "96 MiB 240 MiB 7 min ago" in (await pages("/workers")).text
    shell.rows("UPDATE {0}.worker SET memory = NULL, memory_of_children = NULL, memory_at = NULL RETURNING 1")
    assert "unknown unknown -" in (await pages("/workers")).text


async def test_jobs_are_filtered_by_the_address_and_searched_by_their_arguments(shell, pages):
    first, second, third = shell.submit(*[shop_tasks.welcome.bind(n, greeting=f"hello {n}") for n in (1, 22, 333)])
    shell.finish(first, message="the server said no", fingerprint="abc")
    page = await pages("/jobs")
    assert all(f">{job}</a>" in page.html for job in (first, second, third))
    for asked, wanted in (
        ("state=failed", {first}),
        ("state=ready", {second, third}),
        ("error=ValueError", {first}),
        ("fingerprint=abc", {first}),
        ("text=hello 22", {second}),
        ("queue=mail&task=shop_tasks.welcome&since=2h", {first, second, third}),
        ("until=1h", set()),
        ("queue=other", set()),
    ):
        page = await pages(f"/jobs?{asked}")
        assert {job for job in (first, second, third) if f">{job}</a>" in page.html} == wanted, asked
    assert "No job fits" in page.text
    assert page.html.count('value="other"') == 1  # what was asked stands in the form


async def test_jobs_are_counted_by_state_and_more_than_ten_thousand_are_not(shell, pages):
    shell.submit(*[shop_tasks.welcome.bind(1)] * 3)
    assert "3 ready" in (await pages("/jobs?queue=mail&state=failed")).text
    shell.rows(
        """INSERT INTO {}.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
        SELECT 'x', 'many', 0, 'ready', 1, now(), now(), '{{}}' FROM generate_series(1, 10001) RETURNING 1"""
    )
    page = await pages("/jobs?queue=many")
    assert "10,000+ ready" in page.text


async def test_a_state_of_which_no_job_was_found_as_far_as_was_looked_is_not_said_to_have_none(
    shell, pages, monkeypatch
):
    async def glance(conn, which, schema):
        return {
            chancy.State.READY: chancy_ops.Count(7, more=True),
            chancy.State.SCHEDULED: chancy_ops.Count(0, more=True),
        }

    monkeypatch.setattr(jobs_page, "glance", glance)
    page = await pages("/jobs?batch=1")
    assert "7+ ready" in page.text
    assert "scheduled: not counted" in page.text
    assert "0+" not in page.text


async def test_the_next_page_of_jobs_has_those_behind_the_last(shell, pages):
    ids = shell.submit(*[shop_tasks.welcome.bind(n) for n in range(60)])
    page = await pages("/jobs?queue=mail")
    (older,) = [link for link in page.links if "before=" in link]
    assert f"before={ids[10]}" in older
    assert "queue=mail" in older
    page = await pages(f"/{older.removeprefix('./')}")
    assert [job for job in ids if f">{job}</a>" in page.html] == ids[:10]
    assert not [link for link in page.links if "before=" in link]


async def test_what_cannot_be_asked_is_said_and_not_an_error_of_ours(pages):
    for asked in (
        "state=lost", "batch=x", "since=yesterday", "since=2026-11-25T18:00", "before=0x", "batch=99999999999999999999",
        "before=99999999999999999999", "before=-1", "queue=%00", "text=%00",
    ):  # fmt: skip
        page = await pages(f"/jobs?{asked}", 400)
        assert "Sorry" in page.text, asked
    for path in ("/jobs/999999", "/nothing", "/queue", "/task", "/failure", "/batch", "/batch?id=77"):
        assert "Sorry" in (await pages(path, 404)).text
    assert "Sorry" in (await pages("/jobs/99999999999999999999", 400)).text


async def test_one_job_is_told_with_why_and_all_that_it_said(shell, pages):
    (job,) = shell.submit(shop_tasks.welcome.bind(7, copies=[1, 2]))
    page = await pages(f"/jobs/{job}")
    assert "no worker takes queue 'mail'" in page.text
    assert '"user_id": 7' in page.text
    shell.run(job, '{"fraction": 0.25, "note": "a quarter"}')
    shell.rows("INSERT INTO {}.log VALUES (%s, 1, 1, now(), %s) RETURNING 1", job, json.dumps(
        {"level": "INFO", "logger": "shop", "message": "it goes on"}
    ))  # fmt: skip
    page = await pages(f"/jobs/{job}")
    assert "25% a quarter" in page.text
    assert "INFO shop: it goes on" in page.text
    shell.rows("UPDATE {}.job SET state = 'ready', worker = NULL RETURNING id")
    shell.finish(job, message="the server said no")
    page = await pages(f"/jobs/{job}")
    assert "Attempt 1 failed on web-1:77" in page.text
    assert "the server said no" in page.text
    assert "Traceback (most recent call last)" in page.text


async def test_a_graph_is_told_as_a_tree_of_links(shell, pages):
    needed = [shop_tasks.ship.submit(shell.conn, n) for n in range(3)]
    last = shop_tasks.ship.using(after=needed).submit(shell.conn, 9)
    page = await pages(f"/jobs/{last.id}")
    assert "3 \N{MULTIPLICATION SIGN} shop_tasks.ship 3 ready" in page.text
    assert "waits for" in page.text


async def test_a_queue_says_what_is_set_for_it(things, pages):
    page = await pages("/queue?name=mail")
    assert "Succeeded 3 days" in page.text
    page = await pages("/queue?name=default")
    assert "web-1:77" in page.text
    page = await pages(f"/queue?name={every_verb.NAME}")
    assert "It is paused" in page.text
    assert "Nothing is live in this queue" in (await pages("/queue?name=nobody's")).text


async def test_who_has_which_place_of_a_limit_is_said(things, shell, pages):
    page = await pages("/limits")
    assert f"concurrency({every_verb.NAME} k=1)" in page.text
    assert f"jobs/{things.running.id}" in " ".join(page.links)
    assert "mail 3 0 open" in page.text  # of a queue
    (row,) = chancy_ops.limits(shell.conn)
    assert (row.most, row.taken, list(row.jobs), row.full) == (3, 1, [things.running.id], False)


async def test_failures_of_one_bug_are_one_line_and_lead_to_all_of_it(shell, pages):
    jobs = shell.submit(*[shop_tasks.welcome.bind(n) for n in range(5)])
    shell.finish(*jobs[:3], kind="Timeout", message="no answer", fingerprint="aaa")
    shell.finish(*jobs[3:], kind="KeyError", message="'x'", fingerprint="bbb")
    page = await pages("/failures")
    assert "Timeout: no answer 3" in page.text
    page = await pages("/failure?fingerprint=aaa")
    assert "3 failed" in page.text
    assert all(f">{job}</a>" in page.html for job in jobs[:3])
    assert f">{jobs[4]}</a>" not in page.html


async def test_schedules_say_their_next_five_ticks(things, shell, pages):
    chancy.schedule(shell.conn, "dawn", shop_tasks.ship.bind(1), chancy.cron("0 5 * * *", timezone="Europe/Prague"))
    page = await pages("/schedules")
    assert "0 5 * * * Europe/Prague" in page.text
    assert "every 25 h" in page.text or "every 1 d" in page.text
    chancy_ops.pause(shell.conn, schedule="dawn")
    assert "paused without end" in (await pages("/schedules")).text


async def test_batches_are_listed_and_one_says_how_far_it_is(things, pages):
    page = await pages("/batches")
    assert "every_verb.called" in page.text
    assert "0 of 1 have finished" in (await pages(f"/batch?id={things.batch}")).text


async def test_what_somebody_may_not_read_is_on_no_page(things, shell, open_dashboard):
    looker = User("bob", VIEW - {Action.READ})
    (secret,) = shell.submit(shop_tasks.welcome.bind(1, greeting="XYZZY"))
    shell.finish(secret, message="XYZZY", fingerprint="5ade1fb7c0d3")
    async with Pages(open_dashboard(auth=lambda request: looker)) as pages:
        for path in [*paths(things), f"/jobs/{secret}", "/jobs?queue=mail"]:
            assert "XYZZY" not in (await pages(path)).html, path
        assert "XYZZY" not in (await pages("/jobs?text=XYZZY")).html  # and nobody asks by searching
        assert f">{secret}</a>" in (await pages("/jobs?text=nothing")).html


async def test_a_page_that_has_not_changed_is_not_sent_again(shell, pages):
    (job,) = shell.submit(shop_tasks.welcome.bind(7))
    first = await pages(f"/jobs/{job}", headers={"X-Live": "1"})
    assert "<html" not in first.html
    again = {"X-Live": "1", "If-None-Match": first.answer.headers["etag"]}
    shell.rows("UPDATE {}.job SET submitted_at = submitted_at - interval '0 s' RETURNING 1")
    await pages(f"/jobs/{job}", 304, headers=again)
    shell.run(job)
    second = await pages(f"/jobs/{job}", headers=again)
    assert "running" in second.text
    assert int(second.answer.headers["x-pace"]) >= 2000


async def test_ages_alone_do_not_make_a_page_another(shell, pages, chancy_clock):
    (job,) = shell.submit(shop_tasks.welcome.bind(7))
    first = await pages(f"/jobs/{job}", headers={"X-Live": "1"})
    chancy_clock.move(timedelta(minutes=10))
    second = await pages(f"/jobs/{job}", headers={"X-Live": "1"})
    assert "10 min ago" in second.text
    assert first.answer.headers["etag"] == second.answer.headers["etag"]


async def test_a_schema_that_is_not_there_is_said_with_the_remedy(chancy_dsn, pages, open_dashboard):
    async with Pages(open_dashboard(schema="nowhere")) as pages:
        page = await pages("/", 503)
        assert "chancy migrate" in page.text


async def test_a_database_that_is_down_is_said_and_the_next_look_finds_it_again(shell, pages):
    await pages("/jobs")
    shell.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chancy dashboard' AND datname = current_database()"
    )
    await pages("/jobs")


async def test_without_a_server_a_page_says_so_and_no_password(open_dashboard):
    async with Pages(open_dashboard(schema="s", dsn="postgresql://ann:secretword@127.0.0.1:1/x")) as pages:
        page = await pages("/", 503)
        assert "cannot be reached" in page.text
        assert "secretword" not in page.html
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect("postgresql://ann:secretword@127.0.0.1:1/x")


async def test_while_the_doctor_looks_its_page_says_so_and_shows_what_was_found_by_itself(things, pages, monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0)
    page = await pages("/doctor")
    assert "The doctor is looking." in page.text
    assert {"http-equiv": "refresh", "content": "1"} in page.all("meta")  # where there is no script
    assert int(page.answer.headers["X-Pace"]) <= 300
    assert page.all("body")[0]["data-every"] == "300"
    while "The doctor is looking." in page.text:
        page = await pages("/doctor", headers={"X-Live": "1"})
    assert "the worst first" in page.text
    page = await pages("/doctor")
    assert not [attrs for attrs in page.all("meta") if "http-equiv" in attrs]


async def test_of_many_queues_the_overview_shows_those_in_which_something_waits_for_the_longest(shell, pages):
    shell.rows(
        """INSERT INTO {0}.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
        SELECT 'shop_tasks.welcome', 'q' || n, 0, 'ready', 3, {0}.clock() - n * interval '1 min', {0}.clock(), '{{}}'
        FROM generate_series(1, 60) AS n RETURNING 1"""
    )
    page = await pages("/")
    shown = {link.rpartition("=")[2] for link in page.links if link.startswith("./queue?name=")}
    assert shown == {f"q{n}" for n in range(11, 61)}
    assert "Of 60 queues those in which a job has been due for the longest" in page.text


async def test_the_overview_is_made_once_for_all_who_see_it_alike(things, open_dashboard):
    users = iter([User("ann", OPERATE), User("ann", OPERATE), User("bob", OPERATE), User("bob", VIEW)])
    made = open_dashboard(auth=lambda request: next(users), every=60)
    asked, jinja = [], made._desk.pages._jinja
    get_template = jinja.get_template
    jinja.get_template = lambda name, *more: asked.append(name) or get_template(name, *more)
    async with Pages(made) as pages:
        seen = [await pages("/") for _ in range(4)]
    assert seen[0].html == seen[1].html
    assert ["bob" in page.text for page in seen] == [False, False, True, True]
    assert asked.count("overview.html") == 3
