"""What threads say of their progress while it is being written down."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg
import pytest

from chancy.model import Progress
from chancy_worker.parts import reports

FIRST, NEWER = Progress(0.1), Progress(0.9)


class Words(dict):
    """As if a thread said something at each step of whoever takes what was said."""

    said = False

    def _speak(self):
        if not self.said:
            self.said = True
            self["claim"] = NEWER

    def popitem(self):
        taken = super().popitem()
        self._speak()
        return taken

    def clear(self):
        self._speak()
        super().clear()


@pytest.fixture
def written(monkeypatch):
    batches = []
    monkeypatch.setattr(reports, "write_down", lambda batch: batches.append(dict(batch)))
    return batches


async def test_a_word_that_is_said_while_others_are_taken_is_written_then_or_the_next_time(written):
    async def send(statement):
        pass

    told = Words(claim=FIRST)
    await reports._write_progress(SimpleNamespace(send=send), told)
    await reports._write_progress(SimpleNamespace(send=send), told)
    assert written[-1] == {"claim": NEWER}
    assert told == {}


async def test_a_word_that_could_not_be_written_is_kept_unless_there_is_a_newer_one(written):
    async def send(statement):
        raise psycopg.OperationalError

    told = Words(claim=FIRST, other=FIRST)
    with pytest.raises(psycopg.OperationalError):
        await reports._write_progress(SimpleNamespace(send=send), told)
    assert told == {"claim": NEWER, "other": FIRST}
