"""Who is let in, from where, and what a browser is told."""

from __future__ import annotations

import asyncio

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from starlette.responses import RedirectResponse
from web_help import ANN, BY_PAGE, HOST, Page, Pages, paths

import chancy
import chancy_ops
from chancy.errors import InvalidOption
from chancy_ops.web import OPERATE, VIEW, Action, Dashboard, User, by_header, by_token
from chancy_ops.web import routes as web_routes
from chancy_ops.web import visit as web_visit
from chancy_ops.web.access.borders import HEADERS, LOOPBACK, refused_origin
from chancy_ops.web.routes import Act


async def pause_it(visit, conn):
    fields = visit.posted()
    await chancy_ops.pause(conn, fields["queue"], schema=visit.schema)
    return visit.go("queue", name=fields["queue"])


@pytest.fixture
def acts(monkeypatch):
    """An act, as any of them is."""
    from chancy_ops.web import app

    acts = {"/test/pause": Act(Action.PAUSE, pause_it)}
    monkeypatch.setattr(web_routes, "ACTS", acts)
    monkeypatch.setattr(app, "ACTS", acts)


def test_a_dashboard_without_a_door_is_not_made():
    with pytest.raises(TypeError, match="auth"):
        Dashboard("")
    with pytest.raises(InvalidOption, match="auth: expected a function"):
        Dashboard("", auth=None)


async def test_nobody_sees_nothing(open_dashboard, things):
    async with Pages(open_dashboard(auth=lambda request: None)) as pages:
        for path in [*paths(things), "/nothing"]:
            page = await pages(path, 401)
            assert "every_verb" not in page.html
        assert (await pages("/healthz")).html == ""


async def test_a_door_may_be_async_and_may_send_to_a_login(open_dashboard):
    async def door(request):
        return ANN if "x-ann" in request.headers else RedirectResponse("/login")

    async with Pages(open_dashboard(auth=door)) as pages:
        assert (await pages("/", 307)).answer.headers["location"] == "/login"
        assert "ann" in (await pages("/", headers={"X-Ann": "1"})).text


async def test_who_has_no_right_to_look_does_not(open_dashboard):
    async with Pages(open_dashboard(auth=lambda request: User("bob", frozenset()))) as pages:
        assert "bob may not look" in (await pages("/", 403)).text


async def test_every_answer_has_the_headers_that_keep_a_browser_from_harm(pages, open_dashboard):
    answers = [
        await pages("/"), await pages("/nothing", 404), await pages("/healthz"), await pages("/static/live.js"),
        await pages("/jobs?state=lost", 400), await pages.post("/"), await pages.post("/", headers=BY_PAGE),
    ]  # fmt: skip
    async with Pages(open_dashboard(auth=lambda request: None, hosts=LOOPBACK)) as others:
        answers += [await others("/", 401), await others("/", 421, headers={"Host": "evil.example"})]
        for page in answers:
            for name, value in HEADERS.items():
                if name != "Cache-Control":
                    assert page.answer.headers[name] == value, (page.answer.url, name)
    assert {page.answer.headers["cache-control"] for page in answers} == {
        "no-store", "public, max-age=31536000, immutable"
    }  # fmt: skip


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8610", "127.0.0.1.evil.example", "", "localhost.", "@localhost"]
)
async def test_a_name_that_somebody_else_gives_our_address_is_not_answered(open_dashboard, host):
    async with Pages(open_dashboard(hosts=LOOPBACK)) as pages:
        page = await pages("/", 421, headers={"Host": host})
        assert "not called by this name" in page.html
        await pages("/static/live.js", 421, headers={"Host": host})
        for known in ("127.0.0.1:8610", "localhost", "LOCALHOST:1", "[::1]:8610"):
            await pages("/", headers={"Host": known})


