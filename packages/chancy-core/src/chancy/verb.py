"""`@verb`: what can be asked on the caller's connection, written once for sync and async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast, overload

from typing_extensions import ParamSpec

from .model import Statement, Steps
from .run import perform
from .schema import schema_in_use
from .wires.connections import AsyncConn, SyncConn

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Verb(Protocol[P, T_co]):
    """A function that takes the caller's connection first: at once the answer on a sync one, awaited on an async one.

    On an async one, too, what is wrong with the arguments is raised at the call, and nothing is sent before the await.
    """

    @overload
    def __call__(self, conn: SyncConn, /, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, conn: AsyncConn, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...


def verb(plan: Callable[P, Statement[T] | Steps[T]]) -> Verb[P, T]:
    """The verb that sends what `plan` makes of the other arguments.

    One of these is `schema`, by its name: it comes to the plan as the schema in use. A plan that checks what it is
    given is no generator itself, and returns one: a generator would not look at its arguments before the await.
    """
    planned: Callable[..., Statement[T] | Steps[T]] = plan

    @functools.wraps(plan)
    def ask(conn: SyncConn | AsyncConn, /, *args: Any, **options: Any) -> Any:
        where = options["schema"] = schema_in_use(options.get("schema"))
        return perform(conn, planned(*args, **options), where)

    _show_the_connection(ask, plan)
    return cast("Verb[P, T]", ask)


def _show_the_connection(ask: Callable[..., Any], plan: Callable[..., Any]) -> None:
    """For `help` and for whoever reads signatures."""
    own = inspect.signature(plan)
    answer = own.return_annotation.partition("[")[2].removesuffix("]")  # of Statement[…] or Steps[…]
    conn = inspect.Parameter("conn", inspect.Parameter.POSITIONAL_ONLY, annotation="SyncConn | AsyncConn")
    shown = inspect.Signature(
        [conn, *own.parameters.values()], return_annotation=f"{answer} | Coroutine[Any, Any, {answer}]"
    )
    ask.__signature__ = shown  # type: ignore[attr-defined]
    ask.__annotations__ = {each.name: each.annotation for each in shown.parameters.values()}
    ask.__annotations__["return"] = shown.return_annotation
