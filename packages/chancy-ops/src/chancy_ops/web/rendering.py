"""Templates, and what a browser gets of them: a page, or when it looks again, what may have changed of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from chancy.options.phrases import one_line, size
from chancy_ops.terminal.times import a_second

from . import shown
from .said import said_of, seen_of
from .shared import AT_MOST

if TYPE_CHECKING:
    from .visit import Visit

HERE = Path(__file__).parent
STATIC = HERE / "static"
LINKS = {
    "overview": "", "jobs": "jobs", "failures": "failures", "queues": "queues", "tasks": "tasks",
    "schedules": "schedules", "limits": "limits", "batches": "batches", "workers": "workers", "doctor": "doctor",
    "audit": "audit",
}  # fmt: skip
"""What every page leads to."""


MOST_ALIKE = 50
SOON = 0.3
"""Seconds until a page that is not finished looks again."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    html: bytes
    etag: str


class Pages:
    """The templates, read once each."""

    def __init__(self) -> None:
        self._jinja = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            finalize=shown.printed, trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        filters: dict[str, Callable[..., Any]] = {
            "age": shown.age, "as_typed": shown.as_typed, "cut": shown.cut, "for_": shown.for_,
            "length": shown.length, "moment": shown.moment, "one_line": one_line, "rate": a_second, "seen": seen_of,
            "size": size,
        }  # fmt: skip
        self._jinja.filters |= filters
        content = b"".join(file.read_bytes() for file in sorted(STATIC.iterdir()))
        self.version = hashlib.sha256(content).hexdigest()[:12]
        """Of script and style: in their addresses, so that a browser may keep them for ever."""
        self._alike: dict[Hashable, tuple[object, _Rendered]] = {}

    def made(self, visit: Visit, template: str, status: int, values: Mapping[str, object]) -> Response:
        """The page for this visit; for a browser that has it as it is, its number alone."""
        return _answer(visit, self._rendered(visit, template, values), status, hurry=bool(values.get("unfinished")))

    def made_once(
        self, visit: Visit, template: str, seen: object, values: Callable[[], Mapping[str, object]]
    ) -> Response:
        """The same of what many have `seen`: it is made once for all who see it alike."""
        alike = (template, _again(visit), visit.root, visit.user, said_of(visit.request.query_params))
        kept = self._alike.get(alike)
        if kept is None or kept[0] is not seen:
            if len(self._alike) >= MOST_ALIKE:
                self._alike.clear()
            kept = self._alike[alike] = (seen, self._rendered(visit, template, values()))
        return _answer(visit, kept[1], 200)

    def _rendered(self, visit: Visit, template: str, values: Mapping[str, object]) -> _Rendered:
        every = min(visit.desk.every, SOON) if values.get("unfinished") else visit.desk.every
        html = self._jinja.get_template(template).render(
            {
                "unfinished": False, **values, **self._of(visit), "again": _again(visit), "acts": f"acts/{template}",
                "every": round(1000 * every),
            }
        )  # fmt: skip
        etag = f'"{hashlib.sha256(shown.without_ages(html).encode("utf-8", "replace")).hexdigest()[:16]}"'
        return _Rendered(html.encode("utf-8", "backslashreplace"), etag)

    def _of(self, visit: Visit) -> dict[str, object]:
        return {
            "did": said_of(visit.request.query_params),
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


def _again(visit: Visit) -> bool:
    """Whether the page looks at itself."""
    return "x-live" in visit.request.headers


def _answer(visit: Visit, rendered: _Rendered, status: int, *, hurry: bool = False) -> Response:
    """With what a page that looks again has to know."""
    took = time.perf_counter() - visit.began
    pace = min(visit.desk.every, SOON) if hurry else max(visit.desk.every, AT_MOST * took)
    headers = {"ETag": rendered.etag, "Vary": "X-Live", "X-Pace": str(round(1000 * pace))}
    if _again(visit) and status == 200 and visit.request.headers.get("if-none-match") == rendered.etag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(rendered.html, status, headers)
