"""Tasks that tick. Those that declare it do so once a year, since any worker that knows this module ticks them."""

from __future__ import annotations

from datetime import timedelta

from chancy import Limit, Unique, cron, task

YEARLY = cron("0 0 1 1 *", missed="skip")


@task
async def beat(what: str = "") -> None: ...


@task(schedule=YEARLY)
async def yearly(full: bool = True) -> None: ...


@task(limits=[Limit.concurrency(3, key=lambda tenant: tenant)], unique=Unique(key=lambda tenant: tenant))
async def of_tenant(tenant: str) -> None: ...


def _key(what: str) -> str:
    if what == "bad":
        raise ValueError("no\0key")
    return what


@task(unique=Unique(key=_key, within=timedelta(days=1)))
async def once_a_day(what: str) -> None: ...
