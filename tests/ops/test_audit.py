"""Who did what is written in the transaction in which it was done."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

import chancy
import chancy_ops
from chancy import State
from chancy.run import perform
from chancy_ops import JobFilter, Swept
from chancy_ops.terminal.person import person
from chancy_worker.parts.retention import sweep_audit

ME = {"who": "ann", "via": "a test"}


@pytest.fixture(autouse=True)
def here(chancy_schema):
    chancy.configure(schema=chancy_schema)
    yield
    chancy.configure(schema=None)


@pytest.fixture
def conn(shell):
    return shell.conn


def acts(conn, **asked):
    """What was done, the oldest first."""
    return [(row.verb, dict(row.what), row.changed) for row in reversed(chancy_ops.audit(conn, **asked))]


def test_what_is_done_by_the_command_is_noted_with_the_user_of_the_system(shell, tasks, conn):
    waiting, failed = shell.submit(tasks.welcome.bind(1), tasks.welcome.bind(2))
    shell.finish(failed)
    chancy.schedule(conn, "nightly", tasks.ship.bind(5), chancy.every(hours=25))
    for line in (
        ["edit", waiting, "--priority", 5],
        ["pause", "mail"],
        ["resume", "mail"],
        ["resume", "mail"],  # which was not paused
        ["pause", "--schedule", "nightly", "--until", "2044-02-03T04:05Z"],
        ["resume", "--schedule", "nightly"],
        ["limit", "mail", 5],
        ["run-now", "nightly"],
        ["signal", waiting, "go", "7"],
        ["forget-steps", waiting],
        ["cancel", waiting, failed],  # of which one is finished
        ["requeue", waiting, 404],
        ["delete", failed],
        ["submit", "shop_tasks:invoice", "order=7"],
        ["submit", "shop_tasks:invoice", "order=7"],  # which was there already
    ):
        shell(*line)
    rows = chancy_ops.audit(conn)
    assert {(row.who, row.via) for row in rows} == {(person(), "command")}
    assert all(row.done_at == row.at and not row.is_running for row in rows)
    newest = chancy.jobs(conn, limit=1)[0]
    assert acts(conn) == [
        ("edit", {"job": waiting, "priority": 5, "run_at": None}, 1),
        ("pause", {"queue": "mail", "until": None}, 1),
        ("resume", {"queue": "mail"}, 1),
        ("pause", {"schedule": "nightly", "until": "2044-02-03T04:05:00Z"}, 1),
        ("resume", {"schedule": "nightly"}, 1),
        ("limit", {"queue": "mail", "concurrency": 5}, 1),
        ("run_now", {"schedule": "nightly"}, 1),
        ("signal", {"job": waiting, "name": "go"}, 1),
        ("forget_steps", {"job": waiting, "names": None}, 1),
        ("cancel", {"job": waiting}, 1),
        ("requeue", {"job": waiting}, 1),
        ("delete", {"job": failed}, 1),
        ("submit", {"job": newest.id, "task": "shop_tasks.invoice"}, 1),
    ]


def test_what_could_not_be_noted_was_not_done(shell, tasks, conn):
    (waiting,) = shell.submit(tasks.welcome.bind(1))
    conn.execute(sql.SQL("ALTER TABLE {}.audit RENAME TO gone").format(sql.Identifier(shell.schema)))
    for line in (["cancel", waiting], ["pause", "mail"], ["submit", "shop_tasks:ship", "order=1"]):
        assert shell(*line).code == 2
    assert shell.row(waiting).state is State.READY
    assert chancy_ops.queues(conn)[0].paused_until is None
    assert shell.rows("SELECT count(*) FROM {}.job") == [(1,)]


def test_what_was_rolled_back_is_not_noted(shell, tasks, conn):
    with pytest.raises(ZeroDivisionError), conn.transaction():
        chancy_ops.note(conn, "pause", {"queue": "mail"}, **ME)
        1 / 0  # noqa: B018
    assert acts(conn) == []


def test_verbs_that_code_calls_note_nothing(shell, tasks, conn):
    (waiting,) = shell.submit(tasks.welcome.bind(1))
    chancy.cancel(conn, waiting)
    chancy_ops.requeue_many(conn, JobFilter(state=State.CANCELLED))
    chancy_ops.pause(conn, "mail")
    assert acts(conn) == []


def test_acts_are_read_by_person_by_verb_and_by_page(conn):
    for n in range(5):
        chancy_ops.note(conn, "cancel" if n % 2 else "requeue", {"job": n}, who="ann" if n < 3 else "bob", via="x")
    assert [row.what["job"] for row in chancy_ops.audit(conn)] == [4, 3, 2, 1, 0]
    assert [row.what["job"] for row in chancy_ops.audit(conn, who="ann")] == [2, 1, 0]
    assert [row.what["job"] for row in chancy_ops.audit(conn, did="cancel")] == [3, 1]
    first = chancy_ops.audit(conn, limit=2)
    assert [row.what["job"] for row in chancy_ops.audit(conn, limit=2, before=first[-1].id)] == [2, 1]


@pytest.mark.parametrize("what", [None, [1], {"x": object()}, {"x": float("nan"), "\ud800": 1}])
def test_what_json_cannot_say_is_refused(conn, what):
    with pytest.raises(chancy.InvalidOption):
        chancy_ops.note(conn, "cancel", what, **ME)


def test_whatever_a_person_is_called_is_a_line(shell, conn):
    name = "\x1b[31mann\n" + "ž" * 300 + "\0"
    chancy_ops.note(conn, "cancel", {"job": 7, "why": "\x07"}, who=name, via="command")
    (row,) = chancy_ops.audit(conn)
    assert row.who == name[:200]
    out = shell("audit").out
    assert out.count("\n") == 2
    assert "\x1b" not in out
    assert "job 7" in out


def test_an_operator_adds_to_the_audit_and_rewrites_nothing_in_it(shell, conn, tasks):
    role = f"chancy_auditor_{shell.schema[-6:]}"
    name = sql.Identifier(role)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    try:
        conn.execute(chancy.grants({"operator": role}, schema=shell.schema))
        shell.submit(tasks.welcome.bind(1))
        with psycopg.connect(shell.dsn, user=role, autocommit=True) as operator:
            planned = chancy_ops.plan_sweep(operator, "cancel", JobFilter(queue="mail"))
            assert chancy_ops.sweep(operator, planned, **ME) == Swept(1, 0)
            for change in ("UPDATE {}.audit SET who = 'bob'", "DELETE FROM {}.audit", "TRUNCATE {}.audit"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    operator.execute(sql.SQL(change).format(sql.Identifier(shell.schema)))
        assert [row.who for row in chancy_ops.audit(conn)] == ["ann"]
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_rows_go_after_four_hundred_days_and_no_sooner(shell, conn):
    for days in (402, 401, 399, 0):
        chancy_ops.note(conn, "cancel", {"days": days}, **ME)
    shell.rows("UPDATE {}.audit SET at = at - (what->>'days')::integer * interval '1 day' RETURNING id")
    assert perform(conn, sweep_audit(), shell.schema) is False  # there are no more
    assert [row.what["days"] for row in chancy_ops.audit(conn)] == [0, 399]
    assert perform(conn, sweep_audit(), shell.schema) is False


# Many jobs at once.


@pytest.fixture
def failed(shell, tasks):
    """Of 1,000 jobs, which are all of them."""
    ids = shell.submit(*[tasks.welcome.bind(n) for n in range(1000)])
    shell.finish(*ids)
    return ids


def requeue(conn):
    return chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED))


def test_a_count_comes_first_and_what_fails_after_it_is_not_meant(shell, conn, failed, tasks):
    planned = requeue(conn)
    assert planned.total == 1000
    later = shell.submit(tasks.welcome.bind(1))
    shell.finish(*later)
    assert chancy_ops.sweep(conn, planned, **ME) == Swept(1000, 0)
    assert shell.row(later[0]).state is State.FAILED
    (row,) = chancy_ops.audit(conn)
    assert (row.verb, row.fits, row.changed, row.skipped, row.is_running) == ("requeue", 1000, 1000, 0, False)
    assert row.what == {"state": "failed", "until": planned.which.until.isoformat().replace("+00:00", "Z")}
    assert row.done_at is not None


def test_an_end_of_the_window_that_was_asked_for_stays(conn, failed):
    until = datetime(2020, 1, 1, tzinfo=UTC)
    planned = chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED, until=until))
    assert (planned.which.until, planned.total) == (until, 0)


def test_more_than_ten_thousand_are_counted_to_the_last(shell, conn, tasks):
    first = tasks.welcome.bind(1)
    ids = shell.submit(*[first] * 10_050)
    shell.finish(*ids)
    assert requeue(conn).total == 10_050
    assert not requeue(conn).total.more


def test_how_far_it_is_is_read_by_two_others_and_by_what_has_happened(shell, conn, failed):
    seen = []
    with psycopg.connect(shell.dsn, autocommit=True) as one, psycopg.connect(shell.dsn, autocommit=True) as other:

        def told(gone_through):
            ready = shell_count(other, shell.schema)
            rows = [chancy_ops.audit(each)[0] for each in (one, other)]
            seen.append([gone_through, ready, *[(row.changed, row.fits, row.is_running) for row in rows]])

        chancy_ops.sweep(conn, requeue(conn), **ME, told=told)
    assert seen == [[n, n, (n, 1000, True), (n, 1000, True)] for n in (200, 400, 600, 800, 1000)]


def shell_count(conn, schema):
    return conn.execute(sql.SQL("SELECT count(*) FROM {}.job").format(sql.Identifier(schema))).fetchone()[0]


def test_another_process_stops_it_after_a_batch_and_the_same_again_does_the_rest(shell, conn, failed):
    ids = []
    with psycopg.connect(shell.dsn, autocommit=True) as other:

        def told(gone_through):
            if gone_through == 400:
                assert chancy_ops.stop_sweep(other, ids[0]) is True

        swept = chancy_ops.sweep(conn, requeue(conn), **ME, told=told, begun=ids.append)
        assert swept == Swept(600, 0, stopped=True)  # the batch after that hears of it
        (row,) = chancy_ops.audit(conn)
        assert (row.changed, row.note, row.is_running) == (600, "stopped", False)
        assert chancy_ops.stop_sweep(other, ids[0]) is False
    assert chancy_ops.sweep(conn, requeue(conn), **ME) == Swept(400, 0)


def test_the_command_stops_a_sweep_of_somebody_else(shell, conn, failed):
    ids = []

    def told(gone_through):
        if gone_through == 200:
            running = shell("audit").out
            assert "running, of 1,000" in running
            answer = shell("stop", ids[0])
            assert (answer.code, answer.out) == (0, f"{ids[0]} stops after its next batch\n")

    assert chancy_ops.sweep(conn, requeue(conn), **ME, told=told, begun=ids.append).stopped
    answer = shell("stop", ids[0])
    assert (answer.code, answer.out) == (1, f"{ids[0]} has ended, or was never about many jobs\n")
    assert [row.verb for row in chancy_ops.audit(conn)] == ["stop", "requeue"]


def test_a_batch_that_fails_leaves_what_its_row_says(shell, conn, failed):
    """The third batch cannot be written: of it nothing is, and the row says so."""
    table = sql.Identifier(shell.schema)
    conn.execute(
        sql.SQL("""
        CREATE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.id = {1} THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON {0}.job FOR EACH ROW EXECUTE FUNCTION {0}.refuse()
    """).format(table, failed[500])
    )
    with pytest.raises(psycopg.errors.RaiseException):
        chancy_ops.sweep(conn, requeue(conn), **ME)
    (row,) = chancy_ops.audit(conn)
    assert (row.changed, row.skipped, row.is_running) == (400, 0, False)
    assert row.note == "RaiseException: the disk is full"
    assert shell.rows("SELECT count(*) FROM {}.job") == [(400,)]
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_process_that_dies_leaves_a_row_that_says_what_has_happened(shell, conn, failed):
    with psycopg.connect(shell.dsn, autocommit=True) as dying:

        def told(gone_through):
            if gone_through == 400:
                dying.close()

        with pytest.raises(chancy.InvalidConnection):
            chancy_ops.sweep(dying, requeue(conn), **ME, told=told)
    (row,) = chancy_ops.audit(conn)
    assert (row.changed, row.done_at, row.is_running) == (400, None, True)
    shell.rows("UPDATE {}.audit SET seen_at = seen_at - interval '2 minutes' RETURNING id")
    assert not chancy_ops.audit(conn)[0].is_running
    assert "lost its process, of 1,000" in shell("audit").out
    assert chancy_ops.sweep(conn, requeue(conn), **ME) == Swept(600, 0)


async def test_one_that_is_cancelled_ends_between_two_batches_and_says_so(shell, conn, failed):
    async with await psycopg.AsyncConnection.connect(shell.dsn, autocommit=True) as own:
        planned = await chancy_ops.plan_sweep(own, "requeue", JobFilter(state=State.FAILED))
        gate = asyncio.Event()

        def told(gone_through):
            if gone_through == 200:
                gate.set()

        doing = asyncio.create_task(chancy_ops.sweep(own, planned, **ME, told=told))
        await gate.wait()
        doing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing
    (row,) = chancy_ops.audit(conn)
    assert (row.note, row.is_running) == ("interrupted", False)
    assert shell.rows("SELECT count(*) FROM {}.job") == [(row.changed,)]
    assert 200 <= row.changed < 1000


def test_inside_a_transaction_all_of_it_is_the_callers(shell, conn, failed):
    with pytest.raises(ZeroDivisionError), conn.transaction():
        assert chancy_ops.sweep(conn, requeue(conn), **ME) == Swept(1000, 0)
        1 / 0  # noqa: B018
    assert chancy_ops.audit(conn) == []
    assert shell.rows("SELECT count(*) FROM {}.job") == [(0,)]


def test_two_at_the_same_do_each_job_once(shell, conn, failed):
    planned, done = requeue(conn), []

    def other():
        with psycopg.connect(shell.dsn, autocommit=True) as own:
            done.append(chancy_ops.sweep(own, planned, **ME))

    thread = threading.Thread(target=other)
    thread.start()
    done.append(chancy_ops.sweep(conn, planned, **ME))
    thread.join()
    assert sum(swept.changed for swept in done) == 1000
    assert shell.rows("SELECT count(*) FROM {}.job") == [(1000,)]


@pytest.mark.parametrize(
    ("did", "which"),
    [
        ("requeue", JobFilter(queue="mail")),
        ("requeue", JobFilter(state=State.READY)),
        ("cancel", JobFilter()),
        ("cancel", JobFilter(state=State.FAILED)),
        ("delete", JobFilter()),
        ("delete", JobFilter(state=State.RUNNING)),
        ("edit", JobFilter(queue="mail")),
        ("cancel", None),
    ],
)
def test_what_the_verbs_about_many_refuse_is_refused_before_it_is_counted(conn, did, which):
    with pytest.raises(chancy.InvalidOption):
        chancy_ops.plan_sweep(conn, did, which)


def test_more_attempts_than_a_row_holds_are_refused_and_others_given(shell, conn, failed):
    with pytest.raises(chancy.InvalidOption):
        chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED), attempts=40_000)
    planned = chancy_ops.plan_sweep(conn, "requeue", JobFilter(state=State.FAILED), attempts=2)
    chancy_ops.sweep(conn, planned, **ME)
    assert shell.row(failed[0]).max_attempts == 1 + 2
    assert chancy_ops.audit(conn)[0].what["attempts"] == 2
