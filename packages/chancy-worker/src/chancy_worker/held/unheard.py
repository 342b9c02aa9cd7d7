"""Claims in this worker's name that no answer has brought: by a round whose answer was lost, they go back.

The heartbeat finds them, and a claim that could not be read. While a round is on its way, what it claims is not among
the held yet: it is looked for once more when the answer is there.
"""

from __future__ import annotations

import logging

from chancy.states import State
from chancy_worker.attempts.verdict import Completion

from .holdings import Holdings, Key
from .leases import Leases
from .outbox import Outbox

log = logging.getLogger("chancy.worker")


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

    def seen(self, claim: Key, lease: int) -> None:
        """This one is not among the held, and this worker's lease is this."""
        if self.asking:
            self._unmatched.append(claim)
            return
        log.warning("job %d was claimed by a round whose answer was lost; giving it back", claim[0])
        self.give_back(claim, lease)

    def heard(self, lease: int) -> None:
        """What the round has claimed is held by now."""
        unmatched, self._unmatched = self._unmatched, []
        for claim in unmatched:
            if claim not in self._holdings.jobs:
                self.seen(claim, lease)

    def give_back(self, claim: Key, lease: int) -> None:
        """Send it back, unharmed."""
        self._leases.heard_of(claim, lease)
        id_, fence = claim
        self._outbox.add(Completion(id_, fence, State.READY, refund=True, note="claimed unheard"))
