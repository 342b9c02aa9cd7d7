"""Who hears SIGTERM and Ctrl-C, for how long, and what is there afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from chancy_worker.life import signals
from chancy_worker.life.signals import NUMBERS, Asked, shared, taken

pytestmark = pytest.mark.any_postgres


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0)  # the interpreter looks between two instructions


@pytest.fixture(autouse=True)
def _as_before():
    before = handlers()
    yield
    assert handlers() == before


@pytest.fixture
def plain():
    """As in a program that has done nothing about it."""
    before = handlers()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("take", [taken, shared])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_heard_within_the_block_and_the_handler_of_before_is_put_back(take, number):
    heard = []
    with take(lambda: heard.append(True)):
        send(number)
        assert heard == [True]
    assert handlers() == [signal.SIG_DFL, signal.default_int_handler]


def test_what_a_program_handles_itself_stays_its_own_and_a_command_takes_it_for_a_while():
    mine, others = [], []
    before = signal.signal(signal.SIGTERM, lambda *_: others.append(True))
    try:
        with shared(lambda: mine.append(True)):
            send()
        assert (mine, others) == ([], [True])
        with taken(lambda: mine.append(True)):
            send()
        assert (mine, others) == ([True], [True])
        send()
        assert (mine, others) == ([True], [True, True])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("take", [taken, shared])
def test_a_handler_that_somebody_has_put_in_its_place_stays(take):
    def theirs(*_):
        pass

    with take(lambda: None):
        signal.signal(signal.SIGTERM, theirs)
    assert handlers() == [theirs, signal.default_int_handler]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.usefixtures("plain")
def test_those_who_share_hear_together_until_the_last_has_gone():
    heard = []
    first, second = shared(lambda: heard.append("first")), shared(lambda: heard.append("second"))
    with first:
        second.__enter__()
        send()
    assert heard == ["first", "second"]
    send()
    assert heard == ["first", "second", "second"]
    second.__exit__(None, None, None)
    assert handlers() == [signal.SIG_DFL, signal.default_int_handler]


@pytest.mark.usefixtures("plain")
def test_within_a_block_who_shares_hears_alone():
    heard = []
    with taken(lambda: heard.append("outer")):
        with shared(lambda: heard.append("inner")):
            send()
        send()
    assert heard == ["inner", "outer"]


@pytest.mark.usefixtures("plain")
def test_ctrl_c_is_taken_from_asyncio_run_and_given_back():
    async def main():
        before = handlers()
        heard = []
        with shared(lambda: heard.append(True)):
            send(signal.SIGINT)
        await asyncio.sleep(0)
        assert (heard, handlers()) == ([True], before)
        return before

    (_, interrupt) = asyncio.run(main())
    assert interrupt is not signal.default_int_handler


@pytest.mark.usefixtures("plain")
def test_who_has_not_begun_ends_at_once_and_what_came_to_nothing_is_told_to_who_begins():
    heard = []
    with taken(signals.end_at_once):
        with pytest.raises(Asked):
            send()
        with taken(lambda: heard.append(True)):
            assert heard == [True]
            send()
    assert heard == [True, True]


def test_in_another_thread_nothing_is_taken():
    before, seen = handlers(), []

    def work():
        with taken(lambda: None), shared(lambda: None):
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("number", NUMBERS)
def test_a_forked_process_ends_by_a_signal_as_if_nobody_had_taken_it_and_nobody_else_hears(number):
    heard = []
    with taken(lambda: heard.append(True)):
        ready, write = os.pipe()
        if (pid := os.fork()) == 0:
            os.write(write, b".")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, number)
        os.close(ready)
        os.close(write)
    assert heard == []


@pytest.mark.usefixtures("plain")
def test_a_loop_that_is_closed_is_asked_nothing():
    loop = asyncio.new_event_loop()
    loop.close()
    with taken(signals.asking(loop, lambda: None)):
        send()
