"""A part: what a worker does beside its rounds, on a connection that it may share with others."""

from __future__ import annotations

import math
from typing import Protocol

from chancy_worker.connection.link import Link
from chancy_worker.connection.turns import NextTurn
from chancy_worker.life.lease import Extension


class Part(Protocol):
    """Each is asked for these, in this order; what a part does not say of itself is nothing, as it stands here.

    `due.now()` and `due.by(at)` give it a turn sooner than its last one has said.
    """

    due: NextTurn

    async def declare(self, link: Link) -> None:
        """Before the worker has its lease, on the connection of its rounds: write down what others have to know.

        What it raises keeps the worker from beginning.
        """
        return

    def heard(self, news: Extension) -> None:
        """What a heartbeat has seen, every few seconds. A part that nobody has a use for asks nothing by itself."""
        return

    async def turn(self, link: Link) -> float:
        """See `connection.turns.Duty`."""
        return math.inf

    async def close(self, link: Link) -> None:
        """The worker stops, and no turn follows: last words, on the connection that most parts share. The lease is
        given up after that. Raises nothing of the database.
        """
        return
