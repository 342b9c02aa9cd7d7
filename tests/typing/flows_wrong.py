"""Graphs that are wrong: each marked line is an error to the checkers that it names, and no other line is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from chancy import outcome_of, result_of, task


@dataclass
class Page:
    text: str


@dataclass
class Rows:
    rows: list[str]


@task
async def fetch(url: str) -> Page:
    return Page(url)


@task
def parse(page: Page) -> Rows:
    return Rows([page.text])


@task
def merge(parts: list[Rows]) -> Rows:
    return parts[0]


def wrong(conn: psycopg.Connection[Any]) -> None:
    page = fetch.bind("")
    rows = parse.bind(result_of(page))
    parse.bind(result_of(rows))  # E mypy ty pyright
    parse.bind(page)  # E mypy ty pyright
    parse.bind(page=result_of(rows))  # E mypy ty pyright
    merge.bind([result_of(page)])  # E mypy ty pyright
    parse.submit(conn, result_of(fetch))  # E mypy ty pyright
    parse.bind(outcome_of(page))  # E mypy ty pyright
    job = fetch.submit(conn, "")
    parse.submit(conn, job.result)  # E mypy ty pyright
    merge.submit(conn, [job])  # E mypy ty pyright


@task
def dynamic(url: str) -> Rows:
    return result_of(fetch.bind(url))  # E mypy ty pyright


def forgotten(conn: psycopg.AsyncConnection[Any]) -> None:
    job = fetch.submit(conn, "")
    parse.bind(result_of(job))  # E mypy ty pyright
