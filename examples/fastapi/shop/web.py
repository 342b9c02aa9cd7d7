"""The web program, with its worker: `uvicorn shop.web:web`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import create_async_engine

import chancy
from chancy import Chancy, InvalidArguments, UnknownJob
from chancy_worker import Worker, WorkerConfig
from fastapi import FastAPI, HTTPException, Request

from . import tasks
from .database import URL, Order, Session, connected


@contextlib.asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    """The worker ends before the engine that its jobs use: what is entered last is left first."""
    async with connected(create_async_engine(URL)):
        async with Worker(Chancy(URL), WorkerConfig(grace=10)).running():
            yield


web = FastAPI(lifespan=lifespan)


@web.exception_handler(InvalidArguments)
async def refused(request: Request, error: InvalidArguments) -> JSONResponse:
    """Arguments that came from the client and do not fit the task: a 422 as FastAPI's own."""
    place = ["body", error.argument] if error.argument else ["body"]
    return JSONResponse({"detail": [{"type": "invalid_arguments", "loc": place, "msg": error.reason}]}, 422)


class NewOrder(BaseModel):
    """What a customer says."""

    article: str = Field(min_length=1, max_length=80)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")


class Placed(BaseModel):
    """What a customer hears."""

    order: int
    job: int


@web.post("/orders", status_code=201)
async def place(given: NewOrder, session: Session) -> Placed:
    """Add the order and the job that confirms it: one transaction."""
    order = Order(article=given.article, email=given.email)
    session.add(order)
    await session.flush()  # for its id
    job = await tasks.confirm.submit(session, tasks.Placed(order=order.id, email=order.email))
    if given.article == "nothing":
        raise HTTPException(409, "there is nothing to send")  # neither the order nor its job is there then
    return Placed(order=order.id, job=job.id)


class Wish(BaseModel):
    """A report that somebody wants, and how."""

    period: tasks.Period
    options: dict[str, Any] = {}


@web.post("/reports", status_code=202)
async def wish(given: Wish, session: Session) -> dict[str, int]:
    """The task knows what it takes: an option that there is not is refused by its name, before anything is sent."""
    job = await tasks.report.submit(session, given.period, **given.options)
    return {"job": job.id}


@web.get("/jobs/{job}")
async def look(job: int, session: Session) -> dict[str, Any]:
    """How far a job is, and its result."""
    try:
        row = await chancy.get(session, job)
    except UnknownJob:
        raise HTTPException(404) from None
    return {"state": row.state, "result": row.result and row.result.decode()}