SITES = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),  # no page can set the first
    ({"Origin": HOST}, True),
    ({"Origin": HOST.upper()}, True),
    ({}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "none"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": HOST}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": f"http://evil.example/{HOST}"}, False),
    ({"Referer": f"{HOST}/"}, False),
]


@pytest.mark.parametrize(("said", "heard"), SITES)
async def test_what_another_site_posts_is_refused_before_anybody_is_asked(acts, open_dashboard, shell, said, heard):
    asked = []

    def door(request):
        asked.append(request)
        return ANN

    async with Pages(open_dashboard(auth=door)) as pages:
        page = await pages.post("/test/pause", {"queue": "mail"}, said)
    assert page.status == (303 if heard else 403)
    assert bool(asked) == heard
    assert bool(shell.rows("SELECT name FROM {}.pause")) == heard
    assert (refused_origin({"host": "127.0.0.1:8610"} | {k.lower(): v for k, v in said.items()}) is None) == heard


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_there_are_no_other_methods(pages, method):
    answer = await pages.client.request(method, "/", headers=BY_PAGE)
    assert answer.status_code == 405


async def test_to_ask_for_the_head_of_an_act_does_nothing_and_of_a_page_answers_without_it(acts, pages, shell):
    for headers in ({}, BY_PAGE):
        answer = await pages.client.request("HEAD", "/test/pause?queue=mail", headers=headers)
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers
    assert (await pages.client.request("HEAD", "/jobs")).status_code == 200
    assert shell.rows("SELECT name FROM {}.pause") == []


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%2e%2e%2fapp.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..%5capp.py", "/static/live.js%00", "/static/",
        "/static/.", "/static/live.js/..", "/static/templates/base.html", "/static/%00",
    ],
)  # fmt: skip
async def test_nothing_but_script_and_style_is_served_as_a_file(pages, path):
    answer = await pages.client.get(path)
    assert answer.status_code in (307, 400, 401, 404, 405), path
    for said in ("import ", "root:", "{% ", "DOCTYPE"):
        assert said not in answer.text


async def test_behind_the_way_to_a_file_is_no_way_past_the_door(open_dashboard, things):
    async with Pages(open_dashboard(auth=lambda request: None)) as pages:
        for path in ("/static/../jobs", "/static/%2e%2e/jobs", "/static/..%2fjobs", "/healthz/../jobs", "/healthz/"):
            answer = await pages.client.get(path)
            assert answer.status_code in (401, 404), path
            assert "every_verb" not in answer.text


@pytest.mark.parametrize("host", ["[", "a b", "[::1", "::", "x" * 5000, "evil.example/..", '"><script>', "h:99999999"])
async def test_a_host_that_is_none_is_no_error_of_ours(pages, host):
    for path, status in (("/", 200), ("/nothing", 404), ("/jobs?state=lost", 400)):
        page = await pages(path, status, headers={"Host": host})
        assert "<script>" not in page.html


class Slow:
    """Somebody who has begun to post a form, and goes on when the gate is open."""

    def __init__(self, app, path, first=b"queue=", rest=b"mail"):
        self.gate, self.begun, self.said = asyncio.Event(), asyncio.Event(), []
        self.parts = [first, rest]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "scheme": "http", "server": ("127.0.0.1", 8610), "root_path": "", "http_version": "1.1",
            "headers": [(b"host", b"127.0.0.1:8610"), (b"sec-fetch-site", b"same-origin")],
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self.receive, self.send))

    async def receive(self):
        if len(self.parts) == 1:
            self.begun.set()
            await self.gate.wait()
        if not self.parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.parts.pop(0), "more_body": bool(self.parts)}

    async def send(self, message):
        self.said.append(message)

    @property
    def status(self):
        return self.said[0]["status"]


