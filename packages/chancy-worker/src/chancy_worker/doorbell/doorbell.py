"""The doorbell, both sides of it: a worker's place in line, and its ear. `polling.Poll` is the other way to hear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from psycopg import Notify

from chancy.model import Statement
from chancy_worker.connection.link import Link

from .bell import Bell
from .ear import Ear
from .hearing import Hearing
from .wakeups import Rounds

ASKED_TO_STOP = "SELECT id FROM {schema}.job WHERE worker = %(worker)s::bigint AND cancel_at IS NOT NULL"


def asked_to_stop(worker: int) -> Statement[list[int]]:
    """The jobs that run in this worker's name and that somebody has cancelled."""
    return Statement(ASKED_TO_STOP, {"worker": worker}, lambda rows: [id_ for (id_,) in rows])


class Leased(Protocol):
    """The lease."""

    @property
    def id(self) -> int:
        """Under which the worker claims now."""


class Cancels(Protocol):
    """The slots."""

    def cancel(self, ids: Iterable[int]) -> None:
        """Stop these jobs."""


class Doorbell:
    """Listens on `link`, that of the rounds, and waits in line on another one: a blocked session hears nothing."""

    def __init__(
        self, link: Link, own: Link, queues: Sequence[str], *, alike: object, lease: Leased, slots: Cancels
    ) -> None:
        """`alike` is equal for workers that know the same tasks."""
        self._link = link
        self._lease = lease
        self._slots = slots
        self._ear = Ear(link.schema, queues)
        self._bell = Bell(own, self._ear, queues, alike)
        self._hearing = Hearing(link, self._bell.due.recovery, self._ear)
        link.on_connect, link.on_notify = self._ear.listen, self.heard

    def wakes(self, rounds: Rounds) -> None:
        """See `Wakeups`, here and below."""
        self._bell.rounds = rounds

    def idle(self, queues: Iterable[str]) -> None:
        """Stand in line for them."""
        self._bell.idle(queues)

    def busy(self, queues: Iterable[str]) -> None:
        """Leave their line, or soon."""
        self._bell.busy(queues)

    def offers(self, without: frozenset[str]) -> None:
        """Who lacks other tasks stands in another line."""
        self._bell.offers(without)

    def leaves_it_to_others(self, queue: str) -> bool:
        """Those before it in line look."""
        return self._bell.is_behind(queue)

    def stop(self) -> None:
        """Leave all lines."""
        self._bell.stop()

    async def serve(self) -> None:
        """Take the keys and give them back, for ever."""
        await self._bell.serve()

    async def test(self, link: Link) -> None:
        """See `Hearing`."""
        await self._hearing.test(link)

    @property
    def problem(self) -> str | None:
        """See `Hearing`."""
        return self._hearing.problem

    def heard(self, notify: Notify) -> None:
        """What somebody has said, whoever that is."""
        if self._hearing.heard(notify):
            return
        if (job := self._ear.cancelled(notify, self._lease.id)) is not None:
            self._slots.cancel([job])
        elif queues := self._ear.rung(notify):
            self._bell.heard(queues)

    async def attend(self) -> None:
        """Of what was rung before it listened it may not have heard; of what was cancelled it asks."""
        begun = await self._ear.attend(self._link)
        if self._ear.bell in begun:
            self._bell.listening()
        if self._ear.stops in begun:
            self._slots.cancel(await self._link.send(asked_to_stop(self._lease.id)))
