"""What makes two failures the same. Without a database, but for the last tests."""

from __future__ import annotations

import asyncio
import time

import msgspec
import psycopg
import pytest
import worker_tasks as tasks
from psycopg import sql

import chancy
from chancy.errors import TimeLimitExceeded
from chancy.model import AttemptError
from chancy.run import send
from chancy.schema import fill
from chancy_worker.attempts.verdict import Claimed, judged, since_now
from chancy_worker.claims.sifting import end_alone
from chancy_worker.fingerprint import MOST_SAID, fingerprint, frames_of, innermost, outline, place_of
from chancy_worker.life.rescue import take_back

pytestmark = pytest.mark.any_postgres

APP, LIBRARY = "/srv/release-7/shop/tasks.py", "/venv/lib/python3.12/site-packages/httpx/_client.py"
OWN, FOREIGN = (APP, "shop.tasks", "push_contact"), (LIBRARY, "httpx._client", "Client.post")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user 17 has no order A-1022", "user 4 has no order B-7"),
        ("no such file: '/tmp/a b.csv'", "no such file: '/var/x.csv'"),
        ('column "total" is missing', 'column "sum" is missing'),
        ("it isn't there: 'x'", "it isn't there: 'of y'"),
        ("9f1c2a4e-0b1d-4d7e-8a55-000000000001 is gone", "3c0ffee0-9f1c-4d7e-8a55-000000000002 is gone"),
        ("mail to ann@example.com bounced", "mail to bob@example.org bounced"),
        ("GET https://crm.example.com/a: no answer", "GET http://crm.example.com/b/c: no answer"),
        ("Key (email)=(Ann Lee) already exists.", "Key (email)=(Bob) already exists."),
        ("bad value [type=int, input_value=x]", "bad value [type=str, input_value=y]"),
        ("missing: 1 2 3", "missing: 1 2 3 4 5"),
        ("cannot open /home/ann/x", "cannot open /home/bob"),
        ("  two\n lines 1", "two lines 2"),
        ("object at 0xdeadbeef", "object at 0x7f00aa"),
    ],
)
def test_what_differs_from_job_to_job_is_no_part_of_it(one, other):
    assert outline(one) == outline(other)
    assert fingerprint("E", "here", one) == fingerprint("E", "here", other)


def test_what_says_something_else_is_another_failure():
    different = [
        fingerprint("ValueError", "shop:a", "no order"),
        fingerprint("KeyError", "shop:a", "no order"),
        fingerprint("ValueError", "shop:b", "no order"),
        fingerprint("ValueError", "shop:a", "no customer"),
        fingerprint("ValueError", "shop:a", ""),
    ]
    assert len(set(different)) == len(different)
    assert {len(each) for each in different} == {12}


@pytest.mark.parametrize(
    "message",
    [
        "x" * 10_000_000,
        "'" * 1_000_000,
        "“" * 1_000_000,
        "=(" * 1_000_000,
        "a=" * 1_000_000,
        "1 " * 1_000_000,
        "\0\ud800'\udfff 7\u2028",
        "",
        "'",
        "İstanbul ١٢٣",
    ],
    ids=lambda message: repr(message[:4]),
)
def test_no_message_is_too_odd_or_too_large_for_one(message):
    began = time.process_time()
    assert len(outline(message)) <= MOST_SAID
    assert len(fingerprint("E", "here", message)) == 12
    assert time.process_time() - began < 1  # milliseconds; a message is cut before anything is looked for in it


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ([OWN, FOREIGN], "shop.tasks:push_contact"),
        ([OWN, ("/srv/release-7/shop/crm.py", "shop.crm", "Crm.push"), FOREIGN], "shop.crm:Crm.push"),
        ([FOREIGN, OWN, FOREIGN, FOREIGN], "shop.tasks:push_contact"),
        ([(APP, "shop.tasks", "outer.<locals>.inner"), (APP, "shop.tasks", "outer.<locals>.<lambda>")], "shop.tasks:outer"),
        ([("/venv/site-packages/shop/crm.py", "shop.crm", "push"), FOREIGN], "shop.crm:push"),
        ([("/venv/site-packages/store/crm.py", "store.crm", "push"), FOREIGN], "store.crm:push"),
        ([(asyncio.__file__, "asyncio", "run"), OWN, (asyncio.__file__, "asyncio", "wait_for")], "shop.tasks:push_contact"),
        ([("/srv/release-7/report.py", "__main__", "main")], "report:main"),
        ([("<string>", "", "__init__")], "<string>:__init__"),
        ([("C:\\venv\\Lib\\site-packages\\httpx\\_client.py", "httpx._client", "post"), OWN], "shop.tasks:push_contact"),
        ([(chancy.__file__, "chancy", "x")], "shop.tasks.push_contact"),
        ([], "shop.tasks.push_contact"),
    ],
)  # fmt: skip
def test_the_place_is_the_last_function_of_the_application(frames, place):
    assert place_of(frames, "shop.tasks.push_contact") == place


def raised(function):
    try:
        function()
    except BaseException as error:
        return error


