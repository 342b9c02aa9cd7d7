"""Under any prefix, in any application, behind any proxy: every link of every page answers."""

from __future__ import annotations

import asyncio
import contextlib
import warnings

import pytest
from django.conf import UserSettingsHolder, global_settings, settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount
from web_help import Pages

from fastapi import FastAPI


@pytest.fixture(autouse=True)
def a_project_of_django():
    """As long as a test lasts: other tests in this process have other settings, or none."""
    project = UserSettingsHolder(global_settings)
    project.ROOT_URLCONF = (path("shop/", lambda request: HttpResponse("the shop")),)
    project.ALLOWED_HOSTS = ["*"]
    project.SECRET_KEY = "of tests"
    before = vars(settings)["_wrapped"]
    settings._wrapped = project
    yield
    settings._wrapped = before


def in_starlette(dashboard, prefix):
    return Starlette(routes=[Mount(prefix, dashboard)])


def in_fastapi(dashboard, prefix):
    app = FastAPI()
    app.mount(prefix, dashboard)
    return app


def in_fastapi_with_a_root_path(dashboard, prefix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions want the server to say it
        app = FastAPI(root_path="/outer")
    app.mount(prefix, dashboard)
    return app


def beside_django(dashboard, prefix):
    return Starlette(routes=[Mount(prefix, dashboard), Mount("/", ASGIHandler())])


def behind_a_proxy_that_strips_the_prefix(dashboard, prefix):
    async def proxy(scope, receive, send):
        if scope["type"] == "http" and not scope["path"].startswith(prefix + "/"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            return await send({"type": "http.response.body", "body": b""})
        stripped = scope["path"].removeprefix(prefix)
        return await dashboard(scope | {"path": stripped, "raw_path": stripped.encode()}, receive, send)

    return proxy


MOUNTS = [
    (in_starlette, "/queue"), (in_starlette, "/ops/queue"), (in_starlette, "/o ps"), (in_starlette, "/jobs"),
    (in_fastapi, "/queue"), (in_fastapi_with_a_root_path, "/queue"), (beside_django, "/ops/queue"),
    (behind_a_proxy_that_strips_the_prefix, "/ops/queue"),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("mounted", "prefix"), MOUNTS)
async def test_every_link_of_every_page_answers(open_dashboard, things, mounted, prefix):
    app = mounted(open_dashboard(), prefix)
    async with Pages(app, prefix.replace(" ", "%20")) as pages:
        found = await pages.crawl()
    assert {place: status for place, status in found.items() if status != 200} == {}
    within = [place for place in found if f"{pages.prefix}/" in place]
    assert len(within) == len(found) > 30
    assert any("/static/look.css" in place for place in found)
    assert any(f"/jobs/{things.failed.id}" in place for place in found)


async def test_beside_django_its_own_pages_are_there(open_dashboard):
    async with Pages(beside_django(open_dashboard(), "/queue")) as pages:
        assert (await pages("/shop/")).text == "the shop"


async def test_the_mount_without_its_slash_leads_to_the_overview(open_dashboard):
    async def bare(scope, receive, send):
        await open_dashboard()({**scope, "root_path": "/ops/queue"}, receive, send)

    async with Pages(bare) as pages:
        page = await pages("/ops/queue", 307)
        assert page.answer.headers["location"] == "queue/"  # relative, whatever is in front


async def test_alone_it_takes_its_lifespan_and_closes_what_it_has_opened(open_dashboard, sessions):
    dashboard = open_dashboard()
    told: asyncio.Queue = asyncio.Queue()
    said: list[str] = []

    async def send(message):
        said.append(message["type"])

    life = asyncio.create_task(dashboard({"type": "lifespan", "asgi": {"version": "3.0"}}, told.get, send))
    await told.put({"type": "lifespan.startup"})
    async with Pages(dashboard) as pages:
        await pages("/jobs")
    assert sessions() in (1, 2)  # two where it looks for two things at once
    await told.put({"type": "lifespan.shutdown"})
    await life
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    async with asyncio.timeout(10):
        while sessions():
            await asyncio.sleep(0.01)


async def test_a_websocket_is_closed(open_dashboard):
    said: list[dict] = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        said.append(message)

    with contextlib.suppress(Exception):
        await open_dashboard()({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in said] == ["websocket.close"]
