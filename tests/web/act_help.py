"""Forms as people find them on a page, and press."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from web_help import BY_PAGE, Page
from worker_help import FAST, at_work

import chancy_ops
from chancy import Chancy, Queue
from chancy.registry import registered
from chancy_worker import Worker, WorkerConfig


@dataclass
class Form:
    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    label: str = ""


class Forms(HTMLParser):
    """The forms of a page, with what is in their fields when nobody touches them."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._name = self._into = ""
        self._option: str | None = None
        self.feed(page.html)

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        if tag == "form":
            self._form = Form(said.get("method", "get"), said["action"])
            self.forms.append(self._form)
        if self._form is None:
            return
        if tag == "input" and "form" not in said and said.get("name"):
            if said.get("type") not in ("checkbox", "radio") or "checked" in said:
                self._form.fields[said["name"]] = said.get("value") or ""
        elif tag == "textarea":
            self._into, self._form.fields[said["name"]] = said["name"], ""
        elif tag == "select":
            self._name = said["name"]
        elif tag == "option" and self._name:
            value = said.get("value")
            if "selected" in said or self._name not in self._form.fields:
                self._form.fields[self._name] = value or ""
        elif tag == "button":
            self._into = " button"

    def handle_data(self, data):
        if self._form is not None and self._into == " button":
            self._form.label += data
        elif self._form is not None and self._into:
            self._form.fields[self._into] += data

    def handle_endtag(self, tag):
        if tag == "form":
            self._form = None
        elif tag == "textarea" and self._form is not None:
            self._form.fields[self._into] = self._form.fields[self._into].removeprefix("\n")
            self._into = ""
        elif tag in ("button", "select"):
            self._into = self._name = ""


def forms_of(page: Page) -> dict[str, Form]:
    """What is posted, by where to."""
    here = str(page.answer.url)
    return {
        urlsplit(urljoin(here, form.action)).path: form for form in Forms(page).forms if form.method.lower() == "post"
    }


async def press(pages, path: str, act: str, headers=BY_PAGE, **typed) -> Page:
    """Open the page, fill in the form that leads to `act`, and press its button."""
    forms = forms_of(await pages(path))
    assert pages.prefix + act in forms, f"{path} has no form for {act}, but {list(forms)}"
    return await pages.post(act, forms[pages.prefix + act].fields | typed, headers)


def leads_to(page: Page) -> str:
    """Where a browser goes from there, below the host."""
    assert page.status == 303, f"{page.status}\n{page.text[:1000]}"
    place = urlsplit(urljoin(str(page.answer.url), page.answer.headers["location"]))
    assert place.netloc == urlsplit(str(page.answer.url)).netloc
    return place.path + (f"?{place.query}" if place.query else "")


@contextlib.asynccontextmanager
async def working(dsn: str, schema: str, *tasks, queues=("default", "mail")):
    """A worker for these tasks, for as long as the block lasts."""
    app = Chancy(dsn, schema=schema, queues=[Queue(name=name) for name in queues])
    names = {task.name for task in tasks}
    worker = Worker(app, WorkerConfig(timing=FAST, grace=1))
    worker._tasks = {name: known for name, known in registered().items() if known.name in names}
    async with at_work(worker):
        yield worker


async def eventually(condition, within=20.0):
    async with asyncio.timeout(within):
        while not (value := condition()):
            await asyncio.sleep(0.02)
    return value


def acts(shell):
    """What is noted, the oldest first."""
    rows = chancy_ops.audit(shell.conn, schema=shell.schema)
    assert {(row.who, row.via) for row in rows} <= {("ann", "dashboard")}
    return [(row.verb, dict(row.what), row.changed) for row in reversed(rows)]
