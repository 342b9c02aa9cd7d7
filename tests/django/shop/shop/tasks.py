"""What the shop does in the background: tasks of Django, and of Chancy itself."""

import contextlib
import contextvars
import os
import time
from datetime import timedelta

from asgiref.sync import sync_to_async
from django.db import IntegrityError, connection, transaction

import chancy
from chancy import Backoff, Limit, Unique

from .api import task
from .models import Order


@task
def ship(order_id):
    Order.objects.filter(pk=order_id).update(shipped=1)
    return {"order": order_id}


@task(takes_context=True)
def told(context, word):
    result = context.task_result
    return [word, context.attempt, result.id, str(result.status), result.enqueued_at is not None]


@task
async def aship(order_id):
    order = await Order.objects.aget(pk=order_id)
    await Order.objects.filter(pk=order_id).aupdate(shipped=2)
    return order.name


@task
def boom():
    raise ValueError("it broke")


class Odd(Exception):
    pass


@task
def odd():
    raise Odd("two\nlines")


@task
async def aboom():
    raise Odd("on the loop")


@task(max_attempts=5, retry=Backoff(base=timedelta(milliseconds=50)))
def flaky(needed):
    if (attempt := chancy.current_job().attempt) < needed:
        raise OSError("not yet")
    return attempt


@task(limits=[Limit.time(20)])
def in_a_child(order_id):
    Order.objects.filter(pk=order_id).update(shipped=3)
    return os.getpid()


@task(aliases=("shop.old.deliver",))
def hand_over(order_id):
    return order_id


@task(unique=Unique(key=lambda order_id: order_id))
def once(order_id, note=""):
    return note


@task(unique=Unique())
def once_of_all(order_id, note="-"):
    return note


@task(group=lambda customer: customer, limits=[Limit.concurrency(1, key=lambda order: f"order-{order}")])
def in_turn(customer, order):
    return order


@task(takes_context=True, unique=Unique(key=lambda order_id: order_id))
def once_with_context(context, order_id):
    return context.attempt


@task
def clash(name):
    """Breaks its transaction, and goes on."""
    try:
        with transaction.atomic():
            Order.objects.create(name=name)
            Order.objects.create(name=name)
    except IntegrityError:
        Order.objects.create(name=f"{name} again")
    return Order.objects.count()


@task
def clash_for_good(name):
    Order.objects.create(name=name)
    Order.objects.create(name=name)


@task
def enqueue_another(order_id):
    return ship.enqueue(order_id).id


@chancy.task
def plain(order_id: int) -> str:
    return Order.objects.get(pk=order_id).name


@chancy.task(executor="process")
def plain_in_a_child(order_id: int) -> list[str | int]:
    return [Order.objects.get(pk=order_id).name, os.getpid()]


@chancy.task
def backend_of_connection() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@task
async def wait_in_the_database(gate):
    """Until nobody has the gate for himself any more."""

    def ask():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_advisory_lock_shared(%s)", [gate])
            return cursor.fetchone()[0]

    return await sync_to_async(ask)()


@task
async def asleep_in_the_database(seconds):
    def ask():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    began = time.time()
    await sync_to_async(ask)()
    return [began, time.time()]


@contextlib.contextmanager
def whispering(current):
    """The project's `surround`."""
    whispered.set(f"job {current.id}")
    yield


whispered = contextvars.ContextVar("whispered", default="nothing")


@task
def hear():
    return [whispered.get(), os.getpid()]


@task(executor="process")
def hear_in_a_child():
    return [whispered.get(), os.getpid()]


@task
def count_up(order_id):
    """Asks twice, so that a restart may come between."""
    order = Order.objects.get(pk=order_id)
    time.sleep(0.05)
    Order.objects.filter(pk=order_id).update(shipped=order.shipped + 1)
    return order.name
