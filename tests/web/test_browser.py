"""In a real browser: nothing is reported, nobody is shut out, and what is shown stays right without being in the way.

Chromium of the system; where it is missing these are skipped, unless `CHANCY_REQUIRE_CHROMIUM` is set.
`CHANCY_WRITE_SCREENS=1` writes the pictures of the guide anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest
import pytest_asyncio
import shop_tasks
from act_tasks import greet
from playwright.async_api import async_playwright
from web_help import Server, dashboard, keep_shop, paths

import chancy_ops
from chancy_ops.web import Action, by_token
from chancy_ops.web.routes import Act

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("CHANCY_REQUIRE_CHROMIUM") == "1"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM and not REQUIRED, reason="there is no chromium"),
    pytest.mark.asyncio(loop_scope="module"),  # that of the browser
]

IMAGES = Path(__file__).parents[2] / "docs/images"
AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
SCREENS = {
    "desk": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
SCHEMES = {"desk": ["dark", "light"], "phone": ["light"]}
"""In which colours a page is looked at on each of them: in the first it is loaded, so that both are loaded somewhere."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    """One for all of them, since each start takes a second of processor: a tab of `opened` shares nothing with others."""
    assert CHROMIUM, "install chromium, as .ci/run does"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        await browser.close()


@pytest.fixture
def server(chancy_dsn, chancy_schema):
    with Server(dashboard(chancy_dsn, chancy_schema, every=0.2)) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(browser, said, **mode):
    """A tab; what it reports is added to `said`. No report is what it has asked for, and no more needs on another page."""
    context = await browser.new_context(**mode)
    context.set_default_timeout(120_000)  # a busy machine may need more than the usual half a minute
    page = await context.new_page()
    page.on("console", lambda message: said.append(f"{page.url}: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    page.on(
        "requestfailed",
        lambda request: (
            "/static/" in request.url
            and request.failure != "net::ERR_ABORTED"
            and said.append(f"failed: {request.url}: {request.failure}")
        ),
    )
    try:
        yield page
    finally:
        await context.close()


@pytest.mark.parametrize("screen", SCREENS)
async def test_each_page_is_without_report_and_can_be_used_by_everybody(browser, server, things, screen):
    said: list[str] = []
    async with opened(browser, said, **SCREENS[screen]) as page:
        for path in paths(things):
            await page.goto(server.place + path)
            await is_for_everybody(page, *SCHEMES[screen])
    assert said == []


# Only what is wrong comes back: the whole answer is long, and to carry it here took nearly as long as to find it.
LOOK = """options => axe.run({resultTypes: ["violations"], ...options}).then(
    found => found.violations.map(each => [each.id, each.nodes.map(node => node.html.slice(0, 200))]))"""
# A rule that is off by itself would be on by its tag.
COLOURS = {"runOnly": ["cat.color"], "rules": {"color-contrast-enhanced": {"enabled": False}}}


async def is_for_everybody(page, first, *others):
    """In the colours in which it is loaded, then in others: all that is not about colours is the same there."""
    await page.evaluate(AXE)
    for scheme in (first, *others):
        if others:
            await page.emulate_media(color_scheme=scheme)
        wrong = await page.evaluate(LOOK, {} if scheme == first else COLOURS)
        assert wrong == [], f"{page.url}, {scheme}"
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{page.url}, {scheme}, is wider than the window by {wide} pixels"
    if others:
        await page.emulate_media(color_scheme=first)  # for the next page


DARK = """() => [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
    .filter(rule => rule instanceof CSSMediaRule && rule.conditionText.includes("prefers-color-scheme"))
    .flatMap(rule => [...rule.cssRules].flatMap(each => [...each.style].map(name => [each.selectorText, name])))"""


async def test_what_is_dark_differs_in_colours_alone(browser, server):
    """So what was looked at in the dark has the parts and the places of the light page: only colours are looked at again."""
    async with opened(browser, []) as page:
        await page.goto(server.place)
        told = await page.evaluate(DARK)
    assert told
    assert [each for each in told if each[0] != ":root" or not each[1].startswith("--")] == []


# Found and sent at once: between two calls the page may put another form in the place of the one that was found. And
# not before the call is answered: the page may be gone by then, and its answer with it.
PRESSED = """text => setTimeout(() => {
    const button = [...document.querySelectorAll("main form[method=post] button")].find(each => each.textContent.includes(text));
    button.form.requestSubmit(button);
})"""
TYPED = """([name, typed]) => setTimeout(() => {
    const field = document.querySelector(`[name='${name}']`);
    field.value = typed;
    field.form.noValidate = true;
    field.form.requestSubmit();
})"""
SWEEPING = """
    INSERT INTO {0}.audit (at, who, via, verb, what, fits, changed, skipped, seen_at)
    VALUES ({0}.clock(), 'bob', 'dashboard', 'requeue', '{{"state": "failed", "fingerprint": "5ade1fb7c0d3"}}', 1000, 400, 2,
        {0}.clock() + interval '1 hour') RETURNING id
"""
"""Its process is not taken for lost, however long the pages before it take."""


@pytest.mark.parametrize("screen", SCREENS)
async def test_each_page_on_the_way_to_an_act_is_so_too(browser, server, things, shell, screen):
    """Forms, what is said of what was typed, the number before many are changed, how far that is, and what was done."""
    greeted, ticked = shell.submit(greet.bind("ann"), greet.bind("bob"))
    shell.finish(ticked)
    ((sweeping,),) = shell.rows(SWEEPING)
    said: list[str] = []
    async with opened(browser, said, **SCREENS[screen]) as page:
        for path in (
            "/task/submit?name=acts.pack", f"/jobs/{greeted}/again", "/sweep?verb=requeue&state=failed",
            "/sweep?verb=requeue&state=failed&queue=none", f"/sweep?id={sweeping}",
            f"/sweep?ticked=1&verb=requeue&job={ticked}:failed:1&job={greeted}:failed:1&job={2**40}:failed:1",
            "/audit", "/audit?who=nobody", "/queue?name=default&did=paused",
        ):  # fmt: skip
            await page.goto(server.place + path)
            await is_for_everybody(page, *SCHEMES[screen])
        assert said == []

        for path, buttons in {
            "/queue?name=default": ["Pause", "Resume"],
            f"/jobs/{greeted}": ["Cancel", "Requeue"],
            "/sweep?verb=requeue&state=failed": ["Requeue 2 jobs"],
            f"/sweep?id={sweeping}": ["Stop"],
        }.items():
            await page.goto(server.place + path)
            for button in buttons:
                async with page.expect_navigation():
                    await page.evaluate(PRESSED, button)
                await is_for_everybody(page, *SCHEMES[screen])
        assert said == []

        for path, wrong in {
            "/task/submit?name=acts.pack": {"argument-years": "7"},
            f"/jobs/{greeted}": {"priority": "1000"},
        }.items():
            await page.goto(server.place + path)
            for name, typed in wrong.items():
                async with page.expect_navigation() as seen:
                    await page.evaluate(TYPED, [name, typed])
                assert (await seen.value).status == 400
            await is_for_everybody(page, *SCHEMES[screen])
        for path in ("/jobs/99999999", "/nowhere", "/sweep?verb=requeue"):
            await page.goto(server.place + path)
            await is_for_everybody(page, *SCHEMES[screen])
    assert [
        each for each in said if "Failed to load resource: the server responded with a status of 40" not in each
    ] == []


async def test_without_a_script_each_page_says_the_same_and_what_is_asked_is_answered(browser, server, things, shell):
    said: list[str] = []
    async with opened(browser, said) as with_script, opened(browser, said, java_script_enabled=False) as without:
        for path in paths(things):
            await with_script.goto(server.place + path)
            await without.goto(server.place + path)
            texts = [await page.locator("main").inner_text() for page in (with_script, without)]
            words = [[word for word in text.split() if not any(c.isdigit() for c in word)] for text in texts]
            assert words[0] == words[1], path
        await without.goto(server.place + "/jobs")
        await without.select_option("select[name=state]", "failed")
        await without.click("form.filter button")
        assert "state=failed" in without.url
        assert await without.locator("tbody tr").count() == 1
        await without.click(f"text='{things.failed.id}'")
        assert f"Job {things.failed.id}" in await without.locator("h1").inner_text()
    assert said == []


async def test_what_changes_is_seen_by_itself_until_it_is_to_hold_still(browser, server, shell):
    said: list[str] = []
    async with opened(browser, said) as page:
        await page.goto(server.place + "/jobs?queue=mail")
        (first,) = shell.submit(shop_tasks.welcome.bind(1))
        await page.locator("tbody a", has_text=str(first)).first.wait_for()
        assert await page.locator("#fresh").inner_text() != ""
        asked, let_go = asyncio.Event(), asyncio.Event()

        async def slowly(route):
            asked.set()
            await let_go.wait()
            await route.continue_()

        await page.route("**/jobs?queue=mail", slowly)
        await asked.wait()  # a look is on its way, which will find the second job
        await page.click("#hold")
        assert await page.get_attribute("#hold", "aria-pressed") == "true"
        (second,) = shell.submit(shop_tasks.welcome.bind(2))
        let_go.set()
        await page.wait_for_timeout(700)  # several looks, if there were any
        assert await page.locator("tbody a", has_text=str(second)).count() == 0
        await page.click("#hold")
        await page.locator("tbody a", has_text=str(second)).first.wait_for()
    assert said == []


async def test_nothing_is_replaced_under_a_selection_and_focus_stays_where_it_is(browser, server, shell):
    said: list[str] = []
    (first,) = shell.submit(shop_tasks.welcome.bind(1))
    async with opened(browser, said) as page:
        await page.goto(server.place + "/jobs?queue=mail")
        link = f"tbody a[href='./jobs/{first}']"
        await page.focus(link)
        (second,) = shell.submit(shop_tasks.welcome.bind(2))
        await page.locator("tbody a", has_text=str(second)).first.wait_for()
        assert await page.evaluate("document.activeElement.getAttribute('href')") == f"./jobs/{first}"
        await page.evaluate("getSelection().selectAllChildren(document.querySelector('tbody tr th'))")
        looks = []
        page.on("response", lambda answer: looks.append(answer.status))
        async with page.expect_response(lambda answer: answer.status == 200):  # once: then nothing is new
            (third,) = shell.submit(shop_tasks.welcome.bind(3))
        await page.wait_for_timeout(300)
        assert await page.locator("tbody a", has_text=str(third)).count() == 0
        assert looks
        await page.evaluate("getSelection().removeAllRanges()")
        shell.submit(shop_tasks.welcome.bind(4))
        await page.locator("tbody a", has_text=str(third)).first.wait_for()
    assert said == []


async def test_the_progress_of_a_job_moves_and_its_end_is_seen(browser, server, shell):
    (job,) = shell.submit(shop_tasks.welcome.bind(1))
    shell.run(job, '{"fraction": 0.25, "note": "a quarter"}')
    async with opened(browser, []) as page:
        await page.goto(f"{server.place}/jobs/{job}")
        await page.get_by_text("25% a quarter").wait_for()
        shell.rows('UPDATE {}.job SET progress = \'{{"fraction": 0.5, "note": "half"}}\' RETURNING 1')
        await page.get_by_text("50% half").wait_for()
        shell.rows("UPDATE {}.job SET state = 'ready', worker = NULL RETURNING 1")
        shell.finish(job, state="succeeded")
        await page.locator("h1 .s-succeeded").wait_for()


async def test_a_server_that_has_gone_is_said_and_ends_while_pages_are_open(browser, server, shell):
    async with opened(browser, []) as page, opened(browser, []) as other:
        await page.goto(server.place)
        await other.goto(server.place + "/jobs")
        server.stop()
        await page.get_by_text("cannot be reached").wait_for()


async def test_the_first_stop_of_the_keyboard_leads_to_the_content(browser, server):
    async with opened(browser, []) as page:
        await page.goto(server.place)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "To the content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"


async def test_a_double_click_submits_one_job_and_who_comes_back_may_submit_another(browser, server, shell):
    said: list[str] = []
    async with opened(browser, said) as page:
        await page.goto(server.place + "/task/submit?name=acts.greet")
        for jobs in (1, 2):
            await page.fill("[name='argument-name']", "ann")
            await page.locator("main form[method=post] button").first.dblclick(delay=30, no_wait_after=True)
            await page.wait_for_url("**/jobs/*")
            assert shell.rows("SELECT count(*) FROM {}.job") == [(jobs,)]
            await page.go_back()
    assert said == []


EVIL = """<!doctype html><title>evil</title>
<form method=post action="{place}/test/pause"><input name=queue value=mail></form><script>
const tried = async (...how) => {{ try {{ await fetch(...how) }} catch {{}} }};
(async () => {{
  await tried("{place}/test/pause", {{method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({{queue: "mail"}})}});
  document.forms[0].submit();
}})();
</script>"""


async def test_a_form_is_about_the_name_that_it_was_made_for_whatever_characters_are_in_it(browser, server, shell):
    names = ["a\x1b[31mb", "a\x85b", "a\u200db", "a\nb", "\u202ex", " a "]
    async with opened(browser, []) as page:
        for name in names:
            await page.goto(f"{server.place}/queue?{urlencode({'name': name})}")
            await page.locator("summary", has_text="Pause").click()
            await page.get_by_role("button", name="Pause queue").click()
            await page.get_by_text("nobody knows this name").wait_for()
    assert {name for (name,) in shell.rows("SELECT name FROM {}.pause")} == set(names)


async def test_another_site_can_neither_post_nor_frame_nor_read(browser, shell, chancy_dsn, chancy_schema, monkeypatch):
    from chancy_ops.web import app

    async def pause(visit, conn):
        await chancy_ops.pause(conn, visit.posted()["queue"], schema=visit.schema)
        return visit.go("queues")

    monkeypatch.setattr(app, "ACTS", {"/test/pause": Act(Action.PAUSE, pause)})
    made = dashboard(chancy_dsn, chancy_schema, auth=by_token("secret-token"), hosts={"127.0.0.1"})
    with Server(made) as server, serving(EVIL.format(place=server.place)) as evil:
        async with opened(browser, []) as page:
            await page.goto(f"{server.place}/?token=secret-token")
            await page.locator("h1", has_text="Overview").wait_for()
            assert "token" not in page.url
            async with page.expect_navigation(url=f"{server.place}/test/pause") as seen:
                await page.goto(evil)
            answer = await seen.value
            assert answer.status == 403
            assert "Sec-Fetch-Site" in await answer.text()
            assert shell.rows("SELECT name FROM {}.pause") == []
            # Its own page may.
            await page.goto(f"{server.place}/queues")
            await page.evaluate(
                """() => { const form = document.createElement("form"); form.method = "post"; form.action = "test/pause";
                const field = document.createElement("input"); field.name = "queue"; field.value = "mail";
                form.append(field); document.body.append(form); form.submit(); }"""
            )
            await page.locator("h1", has_text="Queues").wait_for()
            await page.get_by_text("paused").first.wait_for()
            assert shell.rows("SELECT name FROM {}.pause") == [("mail",)]


async def test_a_name_that_another_server_gives_our_address_sees_nothing(browser, chancy_dsn, chancy_schema):
    """DNS rebinding: the page of evil.example is at our address now, and its scripts may read what they fetch there."""
    made = dashboard(chancy_dsn, chancy_schema, hosts={"127.0.0.1", "localhost"})
    with Server(made) as server:
        async with async_playwright() as playwright:
            rebound = await playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
            )
            page = await rebound.new_page()
            answer = await page.goto(f"http://evil.example:{server.port}/jobs")
            assert answer.status == 421
            assert await page.locator("main").count() == 0
            await rebound.close()


@contextlib.contextmanager
def serving(html: str):
    """A site of somebody else's, on another host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = html.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


PICTURES = {"overview": "/", "job": "/jobs/{failed}", "waiting": "/jobs/{waiting}"}


async def test_the_pictures_of_the_guide_are_of_these_pages(browser, server, shell, tmp_path):
    ids = keep_shop(shell, shop_tasks)
    folder = IMAGES if os.environ.get("CHANCY_WRITE_SCREENS") else tmp_path
    folder.mkdir(exist_ok=True)
    async with opened(browser, [], **SCREENS["desk"]) as page:
        for name, path in PICTURES.items():
            await page.goto(server.place + path.format(**ids))
            await page.evaluate("document.querySelector('.who').textContent = 'schema chancy · ann'")
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                await page.screenshot(path=folder / f"dashboard-{name}-{scheme}.png")
    assert {file.name for file in folder.glob("dashboard-*.png")} == {
        file.name for file in IMAGES.glob("dashboard-*.png")
    }
