"""The links of one worker: made with what they have in common, and closed together."""

from __future__ import annotations

from collections.abc import Callable

from .link import Link
from .outage import Outage
from .sessions import LentSession, Session


class Links:
    """Makes them. `deadline` is that of one call, in seconds."""

    def __init__(self, conninfo: str | Callable[[], str], schema: str, deadline: float, session: type[Session]) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.is_lent = session is LentSession
        """Whether each transaction may be in another session, as behind a pooler."""
        self._deadline = deadline
        self._session = session
        self._outage = Outage()
        """They speak of one with one voice."""
        self._made: list[Link] = []

    def new(self, purpose: str, lock_timeout: str = "100ms") -> Link:
        """One that is not connected yet."""
        link = Link(
            self.conninfo, self.schema, purpose,
            deadline=self._deadline, lock_timeout=lock_timeout, session=self._session, outage=self._outage,
        )  # fmt: skip
        self._made.append(link)
        return link

    async def close(self) -> None:
        """Close all that are connected."""
        for link in self._made:
            await link.close()
