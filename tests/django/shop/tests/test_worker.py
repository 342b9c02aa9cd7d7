"""`manage.py chancy_worker`: what it runs, where, and what it leaves of Django's connections."""

import os
import signal
from datetime import timedelta

from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import SimpleTestCase, TransactionTestCase
from shop import tasks
from shop.models import Order

import chancy
import chancy_ops

from .working import eventually, working

SOON = timedelta(seconds=30)


def finished(result):
    def refreshed():
        result.refresh()
        return result.is_finished

    eventually(refreshed)
    return result


def in_one_moment(spans):
    """How many of these spans of time have a moment in common, at most."""
    return max(sum(began <= at < ended for began, ended in spans) for at, _ in spans)


class Worker(TransactionTestCase):
    def test_it_runs_what_is_enqueued_and_submitted_here_in_threads_on_its_loop_and_in_children(self):
        order = Order.objects.create(name="book")
        with working("--threads", "4") as worker:
            results = [
                finished(each)
                for each in [
                    tasks.ship.enqueue(order.pk),
                    tasks.told.enqueue("hi"),
                    tasks.aship.enqueue(order.pk),
                    tasks.in_a_child.enqueue(order.pk),
                    tasks.ship.using(queue_name="mail").enqueue(order.pk),
                    tasks.boom.enqueue(),
                    tasks.flaky.enqueue(2),
                ]
            ]
            self.assertEqual([str(each.status) for each in results], ["SUCCESSFUL"] * 5 + ["FAILED", "SUCCESSFUL"])
            self.assertEqual((results[2].return_value, results[6].return_value), ("book", 2))
            self.assertEqual(results[1].return_value, ["hi", 1, results[1].id, "RUNNING", True])
            self.assertNotIn(results[3].return_value, (worker.pid, os.getpid()))
            self.assertEqual([each.attempts for each in results], [1, 1, 1, 1, 1, 1, 2])
            self.assertEqual(tasks.plain.submit(connection, order.pk).result(connection, timeout=SOON), "book")
            name, pid = tasks.plain_in_a_child.submit(connection, order.pk).result(connection, timeout=SOON)
            self.assertEqual((name, pid == worker.pid), ("book", False))
            self.assertIn("shop.tasks.ship succeeded attempt 1/3", worker.log())
        self.assertEqual(chancy_ops.workers(connection), [])

    def test_ten_async_jobs_that_wait_in_the_orm_wait_side_by_side(self):
        with working():
            results = [finished(each) for each in [tasks.aslow_in_the_database.enqueue(0.2) for _ in range(10)]]
        backends = {result.return_value[0] for result in results}
        spans = [result.return_value[1:] for result in results]
        self.assertEqual((len(backends), in_one_moment(spans)), (10, 10))
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", [list(backends)])
            eventually(
                lambda: (
                    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", [list(backends)])
                    or cursor.fetchone() == (0,)
                )
            )
        print("ten async jobs of 0.2 s took", max(ended for _, ended in spans) - min(began for began, _ in spans))

    def test_connections_that_are_not_to_be_kept_are_closed_after_each_job(self):
        databases = self.settings_of(CONN_MAX_AGE=0)
        with working("--threads", "4", DATABASES=databases):
            used = self.backends_used(20)
            self.assertEqual(self.there_of(used), 0)

    def test_connections_that_are_to_be_kept_are(self):
        with working("--threads", "2", DATABASES=self.settings_of(CONN_MAX_AGE=None)):
            self.assertLessEqual(len(self.backends_used(20)), 2)

    def test_a_pool_gets_its_connections_back(self):
        pool = {"pool": {"min_size": 1, "max_size": 2, "timeout": 10}}
        with working("--threads", "8", DATABASES=self.settings_of(CONN_MAX_AGE=0, OPTIONS=pool)):
            self.assertLessEqual(len(self.backends_used(30)), 2)

    def test_a_connection_that_the_server_has_ended_costs_no_job_an_attempt(self):
        with working("--threads", "1", DATABASES=self.settings_of(CONN_MAX_AGE=None)):
            for _ in range(3):
                (backend,) = self.backends_used(1)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        self.assertEqual({row.attempt for row in chancy.jobs(connection)}, {1})

    def test_processes_are_of_one_command_and_stop_with_it(self):
        with working("--processes", "2"):
            order = Order.objects.create(name="both")
            self.assertEqual(finished(tasks.ship.enqueue(order.pk)).attempts, 1)
        self.assertEqual(chancy_ops.workers(connection), [])

    def test_ctrl_c_ends_it_well(self):
        with working() as worker:
            worker.send_signal(signal.SIGINT)
            self.assertEqual(worker.wait(30), 0)

    def settings_of(self, **changes):
        given = {key: connection.settings_dict[key] for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
        return {"default": given | changes}

    def backends_used(self, jobs):
        made = [tasks.backend_of_connection.submit(connection) for _ in range(jobs)]
        return {job.result(connection, timeout=SOON) for job in made}

    def there_of(self, backends):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", [list(backends)])
            return cursor.fetchone()[0]


class Command(SimpleTestCase):
    def test_reload_is_for_one_process(self):
        with self.assertRaisesMessage(CommandError, "leave out --processes"):
            call_command("chancy_worker", "--reload", "--processes", "2")
