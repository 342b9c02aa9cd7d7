"""Graphs as users write them: every edge has the type of what goes along it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, assert_type

import psycopg

from chancy import Job, NewJob, Outcome, Unique, current_job, outcome_of, result_of, submit_many, task


@dataclass
class Page:
    text: str


@dataclass
class Rows:
    rows: list[str]


@dataclass
class Stats:
    count: int


@dataclass
class Report:
    title: str


@task
async def fetch(url: str) -> Page:
    return Page(url)


@task
def parse(page: Page, *, strict: bool = True) -> Rows:
    return Rows([page.text])


@task
def count(rows: Rows) -> Stats:
    return Stats(len(rows.rows))


@task
def report(rows: Rows, stats: Stats, title: str = "") -> Report:
    return Report(title)


@task
def merge(parts: list[Rows]) -> Rows:
    return parts[0]


@task
def store(rows: Rows) -> None: ...


@task
async def mail(to: str) -> None: ...


@task
def tell(outcome: Outcome[Report]) -> str:
    if outcome.result is None:
        return outcome.errors[-1].message
    return outcome.result.title


@task
def by_name(parts: dict[str, Rows], whole: Rows | None) -> None: ...


async def diamond(conn: psycopg.AsyncConnection[Any]) -> Report:
    page = fetch.bind("https://…")
    rows = parse.bind(result_of(page), strict=False)
    stats = count.bind(result_of(rows))
    job = await report.submit(conn, result_of(rows), stats=result_of(stats), title="November")
    assert_type(page, NewJob[Page])
    assert_type(job, Job[Report])
    return await job.result(conn)


def one_after_the_other(conn: psycopg.Connection[Any]) -> Job[Report]:
    page = fetch.submit(conn, "https://…")
    rows = parse.submit(conn, page=result_of(page))
    stats = count.submit(conn, result_of(rows))
    stored = store.submit(conn, result_of(rows))
    mail.using(after=[stored, stats, outcome_of(page)], delay=timedelta(days=1)).submit(conn, "ann@example.com")
    return report.submit(conn, result_of(rows), result_of(stats))


@task(unique=Unique(key=lambda day: day))
def nightly(day: date) -> Report:
    parts = [parse.bind(result_of(fetch.bind(url))) for url in ("a", "b")]
    whole = merge.bind([result_of(part) for part in parts])
    return result_of(report.bind(result_of(whole), stats=result_of(count.bind(result_of(whole)))))


@task
async def in_its_own_transaction(urls: list[str]) -> Rows:
    whole = merge.bind([result_of(parse.bind(result_of(fetch.bind(url)))) for url in urls])
    async with await psycopg.AsyncConnection.connect() as conn:
        await current_job().complete(conn, result_of(whole))
    return result_of(whole)


def containers(conn: psycopg.Connection[Any]) -> None:
    rows = parse.bind(result_of(fetch.bind("")))
    by_name.submit(conn, {"a": result_of(rows)}, None)
    by_name.submit(conn, {}, whole=result_of(rows))
    whole = report.bind(result_of(rows), Stats(1))
    tell.submit(conn, outcome_of(whole))
    assert_type(store.bind(result_of(rows)), NewJob[None])
    assert_type(submit_many(conn, [tell.bind(outcome_of(whole))]), list[Job[str]])
