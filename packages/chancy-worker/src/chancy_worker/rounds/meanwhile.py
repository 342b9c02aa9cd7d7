"""What is put off until the rounds wait: by then what they have to say is on its way to the database."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def before_each_wait(work: Coroutine[Any, Any, T], do: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await `work`; `do` is called each time when it is about to wait, and when it is over, however that is.

    Nothing else gets a turn of the loop between what `work` did last and `do`. What `do` raises ends both.
    """
    step: Callable[..., Any] = work.send
    given: object = None
    try:
        while True:
            try:
                waits_for = step(given)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                do()
            try:
                given, step = (yield waits_for), work.send
            except BaseException as error:  # of whoever cancels
                given, step = error, work.throw
    finally:
        work.close()
