"""Whatever somebody has written into a row is a text on a page, and of what is large a part."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
import shop_tasks
from act_help import forms_of, press
from psycopg import sql as psql
from web_help import BY_PAGE, HOST, Pages

import chancy
import chancy_ops
import chancy_ops.web

MARKUP = '"><img src=x onerror="alert(1)"><script>alert(1)</script>{{ 7777 * 7777 }}</pre></title>'
CONTROLS = "a\x1b[31mb\x07c\u202ed\u2066e\x7ff\u2028g"
NAMES = [
    MARKUP, CONTROLS, "..", "/", "a/b?c=d&e#f", "%2e%2e%2f", " ", "\\", "javascript:alert(1)", "'; DROP TABLE job; --",
    "🦆" * 40, "x" * 400, "\n\r\n", "a\tb", "\ufeff", "<!--", "]]>",
]  # fmt: skip

INSERT = """
    INSERT INTO {}.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, errors, unique_key)
    VALUES (%s, %s, 0, 'ready', 3, now(), now(), %s::json, %s::json, %s) RETURNING id
"""


def put(shell, *, task="t", queue="q", arguments="{}", errors=None, key=None):
    return shell.rows(INSERT, task, queue, arguments, errors, key)[0][0]


def pages_in(found):
    return [place for place in found if "/static/" not in place]


async def text_alone(pages, place, scripts):
    """The page, on which nothing that was said has become a part of it: it has its own scripts, and so many."""
    page = await pages(place.removeprefix(HOST))
    assert not page.all("img"), place
    assert len(page.all("script")) == scripts, place
    assert page.html.count("<h1>") == 1, place
    assert "60481729" not in page.text, place
    assert not [c for c in page.html if not (c.isprintable() or c in "\n\t")], place
    return page


@pytest.mark.long
async def test_a_name_is_a_text_wherever_it_stands_and_leads_where_it_should(shell, pages):
    (plain,) = [len(page.all("script")) for page in [await pages("/")]]
    for name in NAMES:
        job = put(shell, task=name, queue=name, key=name[:100], arguments=json.dumps({"x": name}))
        failed = put(shell, task=name, queue=name)
        shell.finish(failed, kind=name, message=name, fingerprint=name)
        shell.run(job, json.dumps({"fraction": 0.5, "note": name}), queues=[name], tasks=[name])
        shell.rows("UPDATE {}.worker SET name = %s WHERE name = 'web-1:77' RETURNING 1", name)
        chancy_ops.pause(shell.conn, task=name)
        chancy_ops.limit(shell.conn, name, concurrency=1)
    found = await pages.crawl(most=300)
    assert {place: status for place, status in found.items() if status != 200} == {}
    shown = pages_in(found)
    for kind in ("/queue?name=", "/task?name=", "/failure?fingerprint="):
        assert len([place for place in shown if kind in place]) >= len(NAMES), kind
    for place in shown:
        page = await text_alone(pages, place, plain)
        assert not [link for link in page.links if link.lower().startswith(("javascript:", "//", "data:"))], place


UNSEEN = ["a\u200db", "a\u00a0b", "\u202eb", "a\tb", "a\nb", "\U0001f468\u200d\U0001f469", "\ue000", " a "]
"""What a page shows as an escape, if at all: family emoji, spaces that do not break, marks of direction."""


@pytest.mark.parametrize("name", UNSEEN, ids=ascii)
async def test_a_button_is_about_what_it_stands_beside_whatever_that_is_called(shell, pages, name):
    put(shell, queue=name, task=name)
    query = urlencode({"name": name})
    await press(pages, f"/queue?{query}", "/queue/pause")
    await press(pages, f"/task?{query}", "/task/pause")
    assert shell.rows("SELECT kind, name FROM {}.pause ORDER BY kind") == [("queue", name), ("task", name)]
    planned = await pages(f"/sweep?verb=delete&{urlencode({'queue': name})}")
    assert forms_of(planned)["/sweep"].fields["queue"] == name
    (job,) = shell.submit(shop_tasks.welcome.bind(1, greeting=name))
    await press(pages, f"/jobs/{job}/again", "/task/submit")
    rows = chancy.jobs(shell.conn, queue="mail", schema=shell.schema)
    assert [json.loads(row.arguments)["greeting"] for row in rows] == [name, name]


def test_every_value_of_a_form_comes_back_as_it_is():
    folder = Path(chancy_ops.web.__file__).parent / "templates"
    values = [
        (file.name, said)
        for file in folder.rglob("*.html")
        for said in re.findall(r'<(?:input|option|button)\b[^>]*?\bvalue="(\{\{.*?\}\})"', file.read_text())
    ]
    assert len(values) > 15
    assert [each for each in values if not each[1].endswith("| as_typed }}") and "seen" not in each[1]] == []


@pytest.mark.parametrize("schema", ['we"ird', "a; DROP SCHEMA public", "{schema}", "é", "", "x" * 400, "pg_catalog"])
async def test_a_schema_with_a_name_that_none_has_is_refused_before_anything_is_sent(open_dashboard, schema):
    with pytest.raises(chancy.ChancyError):
        open_dashboard(schema=schema)


@pytest.mark.long
async def test_a_schema_with_a_word_of_sql_as_its_name_is_one_as_any_other(shell, open_dashboard):
    schema = "Select_From"
    shell.conn.execute(psql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(psql.Identifier(schema)))
    try:
        chancy.migrate(shell.conn, schema=schema)
        chancy.submit_many(shell.conn, [shop_tasks.welcome.bind(n) for n in range(3)], schema=schema)
        async with Pages(open_dashboard(schema=schema)) as pages:
            found = await pages.crawl()
            assert {place: status for place, status in found.items() if status != 200} == {}
            assert (await pages.post("/queue/pause", {"name": "mail"}, BY_PAGE)).status == 303
            assert "pause" in (await pages("/audit")).text
    finally:
        shell.conn.execute(psql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(psql.Identifier(schema)))


NUMBERS = [
    "9" * 19,
    "9" * 30,
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "0",
    "1e3",
    "0x1",
    "\u0661\u0661",
    "9" * 5000,
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: n[:20])
async def test_a_number_that_is_none_or_that_no_column_holds_is_told_and_no_error_of_ours(shell, pages, number):
    put(shell)
    for path in (
        f"/jobs/{number}", f"/jobs/{number}/again", f"/jobs?batch={number}", f"/jobs?before={number}",
        f"/batch?id={number}", f"/batches?before={number}", f"/audit?before={number}", f"/sweep?id={number}",
        f"/workers?after={number}:x", f"/sweep?verb=delete&job={number}:waits:0",
        f"/sweep?verb=requeue&attempts={number}&state=failed", f"/jobs?since={number}d",
    ):  # fmt: skip
        answer = await pages.client.get(path)
        assert answer.status_code in (200, 400, 404, 409), (path, answer.text[:500])
    before = shell.rows("SELECT * FROM {}.job")
    for path, data in (
        (f"/jobs/{number}/cancel", {"seen": "waits:0"}), ("/sweep/stop", {"id": number}),
        ("/sweep/ticked", {"verb": "delete", "job": f"{number}:waits:0"}), ("/jobs/404/edit", {"priority": number}),
        ("/queue/limit", {"name": "none", "concurrency": f"{number}x"}), ("/queue/pause", {"name": "none", "until": f"{number}w"}),
        ("/sweep", {"verb": "delete", "until": "2001-01-01T00:00Z", "batch": number}),
    ):  # fmt: skip
        answer = await pages.post(path, data, BY_PAGE)
        assert answer.status in (303, 400, 404, 409), (path, answer.text[:500])
    assert shell.rows("SELECT * FROM {}.job") == before


@pytest.mark.parametrize(
    "name", ["\0", "a\0b", "\ud800", "x" * 20_000, "%", "\u202e", "' OR 1=1 --", "{schema}", "%(queue)s"]
)
async def test_whatever_is_asked_for_is_answered_and_asks_for_nothing_else(things, pages, name):
    for path, field in (
        ("/jobs", "queue"), ("/jobs", "task"), ("/jobs", "error"), ("/jobs", "fingerprint"), ("/jobs", "text"),
        ("/jobs", "since"), ("/jobs", "state"), ("/jobs", "did"), ("/queue", "name"), ("/task", "name"),
        ("/task/submit", "name"), ("/failure", "fingerprint"), ("/audit", "who"), ("/audit", "verb"),
        ("/queues", "after"), ("/workers", "after"), ("/sweep", "verb"), ("/schedules", "did"),
    ):  # fmt: skip
        query = urlencode({field: name}, errors="surrogatepass")
        answer = await pages.client.get(f"{path}?{query}")
        assert answer.status_code in (200, 400, 404), (path, field, answer.status_code, answer.text[:500])
        assert f">{things.ready.id}</a>" not in answer.text or field in ("did", "text", "after"), (path, field)


@pytest.mark.parametrize(
    "arguments",
    [r'{"x": "\ud800"}', r'{"x": "\u0000"}', '{"x": ' + "[" * 3000 + "]" * 3000 + "}", '{"x": 1e999}', '{"x":1,"x":2}'],
    ids=["a lone surrogate", "a zero", "three thousand deep", "infinite", "twice"],
)
async def test_arguments_that_python_cannot_read_are_shown_as_they_are(shell, pages, arguments):
    job = put(shell, arguments=arguments, queue="odd", task="odd")
    page = await pages(f"/jobs/{job}")
    assert '"x"' in page.text
    await pages("/jobs?queue=odd")
    shell.finish(job, message="\ud800 and \x00".encode("unicode_escape").decode())
    for path in (f"/jobs/{job}", "/jobs?queue=odd", "/failures", "/"):
        await pages(path)


async def test_an_error_with_a_lone_surrogate_is_shown_as_an_escape(shell, pages):
    error = r'[{"attempt": 1, "kind": "E\ud800", "message": "m\ud800", "traceback": "t\ud800", "worker": "w", "fingerprint": "f"}]'
    job = put(shell, errors=error)
    shell.rows(
        """WITH done AS (DELETE FROM {0}.job WHERE id = %s RETURNING *)
        INSERT INTO {0}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, run_at,
            submitted_at, finished_at, arguments, errors, error_kind, fingerprint)
        SELECT id, task, queue, priority, 'failed', 1, 3, 1, 0, run_at, submitted_at, now(), arguments, errors, 'E', 'f'
        FROM done RETURNING id""",
        job,
    )
    for path in (f"/jobs/{job}", "/jobs", "/failures", "/failure?fingerprint=f"):
        page = await pages(path)
        assert "m\\ud800" in page.html or "hidden" in page.html, path


async def test_of_fifteen_megabytes_sixty_four_kilobytes_are_shown(shell, pages):
    large = json.dumps({"x": "y" * 15_000_000})
    job = put(shell, arguments=large, queue="large")
    page = await pages(f"/jobs/{job}")
    assert len(page.html) < 200_000
    assert "bytes more" in page.text
    page = await pages("/jobs?queue=large")
    assert "large arguments" in page.text
    assert len(page.html) < 50_000
    shell.rows("UPDATE {}.job SET state = 'running', worker = 1, started_at = now() WHERE id = %s RETURNING 1", job)
    assert len((await pages("/")).html) < 50_000


async def test_thousands_of_queues_are_shown_a_page_at_a_time(shell, pages):
    shell.rows(
        """INSERT INTO {}.pause (kind, name, until, paused_at)
        SELECT 'queue', 'q' || to_char(n, 'FM0000'), 'infinity', now() FROM generate_series(1, 1000) AS n RETURNING 1"""
    )
    seen, path = set(), "/queues"
    for _ in range(10):
        page = await pages(path)
        seen |= {link for link in page.links if "queue?name=" in link}
        assert len(page.html) < 400_000
        more = [link for link in page.links if "after=" in link]
        if not more:
            break
        path = "/" + more[0].removeprefix("./")
    assert len(seen) == 1000


async def test_an_address_that_is_no_text_is_answered(pages):
    for path in ("/jobs?queue=%ff%fe", "/task?name=%ed%a0%80", "/jobs?task=%F0%9F", "/jobs?%00=1", "/%ff"):
        page = Pages(pages.app)
        answer = await page.client.get(path)
        assert answer.status_code in (200, 400, 404), path
        await page.client.aclose()


async def test_a_template_never_takes_a_text_for_markup():
    folder = Path(chancy_ops.web.__file__).parent
    templates = list((folder / "templates").rglob("*.html"))
    assert len(templates) > 10
    for file in templates:
        text = file.read_text()
        assert "|safe" not in text.replace(" ", ""), file
        assert "autoescape" not in text, file
    for file in folder.rglob("*.py"):  # markup is made of constants, by `format`, which escapes
        assert "Markup(f" not in file.read_text(), file


@pytest.mark.long
async def test_what_handlers_people_and_producers_have_said_of_a_job_is_a_text_too(shell, pages):
    """Meta, log, tracebacks, steps, schedules, limits, batches, and who has done what."""
    (plain,) = [len(page.all("script")) for page in [await pages("/")]]
    for name in (MARKUP, CONTROLS, "🦆" * 40, "x" * 200):
        job = put(shell, task="said", queue="said")
        shell.run(job, json.dumps({"fraction": 0.1, "note": name}), queues=["said"])
        said = json.dumps(name)
        error = json.dumps(
            [{"attempt": 1, "kind": name, "message": name, "traceback": name, "worker": name, "fingerprint": "f"}]
        )
        shell.rows("UPDATE {}.job SET errors = %s::json, meta = %s::json WHERE id = %s RETURNING 1", error,
                   json.dumps({name[:60]: name}), job)  # fmt: skip
        entry = json.dumps({"level": name, "logger": name, "message": name, "traceback": name})
        shell.rows("INSERT INTO {0}.log (job, attempt, n, at, entry) VALUES (%s, 1, 1, {0}.clock(), %s::json) RETURNING 1",
                   job, entry)  # fmt: skip
        shell.rows("""INSERT INTO {0}.step (job, name, kind, at, attempt, result, kept_at)
            VALUES (%s, %s, 'step', {0}.clock(), 1, %s::json, {0}.clock()) RETURNING 1""", job, name, said)  # fmt: skip
        chancy.schedule(shell.conn, name, shop_tasks.welcome.bind(1), chancy.every(hours=25), schema=shell.schema)
        shell.rows("UPDATE {}.schedule SET note = %s WHERE name = %s RETURNING 1", name, name)
        shell.rows(
            "INSERT INTO {}.slot (gate, n, job, fence) VALUES (%s, 1, %s, 1) RETURNING 1", f"concurrency({name} k=", job
        )
        chancy_ops.note(shell.conn, name, {name: name}, who=name, via=name)
    found = await pages.crawl(most=300)
    assert {place: status for place, status in found.items() if status != 200} == {}
    for place in pages_in(found):
        await text_alone(pages, place, plain)


@pytest.mark.long
async def test_rows_of_odd_shapes_are_shown(shell, pages):
    """A clock that is off by years, memory that nobody has, a graph with a missing need, a worker nobody knows."""
    first, second = put(shell, task="odd"), put(shell, task="odd")
    worker = shell.run(first, queues=[f"q{n}" for n in range(300)], tasks=[f"t{n}" for n in range(300)])
    shell.rows(
        """UPDATE {0}.worker SET clock_ahead = 1e9, memory = 9223372036854775807, memory_of_children = 0,
        memory_at = {0}.clock() + interval '9 years', started_at = {0}.clock() + interval '1 year',
        expires_at = {0}.clock() + interval '900 years' WHERE id = %s RETURNING 1""", worker,
    )  # fmt: skip
    shell.rows("UPDATE {}.job SET state = 'blocked' WHERE id = %s RETURNING 1", second)
    shell.rows("INSERT INTO {}.need (job, needs, kind) VALUES (%s, 987654321, 'a') RETURNING 1", second)
    shell.rows(
        'UPDATE {}.job SET worker = 4711, progress = \'{{"fraction": 7e9, "note": ""}}\' WHERE id = %s RETURNING 1',
        first,
    )
    found = await pages.crawl(most=150)
    assert {place: status for place, status in found.items() if status != 200 and "987654321" not in place} == {}
    assert "blocked" in (await pages(f"/jobs/{second}")).text
    assert "8,796,093,022,208 MiB" in (await pages("/workers")).text
