"""The seam between a worker's rounds and how they hear of work: the doorbell, or looking by the clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from chancy_worker.attempts.verdict import Claimed
from chancy_worker.connection.link import Link


class Rounds(Protocol):
    """Who is woken: the claimer."""

    @property
    def held(self) -> dict[tuple[int, int], Claimed]:
        """The jobs that this worker has, the newest last."""

    def wake(self, queues: Collection[str]) -> None:
        """There may be work in these queues."""

    def has_room(self, queue: str) -> bool:
        """Whether more jobs of this queue could begin here."""


class Wakeups(Protocol):
    """Who wakes: `doorbell.Doorbell` or `polling.Poll`. A wakeup may be lost, and carries no data."""

    @property
    def problem(self) -> str | None:
        """Why jobs begin late, if so."""

    def wakes(self, rounds: Rounds) -> None:
        """These, from now on; before that nobody."""

    def idle(self, queues: Iterable[str]) -> None:
        """From now on, be heard of there."""

    def busy(self, queues: Iterable[str]) -> None:
        """There is work in these queues: soon, cost nobody anything there."""

    def offers(self, without: frozenset[str]) -> None:
        """Which tasks this worker cannot take for now."""

    def leaves_it_to_others(self, queue: str) -> bool:
        """Whether others look there for this worker, too, when a job falls due."""

    async def attend(self) -> None:
        """Between two rounds, on their connection: listen to what is to be heard now. Raises psycopg's errors."""

    async def test(self, link: Link) -> None:
        """See, over this other link, whether it hears. To be asked with each heartbeat."""

    def stop(self) -> None:
        """Nothing is claimed from now on: leave what is to be heard to others."""

    async def serve(self) -> None:
        """Wake, for ever."""
