"""The tasks of these tests, where a worker in a process of its own finds them without importing the stacks."""

from __future__ import annotations

from chancy import task


@task(name="stacks.twice")
def twice(n: int) -> int:
    return 2 * n


@task(name="stacks.plain")
def plain(number: int) -> int:
    return number


@task(name="stacks.word")
def word(text: str, n: int = 0) -> str:
    return text


@task(name="stacks.add")
def add(n: int, more: int = 0) -> int:
    return n + more


@task(name="stacks.bounced")
def bounced(n: int) -> None: ...


@task(name="stacks.half", max_attempts=1)
def half(n: int) -> int:
    return n // (n % 2 == 0)
