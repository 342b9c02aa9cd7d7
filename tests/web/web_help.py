"""Dashboards as tests open them: by their addresses, in this process, on real Postgres."""

from __future__ import annotations

import socket
import threading
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import uvicorn

import chancy_ops
from chancy.tally.tally import bucket_of
from chancy_ops.web import OPERATE, Dashboard, User

ANN = User("ann", OPERATE)
HOST = "http://127.0.0.1:8610"
BY_PAGE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser adds to what a page of ours posts."""


def dashboard(dsn, schema, *, auth=lambda request: ANN, **more):
    return Dashboard(dsn, auth=auth, schema=schema, **more)


class Page(HTMLParser):
    """An answer, read as a browser would: its text, its links, and what is only there in a script."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.status = answer.status_code
        self.html = answer.text
        self.text = ""
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._silent = 0
        self.feed(self.html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag in ("a", "span", "strong", "code", "time") else " "
        self.links += [value for name, value in attrs if name in ("href", "src", "action") and value]
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for each, attrs in self.tags if each == tag]

    def places(self) -> set[str]:
        """Where its links lead, on this host."""
        here = str(self.answer.url)
        return {urljoin(here, link.partition("#")[0]) for link in self.links if not link.startswith("#")}


class Pages:
    """Opens pages of an application."""

    def __init__(self, app, prefix: str = "", host: str = HOST) -> None:
        self.app, self.prefix = app, prefix
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=host)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()

    async def __call__(self, path: str, status: int = 200, **more) -> Page:
        page = Page(await self.client.get(f"{self.prefix}{path}", **more))
        assert page.status == status, f"{path}: {page.status}\n{page.html[:2000]}"
        return page

    async def post(self, path: str, data=None, headers=None) -> Page:
        return Page(await self.client.post(f"{self.prefix}{path}", data=data or {}, headers=headers or {}))

    async def crawl(self, start: str = "/", most: int = 400) -> dict[str, int]:
        """Every page that is reached from there, with its status; links to elsewhere are left alone."""
        seen: dict[str, int] = {}
        ahead = [urljoin(str(self.client.base_url), self.prefix + start)]
        while ahead and len(seen) < most:
            place = ahead.pop(0)
            if place in seen:
                continue
            page = Page(await self.client.get(place))
            seen[place] = page.status
            host = urlsplit(str(self.client.base_url)).netloc
            ahead += sorted(each for each in page.places() if urlsplit(each).netloc == host and each not in seen)
        return seen


def paths(things) -> list[str]:
    """Every page, of what `every_verb.fill` has put there."""
    return [
        "/", "/jobs", "/jobs?state=failed", f"/jobs/{things.failed.id}", f"/jobs/{things.running.id}",
        f"/jobs/{things.waiting.id}", "/failures", "/failure?fingerprint=5ade1fb7c0d3", "/queues", "/queue?name=default",
        "/tasks", "/task?name=every_verb.count", "/schedules", "/limits", "/batches", f"/batch?id={things.batch}",
        "/workers", "/doctor",
    ]  # fmt: skip


class Server:
    """A dashboard at a port of its own, in a thread, as uvicorn serves it."""

    def __init__(self, app) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.place = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        """Returns when it has ended."""
        self._server.should_exit = True
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


SHOP = {
    "shop.welcome": (7_902, 199, 0.009, 0.015), "shop.thumbnail": (2_903, 69, 0.006, 0.340),
    "shop.push_contact": (1_888, 551, 0.005, 0.700), "shop.charge_card": (945, 22, 0.005, 1.900),
}  # fmt: skip
"""Tasks, how many came out and failed in an hour, and how long they waited and ran."""


def keep_shop(shell, tasks) -> dict[str, int]:
    """A shop's evening, for pictures: what has come out in the last hour, what waits, what runs, what has failed."""
    for name, (ended, failed, wait, run) in SHOP.items():
        for minute in range(1, 60):
            for outcome, number in (("failed", failed), ("succeeded", ended - failed)):
                share = number // 59 + (7 if outcome == "failed" and 20 < minute < 30 else minute % 5)
                shell.rows(
                    """INSERT INTO {0}.tally_minute VALUES (date_trunc('minute', {0}.clock(), 'UTC') - %s * interval '1 min',
                    'default', %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING 1""",
                    minute, name, outcome, share, share * wait, share * run,
                    [bucket_of(wait)], [share], [bucket_of(run)], [share],
                )  # fmt: skip
    jobs = shell.submit(*[tasks.welcome.bind(n) for n in range(40)])
    failed = shell.submit(*[tasks.welcome.bind(n, greeting="hello") for n in range(7)])
    shell.finish(
        *failed[:5],
        kind="ConnectTimeout",
        message="mail.example.com:587 did not answer in 5 s",
        fingerprint="6f0c2ab1d9e4",
    )
    shell.finish(*failed[5:], kind="KeyError", message="'email'", fingerprint="90bc11d27fa0")
    shell.run(
        jobs[0],
        '{"fraction": 0.4, "note": "12 of 30 letters"}',
        queues=["mail", "default"],
        tasks=["shop_tasks.welcome", *SHOP],
    )
    chancy_ops.pause(shell.conn, "images")
    chancy_ops.limit(shell.conn, "mail", concurrency=20)
    return {"running": jobs[0], "waiting": jobs[9], "failed": failed[0]}
