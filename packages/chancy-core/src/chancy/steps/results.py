"""The results of steps: JSON, by the annotation of the function, with the same checks as a task's own result."""

from __future__ import annotations

import functools
import inspect
import typing
from typing import Any

from chancy.arguments.codec import Signature, signature_of
from chancy.arguments.words import too_large
from chancy.errors import InvalidOption, InvalidResult, InvalidTask
from chancy.options.plain import shown

from .values import MAX_RESULT_BYTES


class Result:
    """How the result of one step is written and read."""

    def __init__(self, step: str, signature: Signature) -> None:
        self._step = step
        """The task and the name, for errors."""
        self._signature = signature

    def encode(self, value: Any) -> bytes:
        """Its JSON. Raises `InvalidResult` for what could not be read back as annotated, or is too large."""
        try:
            payload = self._signature.encode_result(value)
        except InvalidResult as error:
            raise InvalidResult(self._step, error.reason) from None
        if len(payload) > MAX_RESULT_BYTES:
            raise InvalidResult(self._step, too_large(len(payload), MAX_RESULT_BYTES))
        return payload

    def decode(self, payload: bytes) -> Any:
        """Raises `InvalidResult` where it was kept as something else."""
        try:
            return self._signature.decode_result(payload)
        except InvalidResult as error:
            raise InvalidResult(
                self._step,
                f"{error.reason}; it was kept by other code: give the step another name, or annotate it as both",
            ) from None


def of_function(step: str, function: object) -> Result:
    """By what the function says that it returns. Raises `InvalidOption` where it does not say that, or what cannot be
    carried.
    """
    if not callable(function):
        raise InvalidOption("function", f"expected a function, got {shown(function)}")
    called = getattr(function, "function", function)  # of a task
    while isinstance(called, functools.partial):
        called = called.func
    called = inspect.unwrap(called)
    if not (inspect.isfunction(called) or inspect.ismethod(called)):
        called = getattr(type(called), "__call__", called)  # noqa: B004 (its annotations are wanted)
    try:
        hints = typing.get_type_hints(called, include_extras=True)
    except Exception as error:
        raise InvalidOption("function", f"the annotations of {shown(function)} cannot be resolved: {error}") from None
    if "return" not in hints:
        raise InvalidOption(
            "function",
            f"{shown(function)} does not say what it returns: annotate it (`-> int`, `-> None`), since that is how its "
            f"result is read back in the next attempt; a lambda cannot be a step",
        )
    return of_type(step, hints["return"], "function")


def of_type(step: str, kind: object, option: str = "type") -> Result:
    """Of values of this type. Raises `InvalidOption` for one that cannot be carried."""
    try:
        return Result(step, _cached(kind))
    except TypeError:  # not hashable
        return Result(step, _signature(kind))
    except InvalidTask as error:
        raise InvalidOption(option, error.reason) from None


def _signature(kind: object) -> Signature:
    """As of a function without arguments."""

    def gives() -> Any: ...

    gives.__annotations__ = {"return": kind}
    return signature_of(gives, "step")


_cached = functools.lru_cache(1_000)(_signature)