async def test_forms_that_come_slowly_keep_nobody_from_a_page_or_an_act(acts, open_dashboard, shell):
    dashboard = open_dashboard()
    slow = [Slow(dashboard, "/test/pause") for _ in range(20)]
    for each in slow:
        await each.begun.wait()
    async with Pages(dashboard) as pages:
        await pages("/workers")
        assert (await pages.post("/test/pause", {"queue": "other"}, BY_PAGE)).status == 303
    for each in slow:
        each.gate.set()
        await each.task
    assert {each.status for each in slow} == {303}
    assert shell.rows("SELECT name FROM {}.pause ORDER BY name") == [("mail",), ("other",)]


async def test_a_form_that_never_comes_whole_is_refused_and_changes_nothing(acts, open_dashboard, shell, monkeypatch):
    monkeypatch.setattr(web_visit, "SLOWEST_FORM", 0.05)
    slow = Slow(open_dashboard(), "/test/pause", first=b"queue=mail")
    await slow.task
    assert slow.status == 408
    cut = Slow(open_dashboard(), "/test/pause", first=b"queue=mail")
    cut.parts = []
    await cut.task
    assert cut.status == 400
    assert shell.rows("SELECT name FROM {}.pause") == []


async def test_a_form_of_too_many_fields_or_of_no_text_is_told_so(acts, pages, shell):
    page = await pages.post("/test/pause", {f"f{n}": "" for n in range(10_001)}, BY_PAGE)
    assert (page.status, "more than 10,000 fields" in page.text) == (400, True)
    for data in (b"queue=%00", b"queue=a%00b", b"queue=&\xff\xfe=\x00&%&=&;;"):
        assert (await pages.client.post("/test/pause", content=data, headers=BY_PAGE)).status_code == 400, data
    assert shell.rows("SELECT name FROM {}.pause") == []


async def test_an_act_is_done_in_its_own_transaction_and_leads_to_a_page(acts, pages, shell):
    page = await pages.post("/test/pause", {"queue": "ma il"}, BY_PAGE)
    assert (page.status, page.answer.headers["location"]) == (303, "../queue?name=ma+il")
    assert shell.rows("SELECT name FROM {}.pause") == [("ma il",)]
    page = await pages.post("/test/pause", {"queue": ""}, BY_PAGE)
    assert page.status == 400
    assert "Sorry" in page.text
    assert len(shell.rows("SELECT name FROM {}.pause")) == 1
    assert (await pages.post("/test/pause", {"queue": "x" * 2_000_000}, BY_PAGE)).status == 400
    await pages("/test/pause", 405)


async def test_who_has_no_right_to_an_act_cannot_do_it(acts, open_dashboard, shell):
    for rights in (VIEW, OPERATE - {Action.PAUSE}):
        async with Pages(open_dashboard(auth=lambda request, rights=rights: User("bob", rights))) as pages:
            page = await pages.post("/test/pause", {"queue": "mail"}, BY_PAGE)
            assert page.status == 403
            assert "bob has no right to pause" in page.text
    assert shell.rows("SELECT name FROM {}.pause") == []


async def test_in_a_dashboard_that_is_read_only_postgres_refuses_an_act(acts, open_dashboard, shell, things):
    async with Pages(open_dashboard(read_only=True)) as pages:
        page = await pages.post("/test/pause", {"queue": "mail"}, BY_PAGE)
        assert page.status == 403
        assert "read-only: nothing was changed" in page.text
        for path in paths(things):
            assert not (await pages(path)).all("button")[2:], path  # but those that ask, and that hold still
    assert [name for (name,) in shell.rows("SELECT name FROM {}.pause")] == ["café \\ {"]


async def test_a_page_cannot_write_whatever_it_says(open_dashboard, shell):
    connections = open_dashboard()._desk.connections
    async with connections.looking() as conn:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await chancy_ops.pause(conn, "mail", schema=shell.schema)
    async with connections.looking() as conn:  # and the next one is as new
        assert await chancy_ops.queues(conn, schema=shell.schema) == []


