"""What a page does to many jobs: counted first, seen by everybody, stopped by anybody."""

from __future__ import annotations

import asyncio
import re

import psycopg
import pytest
import shop_tasks
from act_help import acts, eventually, forms_of, leads_to, press, working
from act_tasks import greet
from psycopg import sql
from web_help import BY_PAGE, Pages

import chancy
import chancy_ops
from chancy import State
from chancy_ops import JobFilter
from chancy_ops.web import OPERATE, Action, User
from chancy_ops.web.acts import sweeps as on_many
from chancy_ops.web.connections import answer_of


@pytest.fixture
def failed(shell):
    """1,000 jobs that have failed, and one that was cancelled."""
    ids = shell.submit(*[greet.bind(str(n)) for n in range(1001)])
    shell.finish(*ids[:1000])
    shell.finish(ids[1000], state="cancelled")
    return ids[:1000]


def counted(shell, state):
    return chancy_ops.count(shell.conn, JobFilter(state=state), schema=shell.schema).get(state, 0)


def changed(page):
    """How many jobs the page of a sweep says that it has changed."""
    return re.search(r'id="changed">([\d,]+)<', page.html)[1]


async def over(pages, place):
    """The page of a sweep, when it has ended."""
    while "data-live" in (page := await pages(place)).html:
        await asyncio.sleep(0.02)
    return page


async def test_all_that_fit_are_counted_and_the_number_is_in_the_button(shell, pages, failed):
    page = await pages("/jobs?state=failed&queue=default")
    (link,) = {place for place in page.places() if "/sweep?verb=requeue" in place}
    path = link.partition("127.0.0.1:8610")[2]
    page = await pages(path)
    form = forms_of(page)["/sweep"]
    assert form.label == "Requeue 1,000 jobs"
    assert form.fields["state"] == "failed"
    assert form.fields["queue"] == "default"
    assert counted(shell, State.FAILED) == 1000  # it was a look
    (late,) = shell.submit(greet.bind("late"))
    shell.finish(late)
    answer = await press(pages, path, "/sweep", until=form.fields["until"])
    place = leads_to(answer)
    page = await over(pages, place)
    assert "1,000 requeued" in page.text
    assert (counted(shell, State.READY), counted(shell, State.FAILED)) == (1000, 1)
    (row,) = chancy_ops.audit(shell.conn, schema=shell.schema)
    assert (row.who, row.via, row.verb, row.fits, row.changed) == ("ann", "dashboard", "requeue", 1000, 1000)
    assert place == f"/sweep?id={row.id}"


def slow(shell, gate, changed):
    """Each batch waits for whoever holds this lock, once so many have been changed."""
    shell.conn.execute(
        sql.SQL(
            """
        CREATE FUNCTION {0}.wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT max(changed) FROM {0}.audit) >= {2} THEN PERFORM pg_advisory_xact_lock_shared({1}); END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER wait AFTER INSERT ON {0}.job FOR EACH STATEMENT EXECUTE FUNCTION {0}.wait()
    """
        ).format(sql.Identifier(shell.schema), sql.Literal(gate), sql.Literal(changed))
    )


@pytest.fixture
def gate(shell, failed, request):
    """Sweeps stand still at their first batch, or that after so many jobs, until it is opened."""
    with psycopg.connect(shell.dsn, autocommit=True) as holder:
        number = int(shell.rows("SELECT hashtext(%s)", shell.schema)[0][0])
        slow(shell, number, getattr(request, "param", 0))
        holder.execute("SELECT pg_advisory_lock(%s)", [number])
        yield lambda: holder.execute("SELECT pg_advisory_unlock(%s)", [number])


@pytest.mark.parametrize("gate", [400], indirect=True)
async def test_many_failures_are_requeued_while_a_worker_works_and_two_browsers_see_how_far_it_is(
    shell, open_dashboard, gate
):
    """Two processes with a dashboard each; the second one sees what the first one does, and the number is exact."""
    async with Pages(open_dashboard()) as one, Pages(open_dashboard()) as other:
        async with working(shell.dsn, shell.schema, greet):
            form = forms_of(await one("/sweep?verb=requeue&state=failed"))["/sweep"]
            place = leads_to(await one.post("/sweep", form.fields, BY_PAGE))
            for each in (one, other):
                while changed(await each(place)) != "400":
                    await asyncio.sleep(0.02)
            gate()
            for each in (one, other):
                assert changed(await over(each, place)) == "1,000"
            await eventually(lambda: counted(shell, State.SUCCEEDED) == 1000)
    (row,) = chancy_ops.audit(shell.conn, schema=shell.schema)
    assert (row.fits, row.changed, row.skipped) == (1000, 1000, 0)
    assert counted(shell, State.CANCELLED) == 1


