"""Every snippet of Python on every page runs, or another test runs it."""

from __future__ import annotations

import sys
import types

import psycopg
import pytest
from given import ELSEWHERE, GIVEN, Given
from snippets import ROOT, run, snippets

from chancy_testing import eager

PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    if snippets(path, "python")
}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
async def test_the_snippets_of_a_page_run(page, request, tmp_path, monkeypatch):
    given = GIVEN.get(page, Given())
    monkeypatch.setattr(sys.modules["chancy.registry"], "tasks", {})  # none of other pages
    monkeypatch.chdir(tmp_path)
    if given.database:
        dsn, _ = request.getfixturevalue("chancy_dsn"), request.getfixturevalue("chancy_schema")
        monkeypatch.setenv("CHANCY_DSN", dsn)
        async with await psycopg.AsyncConnection.connect(dsn) as aconn:
            with psycopg.connect(dsn) as conn:
                await all_of(page, given, conn=conn, aconn=aconn, dsn=dsn)
                conn.rollback()
            await aconn.rollback()
    else:
        with eager(raise_errors=False) as backend:
            await all_of(page, given, conn=backend.conn, aconn=backend.aconn)


async def all_of(page, given, **connections):
    module = types.ModuleType("page")
    names = module.__dict__
    names |= connections
    names |= given.names(names)
    for snippet in snippets(PAGES[page], "python"):
        given_async = given.asynchronous or snippet.above == "<!-- async -->"
        names["conn"] = connections["aconn" if given_async else "conn"]
        with given.around(snippet, names):
            await run(snippet, module)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_that_is_run_elsewhere_is_named_there(page):
    test = ROOT / ELSEWHERE[page]
    assert page.rpartition("/")[2] in test.read_text(encoding="utf-8")


def test_every_page_that_something_is_said_of_has_code():
    assert GIVEN.keys() | ELSEWHERE.keys() <= PAGES.keys()
    assert not GIVEN.keys() & ELSEWHERE.keys()
