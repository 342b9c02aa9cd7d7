"""A job by a form that is made of its task's signature, and one that was there once more, with changes."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy
from chancy import NewJob, SubmitOutcome
from chancy.registry import registered
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops.forms.fields import AnyTask, fields_of
from chancy_ops.forms.reading import OPTION, OPTIONS, read, typed_again, typed_before
from chancy_ops.web.access.users import Action
from chancy_ops.web.visit import Visit

from .doing import noted, text_of

ARGUMENT = "argument-"
"""How the fields of arguments are called: one may be called anything."""


def known(name: str) -> AnyTask:
    """The task of this name. Raises `HTTPException` 404 that says how its code would come here."""
    task = registered().get(name)
    if task is None:
        raise HTTPException(
            400,
            f"The code of task {name[:200]} is not here, so nobody knows its arguments: start the dashboard with the "
            f"module that has it, as in `chancy dashboard myapp.tasks`.",
        )
    return task


async def submit_form(visit: Visit) -> Response:
    """Empty, but for what the task takes where nothing is typed."""
    task = known(visit.request.query_params.get("name", ""))
    return form_page(visit, task, {field.name: field.default or "" for field in fields_of(task)}, {}, {})


async def again_form(visit: Visit) -> Response:
    """As the job had it."""
    if not visit.may(Action.READ):
        raise HTTPException(403, f"{visit.user.name} may not see arguments, and so not submit them again.")
    async with visit.looking() as conn:
        row = await chancy.get(conn, int(visit.request.path_params["id"]), schema=visit.schema)
    if row.needs:
        raise HTTPException(409, f"Job {row.id} had results of other jobs as its arguments: requeue it instead.")
    task = known(row.task)
    options = {"queue": row.queue, "priority": str(row.priority)}
    empty = {field.name: field.default or "" for field in fields_of(task)}
    return form_page(visit, task, empty | typed_again(task, row.arguments), options, {}, again=row.id)


def form_page(
    visit: Visit,
    task: AnyTask,
    typed: Mapping[str, str],
    options: Mapping[str, str],
    wrong: Mapping[str, str],
    *,
    again: int | None = None,
) -> Response:
    """The form, with what was typed and what is wrong with it."""
    return visit.page(
        "submit.html", status=400 if wrong else 200, task=task, fields=fields_of(task), options=OPTIONS,
        typed=typed, chosen=options, wrong=wrong, argument=ARGUMENT, option=OPTION, again_of=again,
        own=task.options,
    )  # fmt: skip


async def submit(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """The job that is meant; or the form again, with a word beside each field that is wrong."""
    form = visit.posted()
    task = known(text_of(form, "task"))
    typed = {name.removeprefix(ARGUMENT): text for name, text in form.items() if name.startswith(ARGUMENT)}
    options = {field.name: form.get(OPTION + field.name, "") for field in OPTIONS}
    new = read(task, typed, options)
    if not isinstance(new, NewJob):
        return form_page(visit, task, typed_before(task, typed), options, new)
    (job,) = await chancy.submit_many(conn, [new], schema=visit.schema)
    if job.outcome is SubmitOutcome.EXISTING:
        return visit.go(f"jobs/{job.id}", did="existing")
    await noted(visit, conn, "submit", job=job.id, task=job.task)
    return visit.go(f"jobs/{job.id}", did="submitted")