def test_of_a_group_the_first_error_counts():
    def inner():
        raise ValueError(3)

    def outer():
        raise ExceptionGroup("of 2", [ExceptionGroup("of 1", [raised(inner)]), KeyError()])

    error = innermost(raised(outer))
    assert (type(error), [frame[2].rpartition(".")[2] for frame in frames_of(error)]) == (
        ValueError,
        ["raised", "inner"],
    )


class Hidden(Exception):
    """Says nothing of itself that is true."""

    __traceback__ = property(lambda self: 1 / 0)
    exceptions = property(lambda self: 1 / 0)

    def __str__(self):
        raise SystemExit


KEPT = msgspec.json.Decoder(list[AttemptError])


def kept_of(error, name="a.task"):
    job = Claimed(7, name, "default", 3, 3, 4, 0, b"{}", retry=None, limits=None, errors=None)
    (kept,) = KEPT.decode(judged(job, error, since_now("here"), lambda *_: None).errors)
    return kept


def test_whatever_is_raised_has_one():
    def deep(depth=0):
        deep(depth + 1)

    errors = [raised(deep), Hidden(), ExceptionGroup("x", [Hidden()]), TimeLimitExceeded(1, 2.5), KeyboardInterrupt()]
    prints = [kept_of(error).fingerprint for error in errors]
    assert [len(each) for each in prints] == [12] * len(errors)
    assert len(set(prints)) == len(errors)


def test_an_attempt_that_was_stopped_was_so_wherever_it_was():
    def here():
        raise TimeLimitExceeded(1, 1.5)

    def there():
        raise TimeLimitExceeded(1, 1.75)

    assert kept_of(raised(here)).fingerprint == kept_of(raised(there)).fingerprint
    assert kept_of(raised(here)).fingerprint != kept_of(raised(here), "another.task").fingerprint


@pytest.mark.parametrize("parts", [("WorkerDied", "shop.tasks.x", ""), ("É", "žluť:f.<locals>", 'no _ \\ " %s')])
def test_the_database_makes_the_same_of_the_same(chancy_conn, chancy_schema, parts):
    ((made,),) = chancy_conn.execute(fill("SELECT {schema}.fingerprint(%s, %s, %s)", chancy_schema), parts).fetchall()
    assert made == fingerprint(*parts)


@pytest.mark.parametrize(
    ("errors", "kind", "said"),
    [
        ('[{"attempt":1,"kind":"A","message":"\\"fingerprint\\":\\"no\\"","fingerprint":"a1"}]', "A", "a1"),
        ('[{"attempt":1,"kind":"A","fingerprint":"a1"},{"attempt":2,"kind":"B"}]', "B", None),
        ('[{"attempt" : 1, "kind" : "A b", "fingerprint" : "a1"}]', "A b", "a1"),
        ('[{"attempt":1,"kind":"A","message":"\\u0000","fingerprint":"a1"}]', "A", "a1"),
        ('[{"kind":"A","attempt":1}]', "A", None),
        ("[]", None, None),
        ('"x"', None, None),
        ('{"attempt":', None, None),
    ],
)  # fmt: skip
def test_the_database_reads_what_the_last_error_says_whatever_its_message_holds(
    chancy_conn, chancy_schema, errors, kind, said
):
    try:
        ((found, print_),) = chancy_conn.execute(
            fill(
                "SELECT {schema}.of_last_error(%(e)s::text::json, 'kind'), "
                "{schema}.of_last_error(%(e)s::text::json, 'fingerprint')",
                chancy_schema,
            ),
            {"e": errors},
        ).fetchall()
    except psycopg.errors.InvalidTextRepresentation:  # no JSON: no row could hold it
        return
    assert (found, print_) == (kind, said)


def test_a_death_and_a_row_that_nobody_can_read_have_one_too(chancy_conn, chancy_schema):
    one, other = chancy.submit_many(chancy_conn, [tasks.add.bind(1, 2), tasks.add.bind(3, 4)])
    run = """
        WITH dead AS (INSERT INTO {0}.dead_worker (id, name, died_at) VALUES (-5, 'web-1:77', now()))
        UPDATE {0}.job SET state = 'running', worker = -5, attempt = 3, claims = 1, started_at = now() WHERE id = %s
    """
    chancy_conn.execute(sql.SQL(run).format(sql.Identifier(chancy_schema)), [one.id])
    send(chancy_conn, take_back(), chancy_schema)
    send(chancy_conn, end_alone(1, other.id, 0, "its arguments are 17 too many", claimed=False), chancy_schema)
    died, unread = (row.errors[-1] for row in (one.refresh(chancy_conn), other.refresh(chancy_conn)))
    assert died.fingerprint == fingerprint("WorkerDied", tasks.add.name, "")
    assert unread.fingerprint == fingerprint("InvalidJob", tasks.add.name, "its arguments are 99 too many")
    columns = "SELECT error_kind, fingerprint FROM {0}.history ORDER BY id"
    assert chancy_conn.execute(sql.SQL(columns).format(sql.Identifier(chancy_schema))).fetchall() == [
        ("WorkerDied", died.fingerprint), ("InvalidJob", unread.fingerprint)
    ]  # fmt: skip