async def test_it_is_stopped_from_another_process_after_its_batch_and_the_same_again_does_the_rest(
    shell, open_dashboard, gate
):
    async with Pages(open_dashboard()) as one, Pages(open_dashboard()) as other:
        form = forms_of(await one("/sweep?verb=requeue&state=failed"))["/sweep"]
        place = leads_to(await one.post("/sweep", form.fields, BY_PAGE))
        answer = await press(other, place, "/sweep/stop")
        assert leads_to(answer) == f"{place}&did=stops"
        assert "stopping" in (await other(place)).text
        gate()
        page = await over(one, place)
        assert "200 requeued" in page.text
        assert "stopped" in page.text
        assert "Whoever begins the same again does the rest." in page.text
        place = leads_to(await one.post("/sweep", form.fields, BY_PAGE))
        assert "800 requeued" in (await over(one, place)).text
    assert [row.verb for row in chancy_ops.audit(shell.conn, schema=shell.schema)] == ["requeue", "stop", "requeue"]


async def test_a_button_that_is_pressed_twice_begins_one(shell, pages, gate):
    form = forms_of(await pages("/sweep?verb=requeue&state=failed"))["/sweep"]
    answers = await asyncio.gather(*(pages.post("/sweep", form.fields, BY_PAGE) for _ in range(3)))
    places = {leads_to(answer) for answer in answers}
    assert len(places) == 1
    gate()
    await over(pages, places.pop())
    assert len(chancy_ops.audit(shell.conn, schema=shell.schema)) == 1


@pytest.mark.long
async def test_two_go_on_at_a_time_and_a_third_is_told_to_wait(shell, pages, gate):
    (waiting,) = shell.rows("SELECT min(id) FROM {}.history")[0]
    for state in ("failed", "cancelled"):
        form = forms_of(await pages(f"/sweep?verb=requeue&state={state}"))["/sweep"]
        leads_to(await pages.post("/sweep", form.fields, BY_PAGE))
    form = forms_of(await pages("/sweep?verb=delete&state=failed"))["/sweep"]
    answer = await pages.post("/sweep", form.fields, BY_PAGE)
    assert (answer.status, "Two acts on many jobs go on already" in answer.text) == (409, True)
    gate()
    rows = chancy_ops.audit(shell.conn, schema=shell.schema)
    for row in rows:
        await over(pages, f"/sweep?id={row.id}")
    assert len(rows) == 2
    assert chancy.get(shell.conn, waiting, schema=shell.schema).state is State.READY


async def test_a_dashboard_that_is_closed_ends_what_it_does_and_says_so(shell, open_dashboard, gate):
    dashboard = open_dashboard()
    async with Pages(dashboard) as pages:
        form = forms_of(await pages("/sweep?verb=requeue&state=failed"))["/sweep"]
        place = leads_to(await pages.post("/sweep", form.fields, BY_PAGE))
        dashboard.close()
        page = await over(pages, place)
        assert "interrupted" in page.text
        assert "0 requeued" in page.text
    assert counted(shell, State.FAILED) == 1000


async def test_a_sweep_whose_process_is_lost_is_told_apart(shell, pages, failed):
    shell.rows(
        """INSERT INTO {0}.audit (at, who, via, verb, what, fits, changed, skipped, seen_at)
        VALUES (now() - interval '1 h', 'bob', 'command', 'requeue', '{{"state": "failed"}}', 9, 4, 0, now() - interval '1 h')
        RETURNING id"""
    )
    page = await pages("/audit")
    assert "lost its process" in page.text
    assert "bob" in page.text
    (link,) = {place for place in page.places() if "/sweep?id=" in place}
    assert "lost its process" in (await pages(link.partition("127.0.0.1:8610")[2])).text


async def test_the_ticked_jobs_are_shown_counted_and_done_if_they_are_as_they_were(shell, pages):
    one, two, three, four = shell.submit(*[greet.bind(str(n)) for n in range(4)])
    shell.finish(one, two, three)
    page = await pages("/jobs")
    ticks = {
        attrs["value"].partition(":")[0]: attrs["value"] for attrs in page.all("input") if attrs.get("name") == "job"
    }
    assert set(ticks) == {str(job) for job in (one, two, three, four)}
    chosen = "&".join(f"job={ticks[str(job)]}" for job in (one, two, four))
    page = await pages(f"/sweep?ticked=1&verb=requeue&{chosen}")
    form = forms_of(page)["/sweep/ticked"]
    assert form.label == "Requeue 2 jobs"
    assert f"{four} ready: it has gone on since, or is in no state" in page.text
    chancy.requeue(shell.conn, two, schema=shell.schema)  # somebody else was faster
    shell.finish(two, state="discarded")
    data = {"verb": "requeue", "job": [ticks[str(one)], ticks[str(two)]]}
    answer = await pages.post("/sweep/ticked", data, BY_PAGE)
    assert leads_to(answer) == "/jobs?did=some"
    assert [shell.row(job).state for job in (one, two, three)] == [State.READY, State.DISCARDED, State.FAILED]
    assert acts(shell) == [("requeue", {"jobs": [one]}, 1)]
    assert (await pages("/sweep?ticked=1&verb=requeue", 400)).status == 400


