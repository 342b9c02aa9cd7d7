"""`enqueue` and everything else that a view does, inside the transaction of a TestCase."""

import contextlib
from datetime import timedelta

from django.db import connection, transaction
from django.test import Client, TestCase
from django.utils import timezone
from shop import tasks
from shop.api import TaskResultDoesNotExist, TaskResultStatus, default_task_backend
from shop.models import Order

import chancy

"""Query: an enqueue that is not told when the job was submitted has to ask."""


def aware(at):
    return timezone.make_aware(at) if timezone.is_naive(at) else at


def tasks_there():
    return sorted(row.task.rpartition(".")[2] for row in chancy.jobs(connection))


class Enqueue(TestCase):
    def test_a_job_is_one_query_and_so_is_its_result(self):
        with self.assertNumQueries(1):
            result = tasks.ship.enqueue(7)
        with self.assertNumQueries(1):
            found = default_task_backend.get_result(result.id)
        self.assertEqual(found, result)
        self.assertEqual((found.status, found.attempts, found.args, found.kwargs), (TaskResultStatus.READY, 0, [7], {}))

    def test_what_atomic_takes_back_was_never_enqueued(self):
        with contextlib.suppress(KeyError), transaction.atomic():
            Order.objects.create(name="gone")
            tasks.ship.enqueue(1)
            raise KeyError
        self.assertEqual((tasks_there(), Order.objects.count()), ([], 0))

    def test_of_two_atomic_blocks_the_inner_one_is_taken_back_alone(self):
        with transaction.atomic():
            outer = tasks.ship.enqueue(1)
            with contextlib.suppress(IndexError), transaction.atomic():
                inner = tasks.told.enqueue("inner")
                raise IndexError
            self.assertRaises(TaskResultDoesNotExist, default_task_backend.get_result, inner.id)
            default_task_backend.get_result(outer.id)
        self.assertEqual(tasks_there(), ["ship"])

    def test_a_view_that_raises_under_atomic_requests_leaves_no_row_and_no_job(self):
        client = Client(raise_request_exception=False)
        self.assertEqual(client.get("/order/bad").status_code, 500)
        self.assertEqual((tasks_there(), Order.objects.count()), ([], 0))
        self.assertEqual(client.get("/order/good").status_code, 200)
        self.assertEqual((tasks_there(), Order.objects.get().name), (["plain", "ship"], "good"))

    def test_an_async_view_that_does_both_in_one_function_is_atomic(self):
        client = Client(raise_request_exception=False)
        self.assertEqual(client.get("/one/bad").status_code, 500)
        self.assertEqual((tasks_there(), Order.objects.count()), ([], 0))
        self.assertEqual(client.get("/one/good").status_code, 200)
        self.assertEqual((tasks_there(), Order.objects.count()), (["ship"], 1))

    def test_an_async_view_that_awaits_twice_is_not_which_the_guide_warns_of(self):
        client = Client(raise_request_exception=False)
        self.assertEqual(client.get("/two/order").status_code, 500)
        self.assertEqual((tasks_there(), Order.objects.count()), (["ship"], 1))

    def test_priority_queue_and_run_after_are_the_rows(self):
        at = timezone.now() + timedelta(hours=1)
        result = tasks.ship.using(priority=7, queue_name="mail", run_after=at).enqueue(1)
        row = chancy.get(connection, int(result.id))
        self.assertEqual((row.priority, row.queue, row.run_at, row.state), (7, "mail", aware(at), "scheduled"))
        self.assertEqual(default_task_backend.get_result(result.id), result)

    def test_arguments_are_those_that_json_has(self):
        self.assertRaises(TypeError, tasks.ship.enqueue, object())
        result = tasks.told.enqueue(word=("a", {"b": b"c"}))
        self.assertEqual(default_task_backend.get_result(result.id).kwargs, {"word": ["a", {"b": "c"}]})
        self.assertEqual(tasks_there(), ["told"])

    def test_no_id_that_was_never_given_is_a_result(self):
        plain = tasks.plain.submit(connection, 1)
        for bad in ("", "x", "-1", "1.0", "٣", "9" * 19, "9" * 5000, str(plain.id)):
            with self.assertRaises(TaskResultDoesNotExist):
                default_task_backend.get_result(bad)

    def test_many_are_one_query(self):
        with self.assertNumQueries(1):
            results = default_task_backend.enqueue_many([(tasks.ship, (n,), {}) for n in range(50)])
        self.assertEqual([default_task_backend.get_result(each.id).args for each in results[::49]], [[0], [49]])

    async def test_enqueue_and_result_can_be_awaited(self):
        order = await Order.objects.acreate(name="async")
        result = await tasks.aship.aenqueue(order.pk)
        self.assertEqual((await tasks.aship.aget_result(result.id)).status, TaskResultStatus.READY)
        self.assertEqual(await tasks.aship.aget_result(result.id), result)
