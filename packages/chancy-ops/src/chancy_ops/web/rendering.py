"""Templates, and what a browser gets of them: a page, or when it looks again, what may have changed of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from chancy.options.phrases import one_line
from chancy_ops.terminal.times import a_second

from . import shown
from .shared import AT_MOST

if TYPE_CHECKING:
    from .visit import Visit

HERE = Path(__file__).parent
STATIC = HERE / "static"
LINKS = {
    "overview": "", "jobs": "jobs", "failures": "failures", "queues": "queues", "tasks": "tasks",
    "schedules": "schedules", "limits": "limits", "batches": "batches", "workers": "workers", "doctor": "doctor",
}  # fmt: skip
"""What every page leads to."""


class Pages:
    """The templates, read once each."""

    def __init__(self) -> None:
        self._jinja = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            finalize=shown.printed, trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        filters: dict[str, Callable[..., Any]] = {
            "age": shown.age, "cut": shown.cut, "for_": shown.for_, "length": shown.length, "moment": shown.moment,
            "one_line": one_line, "rate": a_second,
        }  # fmt: skip
        self._jinja.filters |= filters
        content = b"".join(file.read_bytes() for file in sorted(STATIC.iterdir()))
        self.version = hashlib.sha256(content).hexdigest()[:12]
        """Of script and style: in their addresses, so that a browser may keep them for ever."""

    def made(self, visit: Visit, template: str, status: int, values: Mapping[str, object]) -> Response:
        """The page for this visit; for a browser that has it as it is, its number alone."""
        again = "x-live" in visit.request.headers
        html = self._jinja.get_template(template).render(
            {**values, **self._of(visit), "again": again, "acts": f"acts/{template}"}
        )
        etag = f'"{hashlib.sha256(shown.without_ages(html).encode("utf-8", "replace")).hexdigest()[:16]}"'
        took = time.perf_counter() - visit.began
        headers = {
            "ETag": etag,
            "Vary": "X-Live",
            "X-Pace": str(round(1000 * max(visit.desk.every, AT_MOST * took))),
        }
        if again and status == 200 and visit.request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(html.encode("utf-8", "backslashreplace"), status, headers)

    def _of(self, visit: Visit) -> dict[str, object]:
        return {
            "every": round(1000 * visit.desk.every),
            "links": LINKS,
            "may": visit.may,
            "read_only": visit.desk.connections.read_only,
            "root": visit.root,
            "schema": visit.schema,
            "to": visit.to,
            "user": visit.user,
            "version": self.version,
            "visit": visit,
        }