async def test_a_role_that_may_only_look_sees_every_page_and_changes_nothing(
    acts, open_dashboard, shell, things, chancy_dsn
):
    role = f"viewer_{shell.schema}"[:60]
    shell.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        shell.conn.execute(chancy.grants({"viewer": role}, schema=shell.schema))
        async with Pages(open_dashboard(dsn=make_conninfo(chancy_dsn, user=role))) as pages:
            for path in paths(things):
                await pages(path)
            page = await pages.post("/test/pause", {"queue": "mail"}, BY_PAGE)
            assert page.status == 403
            assert "chancy grants" in page.text
    finally:
        shell.conn.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(role)))
        shell.conn.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(role)))


async def test_to_a_role_that_may_not_look_it_is_said_once_what_it_lacks(open_dashboard, shell, chancy_dsn):
    role = f"producer_{shell.schema}"[:60]
    shell.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        shell.conn.execute(chancy.grants({"producer": role}, schema=shell.schema))
        async with Pages(open_dashboard(dsn=make_conninfo(chancy_dsn, user=role))) as pages:
            page = await pages("/", 403)
        assert f"role {role} may not look at this (permission denied for" in page.text
        assert f"`chancy grants --schema {shell.schema} --viewer {role}`" in page.text
        assert "Go to the overview" not in page.text
        assert "<nav" not in page.text
    finally:
        shell.conn.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(role)))
        shell.conn.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(role)))


async def test_a_link_with_a_token_is_exchanged_for_a_cookie_that_no_script_and_no_other_site_has(open_dashboard):
    async with Pages(open_dashboard(auth=by_token("secret-token", name="ann"))) as pages:
        await pages("/", 401)
        await pages("/?token=secret-tokem", 401)
        await pages("/?token=%00%F0", 401)
        page = await pages("/?token=secret-token")
        cookie = page.answer.headers["set-cookie"]
        assert "secret-token" not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "token" not in page.html
        assert "ann" in (await pages("/jobs")).text  # the client has kept it
        pages.client.cookies.clear()
        await pages("/", 401)
        for name in list(page.answer.cookies):
            await pages("/", 401, headers={"Cookie": f"{name}=secret-token"})


async def test_the_cookie_is_for_the_mount_alone(open_dashboard):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/ops/queue", open_dashboard(auth=by_token("secret-token")))])
    async with Pages(app, "/ops/queue") as pages:
        page = await pages("/?token=secret-token")
        assert "Path=/ops/queue" in page.answer.headers["set-cookie"].split("; ")


async def test_a_proxy_says_who_comes_and_proves_that_it_is_the_proxy(open_dashboard):
    with pytest.raises(InvalidOption, match="16 characters"):
        by_header("X-User", secret="short")
    door = by_header("X-User", secret="s" * 20, rights=lambda name: OPERATE if name == "ann" else VIEW)
    async with Pages(open_dashboard(auth=door)) as pages:
        await pages("/", 401)
        await pages("/", 401, headers={"X-User": "ann"})
        await pages("/", 401, headers={"X-User": "ann", "X-Chancy-Secret": "t" * 20})
        await pages("/", 401, headers={"X-Chancy-Secret": "s" * 20})
        proof = ("X-Chancy-Secret", "s" * 20)
        await pages("/", 401, headers=[("X-User", "ann"), ("X-User", "bob"), proof])  # the browser's, and the proxy's
        assert "ann" in (await pages("/", headers=[("X-User", "ann"), proof])).text


async def test_an_error_that_nobody_has_thought_of_says_nothing_of_itself(open_dashboard, monkeypatch):
    async def broken(*args, **more):
        raise RuntimeError("the secret is XYZZY")

    monkeypatch.setattr(chancy_ops, "workers", broken)
    transport = httpx.ASGITransport(app=open_dashboard(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        page = Page(await client.get("/workers"))
    assert page.status == 500
    assert "Sorry" in page.text
    assert "XYZZY" not in page.html
