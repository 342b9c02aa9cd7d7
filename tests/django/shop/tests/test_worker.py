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


class Worker(TransactionTestCase):
    def test_it_runs_what_is_enqueued_and_submitted_in_threads_on_its_loop_and_in_children_until_ctrl_c(self):
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
            worker.send_signal(signal.SIGINT)
            self.assertEqual(worker.wait(30), 0)
        self.assertEqual(chancy_ops.workers(connection), [])

    def test_ten_async_jobs_that_wait_in_the_orm_wait_side_by_side_and_no_connection_is_left(self):
        with working(DATABASES=self.settings_of(CONN_MAX_AGE=0)):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(7)")
                results = [tasks.wait_in_the_database.enqueue(7) for _ in range(10)]
                eventually(lambda: self.number("SELECT count(*) FROM pg_locks WHERE NOT granted AND objid = 7") == 10)
                cursor.execute("SELECT pg_advisory_unlock(7)")
            backends = {finished(each).return_value for each in results}
            self.assertEqual(len(backends), 10)
            eventually(lambda: self.there_of(backends) == 0)
            used = self.backends_used(20)  # in threads
            eventually(lambda: self.there_of(used) == 0)
            spans = [
                finished(each).return_value for each in [tasks.asleep_in_the_database.enqueue(0.2) for _ in range(10)]
            ]
        print("ten async jobs of 0.2 s took", max(ended for _, ended in spans) - min(began for began, _ in spans))

    def test_persistent_connections_are_kept_and_one_that_the_server_has_ended_costs_no_attempt(self):
        with working("--threads", "2", DATABASES=self.settings_of(CONN_MAX_AGE=None)):
            for _ in range(3):
                used = self.backends_used(20)
                self.assertLessEqual(len(used), 2)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [list(used)])
        self.assertEqual({(row.state, row.attempt) for row in chancy.jobs(connection)}, {("succeeded", 1)})

    def test_a_pool_gets_its_connections_back_and_processes_stop_with_their_command(self):
        pool = {"pool": {"min_size": 1, "max_size": 2, "timeout": 10}}
        databases = self.settings_of(CONN_MAX_AGE=0, OPTIONS=pool)
        with working("--threads", "8", "--processes", "2", DATABASES=databases):
            self.assertLessEqual(len(self.backends_used(40)), 4)
        self.assertEqual(chancy_ops.workers(connection), [])

    def test_what_the_project_has_around_each_function_is_there_in_threads_and_in_children(self):
        settings = {"QUEUES": ["default"], "SURROUND": "shop.tasks.whispering", "MIDDLEWARE": ["shop.jobs.counted"]}
        with working(CHANCY=settings) as worker:
            results = [finished(each.enqueue()) for each in (tasks.hear, tasks.hear_in_a_child)]
        self.assertEqual([each.return_value[0] for each in results], [f"job {each.id}" for each in results])
        self.assertEqual([each.return_value[1] == worker.pid for each in results], [True, False])

    def settings_of(self, **changes):
        given = {key: connection.settings_dict[key] for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
        return {"default": given | changes}

    def backends_used(self, jobs):
        made = [tasks.backend_of_connection.submit(connection) for _ in range(jobs)]
        return {job.result(connection, timeout=SOON) for job in made}

    def there_of(self, backends):
        return self.number("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", list(backends))

    def number(self, query, *params):
        with connection.cursor() as cursor:
            cursor.execute(query, params)
            return cursor.fetchone()[0]


class Command(SimpleTestCase):
    def test_reload_is_for_one_process(self):
        with self.assertRaisesMessage(CommandError, "leave out --processes"):
            call_command("chancy_worker", "--reload", "--processes", "2")