@pytest.mark.long
async def test_two_hundred_ticked_jobs_are_looked_at_in_one_round_trip(shell, pages, monkeypatch):
    ids = shell.submit(*[greet.bind(str(n)) for n in range(200)])
    shell.finish(*ids)
    said = []
    monkeypatch.setattr(
        on_many, "answer_of", lambda conn, asked, schema: said.append(asked.name) or answer_of(conn, asked, schema)
    )
    monkeypatch.setattr(chancy, "get", None)
    asked = "&".join(f"job={job}:failed:1" for job in (*ids, ids[0], 2**40))
    form = forms_of(await pages(f"/sweep?ticked=1&verb=requeue&{asked}"))["/sweep/ticked"]
    assert (form.label, said) == ("Requeue 200 jobs", ["lines"])
    answer = await pages.post("/sweep/ticked", {"verb": "requeue", "job": [f"{job}:failed:1" for job in ids]}, BY_PAGE)
    assert leads_to(answer) == "/jobs?did=swept"
    assert said == ["lines", "lines"]
    assert counted(shell, State.READY) == 200


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("verb=requeue", "name a state"),
        ("verb=cancel", "say which jobs"),
        ("verb=delete", "say which jobs"),
        ("verb=delete&state=running", "cannot be deleted"),
        ("verb=cancel&state=failed", "cannot be cancelled"),
        ("verb=drop&state=failed", "expected one of cancel, requeue, delete"),
        ("verb=requeue&state=lost", "state"),
        ("verb=requeue&state=failed&since=yesterday", "since"),
        ("verb=requeue&state=failed&attempts=0", "attempts"),
        ("verb=requeue&state=failed&batch=x", "batch"),
        ("verb=cancel&ticked=1&job=x", "expected a job"),
        ("id=x", "id"),
    ],
)
async def test_what_no_sweep_takes_is_told_in_words(pages, failed, asked, words):
    page = await pages(f"/sweep?{asked}", 400)
    assert words in page.text


async def test_a_sweep_that_says_no_end_of_its_window_is_refused(pages, failed, shell):
    answer = await pages.post("/sweep", {"verb": "requeue", "state": "failed"}, BY_PAGE)
    assert (answer.status, "count again" in answer.text) == (400, True)
    assert counted(shell, State.FAILED) == 1000


async def test_all_of_one_bug_are_requeued_from_its_page(shell, pages):
    ids = shell.submit(*[shop_tasks.welcome.bind(n) for n in range(3)])
    shell.finish(*ids[:2], fingerprint="aa00aa00aa00")
    shell.finish(ids[2], fingerprint="bb11bb11bb11")
    page = await pages("/failure?fingerprint=aa00aa00aa00")
    (link,) = {place for place in page.places() if "/sweep?verb=requeue" in place}
    path = link.partition("127.0.0.1:8610")[2]
    assert forms_of(await pages(path))["/sweep"].label == "Requeue 2 jobs"
    await over(pages, leads_to(await press(pages, path, "/sweep")))
    assert [shell.row(job).state for job in ids] == [State.READY, State.READY, State.FAILED]


async def test_who_may_do_it_to_one_needs_a_right_of_its_own_to_do_it_to_all(shell, open_dashboard, failed):
    rights = frozenset(OPERATE - {Action.SWEEP})
    async with Pages(open_dashboard(auth=lambda request: User("bob", rights))) as pages:
        assert "All that fit" not in (await pages("/jobs?state=failed")).text
        assert "no right to sweep" in (await pages("/sweep?verb=requeue&state=failed", 403)).text
    rights = frozenset(OPERATE - {Action.REQUEUE})
    async with Pages(open_dashboard(auth=lambda request: User("bob", rights))) as pages:
        assert "no right to requeue" in (await pages("/sweep?verb=requeue&state=failed", 403)).text
        answer = await pages.post("/sweep", {"verb": "requeue", "state": "failed", "until": "0s"}, BY_PAGE)
        assert answer.status == 403
    assert counted(shell, State.FAILED) == 1000


async def test_what_people_did_is_read_by_who_may(shell, open_dashboard, pages):
    (job,) = shell.submit(greet.bind("ann"))
    await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel")
    page = await pages("/audit")
    assert f"job {job}" in page.text
    assert "ann" in page.text
    assert "dashboard" in page.text
    assert "Nobody has done anything of this" in (await pages("/audit?who=bob")).text
    rights = frozenset({Action.LOOK})
    async with Pages(open_dashboard(auth=lambda request: User("bob", rights))) as others:
        assert (await others("/audit", 403)).status == 403
        assert "audit" not in {link.rpartition("/")[2] for link in (await others("/")).links}


async def test_whatever_a_person_is_called_a_page_shows_it_and_does_not_obey_it(shell, open_dashboard):
    name = "<img src=x onerror=alert(1)>\x1b[31m"
    async with Pages(open_dashboard(auth=lambda request: User(name, OPERATE))) as pages:
        (job,) = shell.submit(greet.bind("ann"))
        await press(pages, f"/jobs/{job}", f"/jobs/{job}/cancel")
        page = await pages("/audit")
    assert page.all("img") == []
    assert "\x1b" not in page.html
