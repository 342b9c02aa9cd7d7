"""What stands on a task beyond Django's own, and what becomes of its jobs."""

import pickle
from datetime import timedelta

from django.db import connection
from django.test import SimpleTestCase, TestCase
from django.utils import timezone
from shop import tasks
from shop.api import (
    TaskResultStatus,
    default_task_backend,
    task,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from shop.models import Order

import chancy
import chancy_django
from chancy import Limit, Unique
from chancy.registry import registered
from chancy_django.testing import adrain, drain

LOG = "django.tasks" if TaskResultStatus.__module__.startswith("django.") else "django_tasks"


class Performed(TestCase):
    def test_what_a_test_enqueues_is_performed_in_its_own_transaction(self):
        order = Order.objects.create(name="a")
        result = tasks.ship.enqueue(order.pk)
        self.assertEqual(drain().succeeded, 1)
        result.refresh()
        self.assertEqual((result.status, result.return_value, result.attempts), ("SUCCESSFUL", {"order": order.pk}, 1))
        self.assertEqual(Order.objects.get().shipped, 1)
        self.assertLessEqual(result.enqueued_at, result.finished_at)

    def test_an_async_task_sees_what_the_test_has_not_committed(self):
        order = Order.objects.create(name="b")
        result = tasks.aship.enqueue(order.pk)
        drain()
        result.refresh()
        self.assertEqual((result.return_value, Order.objects.get().shipped), ("b", 2))

    async def test_an_async_test_drains_too(self):
        order = await Order.objects.acreate(name="c")
        result = await tasks.aship.aenqueue(order.pk)
        self.assertEqual((await adrain()).succeeded, 1)
        await result.arefresh()
        self.assertEqual((result.return_value, (await Order.objects.aget()).shipped), ("c", 2))

    def test_tasks_of_chancy_itself_are_performed_as_well(self):
        job = tasks.plain.submit(connection, Order.objects.create(name="d").pk)
        self.assertEqual(drain().succeeded, 1)
        self.assertEqual(job.result(connection), "d")

    def test_the_context_knows_its_result(self):
        result = tasks.told.enqueue("hello")
        drain()
        result.refresh()
        self.assertEqual(result.return_value, ["hello", 1, result.id, "RUNNING", True])

    def test_what_raises_has_failed_and_says_what_it_raised(self):
        results = [tasks.boom.enqueue(), tasks.odd.enqueue(), tasks.aboom.enqueue()]
        with self.assertLogs(LOG, "ERROR") as logs:
            drain()
        for result in results:
            result.refresh()
        self.assertEqual([result.status for result in results], ["FAILED"] * 3)
        self.assertEqual([result.attempts for result in results], [1, 1, 1])
        self.assertEqual([result.errors[0].exception_class for result in results], [ValueError, tasks.Odd, tasks.Odd])
        self.assertTrue(results[0].errors[0].traceback.endswith("ValueError: it broke\n"))
        self.assertIn("ValueError: it broke", logs.output[0])
        self.assertIn("Odd: on the loop", logs.output[2])
        with self.assertRaisesMessage(ValueError, "Task failed"):
            _ = results[0].return_value

    def test_with_retry_it_is_tried_again_and_every_attempt_is_told(self):
        result = tasks.flaky.enqueue(3)
        drained = drain(with_scheduled=True)
        result.refresh()
        self.assertEqual((drained.retried, drained.succeeded), (2, 1))
        self.assertEqual((result.return_value, result.attempts, len(result.errors)), (3, 3, 2))
        self.assertEqual(result.errors[0].exception_class, OSError)

    def test_a_task_that_breaks_its_transaction_and_goes_on_does_so_here_too(self):
        result = tasks.clash.enqueue("twice")
        drain()
        result.refresh()
        self.assertEqual((result.status, result.return_value), ("SUCCESSFUL", 1))

    def test_after_a_task_that_has_broken_its_transaction_the_test_goes_on(self):
        result = tasks.clash_for_good.enqueue("twice")
        self.assertEqual(drain().failed, 1)
        result.refresh()
        self.assertEqual(
            (result.status, result.errors[0].exception_class_path), ("FAILED", "django.db.utils.IntegrityError")
        )
        self.assertEqual(Order.objects.count(), 0)

    def test_a_task_that_is_cancelled_has_failed(self):
        result = tasks.ship.enqueue(1)
        chancy.cancel(connection, int(result.id))
        result.refresh()
        self.assertEqual((result.status, result.errors[0].exception_class), ("FAILED", chancy.JobCancelled))


class Signals(TestCase):
    def heard(self):
        seen = []

        def listener(kind):
            def hear(sender, task_result, **_):
                Order.objects.count()  # it may ask the database
                seen.append((kind, sender.__name__, str(task_result.status), task_result.attempts))

            return hear

        for signal, kind in ((task_enqueued, "enqueued"), (task_started, "started"), (task_finished, "finished")):
            receiver = listener(kind)
            signal.connect(receiver, weak=False)
            self.addCleanup(signal.disconnect, receiver)
        return seen

    def test_each_is_sent_once(self):
        for each in (tasks.told, tasks.aship):
            seen = self.heard()
            each.enqueue("x" if each is tasks.told else Order.objects.create(name="x").pk)
            self.assertEqual(drain().errors, [])
            self.assertEqual(
                seen[:3],
                [
                    ("enqueued", "ChancyBackend", "READY", 0),
                    ("started", "ChancyBackend", "RUNNING", 1),
                    ("finished", "ChancyBackend", "SUCCESSFUL", 1),
                ],
            )

    def test_a_task_that_is_tried_again_finishes_once(self):
        seen = self.heard()
        tasks.flaky.enqueue(2)
        drain(with_scheduled=True)
        kinds = [kind for kind, *_ in seen]
        self.assertEqual(kinds, ["enqueued", "started", "started", "finished"])
        self.assertEqual([attempts for *_, attempts in seen], [0, 1, 2, 2])


class Options(TestCase):
    def test_of_a_unique_task_the_second_result_is_the_first_ones(self):
        first, second, other = (tasks.once.enqueue(order) for order in (1, 1, 2))
        self.assertEqual((first.id == second.id, first.id == other.id), (True, False))
        self.assertEqual(first, second)

    def test_all_arguments_are_the_same_by_name_and_by_position(self):
        results = [
            tasks.once_of_all.enqueue(1),
            tasks.once_of_all.enqueue(order_id=1),
            tasks.once_of_all.enqueue(1, "-"),
        ]
        self.assertEqual(len({result.id for result in results}), 1)
        self.assertNotEqual(tasks.once_of_all.enqueue(1, "other").id, results[0].id)

    def test_the_context_is_no_argument_of_a_key(self):
        self.assertEqual(tasks.once_with_context.enqueue(5).id, tasks.once_with_context.enqueue(order_id=5).id)

    def test_one_enqueue_may_have_it_otherwise(self):
        self.assertNotEqual(tasks.once.enqueue(1).id, tasks.once.using(unique=None).enqueue(1).id)
        result = tasks.ship.using(max_attempts=7, unique=Unique(key="one"), limits=[Limit.time(5)]).enqueue(1)
        row = chancy.get(connection, int(result.id))
        self.assertEqual((row.max_attempts, row.unique_key), (7, "one"))
        with self.assertRaisesMessage(chancy.InvalidArguments, "a function belongs to @task"):
            tasks.ship.using(unique=Unique(key=lambda order_id: order_id)).enqueue(1)

    def test_limits_and_turns_go_by_the_functions_own_arguments(self):
        result = tasks.in_turn.enqueue("ann", order=3)
        with connection.cursor() as cursor:
            cursor.execute("SELECT gates->>'key' FROM chancy.job WHERE id = %s", [result.id])
            (key,) = cursor.fetchone()
        self.assertIn("ann", key)
        self.assertIn("order-3", key)
        self.assertEqual(drain().succeeded, 1)

    def test_bad_arguments_fail_where_they_are_enqueued_if_a_key_needs_them(self):
        with self.assertRaisesMessage(chancy.InvalidArguments, "missing a required argument"):
            tasks.once.enqueue()

    def test_a_job_submitted_by_sql_is_the_same(self):
        with connection.cursor() as cursor:
            cursor.execute("""SELECT chancy.submit('shop.tasks.once', '{"args": [8, "sql"]}')""")
            (job_id,) = cursor.fetchone()
        drain()
        self.assertEqual(default_task_backend.get_result(job_id).return_value, "sql")

    def test_a_job_that_was_enqueued_before_its_task_was_renamed_is_the_tasks_own(self):
        with connection.cursor() as cursor:
            cursor.execute("""SELECT chancy.submit('shop.old.deliver', '{"args": [9]}')""")
            (job_id,) = cursor.fetchone()
        self.assertEqual(drain().succeeded, 1)
        result = tasks.hand_over.get_result(job_id)
        self.assertEqual((result.return_value, result.task.module_path), (9, "shop.tasks.hand_over"))

    def test_a_backends_options_say_how_often_a_job_is_tried(self):
        result = tasks.ship.using(backend="thrice").enqueue(1)
        self.assertEqual(chancy.get(connection, int(result.id)).max_attempts, 3)
        result = tasks.ship.using(backend="once").enqueue(1)
        self.assertEqual((chancy.get(connection, int(result.id)).max_attempts, result.backend), (1, "once"))

    def test_enqueued_and_scheduled_ones_are_of_the_task_as_it_was_written(self):
        at = timezone.now() + timedelta(days=1)
        result = tasks.flaky.using(run_after=at).enqueue(1)
        self.assertEqual(default_task_backend.get_result(result.id).task, result.task)
        self.assertEqual(chancy.get(connection, int(result.id)).max_attempts, 5)


class Declared(SimpleTestCase):
    def test_there_is_a_decorator_that_takes_all_of_it_on_every_django(self):
        made = chancy_django.task(max_attempts=2, takes_context=True)(with_context)
        self.assertEqual((made.max_attempts, made.takes_context, made.queue_name), (2, True, "default"))
        self.assertEqual(chancy_django.task(elsewhere).func, elsewhere)

    def test_a_task_of_django_is_one_of_chancys_under_its_path(self):
        known = registered()["shop.tasks.flaky"]
        self.assertEqual((known.options.max_attempts, known.name), (5, "shop.tasks.flaky"))

    def test_a_task_can_be_pickled_whatever_its_options_are(self):
        for each in (tasks.once.using(priority=3), tasks.ship, tasks.in_turn):
            self.assertEqual(pickle.loads(pickle.dumps(each)), each)

    def test_a_key_function_of_other_arguments_is_refused_at_the_decoration(self):
        message = "takes 'customer', which is no argument of the task (they are: order_id)"
        with self.assertRaisesMessage(chancy.InvalidTask, message):
            task(group=lambda customer: customer)(elsewhere)

    def test_options_that_no_row_holds_are_refused_at_the_decoration(self):
        with self.assertRaisesMessage(chancy.InvalidTask, "max_attempts"):
            task(max_attempts=10**6)(elsewhere)


def with_context(context):
    return context


def elsewhere(order_id):
    return order_id


class Immediate(TestCase):
    def test_a_task_is_performed_where_it_is_enqueued(self):
        order = Order.objects.create(name="now")
        result = tasks.ship.using(backend="immediate").enqueue(order.pk)
        self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, {"order": order.pk}))
        self.assertEqual(task_backends["immediate"].get_result(result.id), result)

    async def test_an_async_one_too(self):
        order = await Order.objects.acreate(name="now")
        result = await tasks.aship.using(backend="immediate").aenqueue(order.pk)
        self.assertEqual(result.return_value, "now")

    def test_what_it_enqueues_is_performed_after_it(self):
        order = Order.objects.create(name="later")
        result = tasks.enqueue_another.using(backend="immediate").enqueue(order.pk)
        inner = default_task_backend.get_result(result.return_value)
        self.assertEqual((inner.status, Order.objects.get().shipped), ("SUCCESSFUL", 1))
