"""Claims in this worker's name that no answer has brought: by a round whose answer was lost, they go back.

The heartbeat finds them, and a claim that could not be read. While a round is on its way, what it claims is not among
the held yet: it is looked for once more when the answer is there.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from chancy.states import State
from chancy_worker.attempts.verdict import Completion

from .holdings import Holdings, Key
from .leases import Leases
from .outbox import Outbox

log = logging.getLogger("chancy.worker")

NAMED = 10
"""So many are named in the log."""


class Unheard:
    """What was seen of them."""

    def __init__(self, holdings: Holdings, leases: Leases, outbox: Outbox) -> None:
        self._holdings = holdings
        self._leases = leases
        self._outbox = outbox
        self.asking = False
        """A round is on its way."""
        self._unmatched: list[Key] = []
        """Seen while a round was on its way."""

    def seen(self, claims: Collection[Key], lease: int) -> None:
        """These are not among the held, and this worker's lease is this."""
        if self.asking:
            self._unmatched.extend(claims)
        elif claims:
            ids = sorted(id_ for id_, _ in claims)
            named = ", ".join(map(str, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
            log.warning("giving back %d jobs, claimed by a round whose answer was lost: %s", len(ids), named)
            for claim in claims:
                self.give_back(claim, lease)

    def heard(self, lease: int) -> None:
        """What the round has claimed is held by now."""
        unmatched, self._unmatched = self._unmatched, []
        self.seen([claim for claim in unmatched if claim not in self._holdings.jobs], lease)

    def give_back(self, claim: Key, lease: int) -> None:
        """Send it back, unharmed."""
        self._leases.heard_of(claim, lease)
        id_, fence = claim
        self._outbox.add(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))
