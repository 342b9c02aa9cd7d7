"""What a job says too often."""

from __future__ import annotations

import threading
import time

import pytest

from chancy_worker.child import telling
from chancy_worker.child.telling import APART_SECONDS, Lately

pytestmark = pytest.mark.any_postgres


def test_who_speaks_in_a_tight_loop_is_heard_now_and_then_and_with_the_last_word():
    said, heard = [], threading.Event()

    def say(word):
        said.append((time.monotonic(), word))
        if word == 20_000:
            heard.set()

    lately = Lately(say)
    for word in range(20_001):
        lately.tell(word)
    assert heard.wait(10)
    words = [word for _, word in said]
    assert words == sorted(words)
    assert words[0] == 0
    assert len(words) <= 2 + (said[-1][0] - said[0][0]) / APART_SECONDS


def test_what_waits_when_the_job_is_over_is_not_said(monkeypatch):
    said = []
    lately = Lately(said.append)
    monkeypatch.setattr(telling, "APART_SECONDS", 600)  # however long it takes to say these
    lately.tell("first")
    lately.tell("second")
    lately.forget()
    monkeypatch.setattr(telling, "APART_SECONDS", 0)
    with lately._changed:  # as if the time of what waits had come
        lately._changed.notify()
    time.sleep(0.1)
    assert said == ["first"]
    lately.tell("of the next job")
    assert said == ["first", "of the next job"]


def test_nothing_is_said_behind_the_end_whatever_is_on_its_way():
    said, going, go = [], threading.Event(), threading.Event()

    def say(word):
        if said:
            going.set()
            go.wait(10)
        said.append(word)

    lately = Lately(say)
    lately.tell("first")
    lately.tell("second")
    assert going.wait(10)
    over = threading.Thread(target=lambda: (lately.forget(), said.append("verdict")))
    over.start()
    go.set()
    over.join(10)
    assert said == ["first", "second", "verdict"]
