"""Who is there, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """A right. The pages are there for whoever has `LOOK`; what changes anything has a right of its own."""

    LOOK = "look"
    READ = "read"
    """Arguments, results, errors and logs of jobs; and to search in them."""
    AUDIT = "audit"
    """To see who has done what."""
    SUBMIT = "submit"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    EDIT = "edit"
    DELETE = "delete"
    SIGNAL = "signal"
    """To tell a job what it waits for, or have it forget its steps."""
    SWEEP = "sweep"
    """To do to all jobs that fit what one may do to one of them."""
    PAUSE = "pause"
    """Queues and tasks; and to resume them."""
    LIMIT = "limit"
    KEEP = "keep"
    SCHEDULE = "schedule"
    """To have a schedule tick now, pause, resume and end it."""


VIEW = frozenset({Action.LOOK, Action.READ, Action.AUDIT})
"""All that changes nothing."""
OPERATE = frozenset(Action)
"""Everything."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is let in: the name is what an audit shows."""

    name: str
    rights: frozenset[Action] = VIEW

    def may(self, action: Action) -> bool:
        """Whether they have the right to it."""
        return action in self.rights
