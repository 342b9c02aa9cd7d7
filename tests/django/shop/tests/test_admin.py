"""Jobs in Django's admin."""

from datetime import timedelta
from unittest import mock

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TestCase
from django.utils import timezone
from shop import tasks
from shop.api import task_started

import chancy
import chancy_ops
from chancy_django import admin
from chancy_django.models import Job
from chancy_django.testing import drain

JOBS = "/admin/chancy/job/"


class Admin(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.boss = User.objects.create_superuser("boss")
        cls.viewer = User.objects.create_user("viewer", is_staff=True)
        cls.viewer.user_permissions.add(Permission.objects.get(codename="view_job"))

    def setUp(self):
        self.client.force_login(self.boss)

    def act(self, action, *results, **more):
        data = {"action": action, "_selected_action": [result.id for result in results], **more}
        return self.client.post(JOBS, data, follow=True)

    def test_a_list_has_live_and_finished_jobs_and_can_be_narrowed(self):
        failed = tasks.boom.enqueue()
        drain()
        tasks.ship.using(queue_name="mail", run_after=timezone.now() + timedelta(days=1)).enqueue(1)
        page = self.client.get(JOBS)
        self.assertContains(page, "shop.tasks.boom")
        self.assertContains(page, "shop.tasks.ship")
        for query, there, not_there in (
            ("state=failed", "boom", "ship"),
            ("state=scheduled", "ship", "boom"),
            ("queue=mail", "ship", "boom"),
            ("q=shop.tasks.boom", "boom", "ship"),
            ("finished=any", "boom", "nothing"),
            ("state=none", "boom", "nothing"),
            (f"q={failed.id}", "boom", "ship"),
            (f"q={failed.id}&state=scheduled", "boom", "ship"),
        ):
            page = self.client.get(f"{JOBS}?{query}")
            self.assertContains(page, f'<td class="field-task">shop.tasks.{there}</td>', html=True)
            self.assertNotContains(page, f'<td class="field-task">shop.tasks.{not_there}</td>', html=True)

    def test_running_jobs_are_a_list_of_their_own(self):
        tasks.ship.enqueue(1)
        seen = []

        def look(sender, **_):
            seen.append(self.client.get(f"{JOBS}?state=running").context["cl"].result_count)

        task_started.connect(look)
        self.addCleanup(task_started.disconnect, look)
        drain()
        look(None)
        self.assertEqual(seen, [1, 0])

    def test_a_page_says_everything_of_a_job(self):
        failed, done = tasks.boom.enqueue(), tasks.told.enqueue("<b>")
        waiting = tasks.ship.using(run_after=timezone.now() + timedelta(days=1)).enqueue(1)
        drain()
        self.assertContains(self.client.get(f"{JOBS}{failed.id}/change/"), "ValueError: it broke")
        page = self.client.get(f"{JOBS}{done.id}/change/")
        self.assertContains(page, "&quot;&lt;b&gt;&quot;")  # as an argument and in the result
        self.assertNotContains(page, "<b>&quot;")
        self.assertContains(self.client.get(f"{JOBS}{waiting.id}/change/"), "is scheduled for")
        self.assertEqual(self.client.get(f"{JOBS}99999/change/").status_code, 302)

    def test_jobs_are_cancelled_run_again_and_deleted_by_chancys_verbs(self):
        failed = tasks.boom.enqueue()
        drain()
        waiting = tasks.ship.enqueue(1)
        self.assertContains(self.act("run_again", failed, waiting), "1 ready again, 1 left as they were")
        self.assertContains(self.act("cancel", failed, waiting), "2 cancelled, or asked to stop")
        self.assertEqual({row.state for row in chancy.jobs(connection)}, {"cancelled"})
        self.assertContains(self.act("remove", failed, waiting), "2 deleted")
        self.assertEqual(chancy.jobs(connection), [])

    def test_who_did_what_is_in_the_audit(self):
        failed = tasks.boom.enqueue()
        drain()
        waiting = tasks.ship.enqueue(1)
        for action in ("run_again", "cancel", "remove"):
            self.act(action, failed, waiting)
        done = [(row.who, row.via, row.verb, row.what["job"], row.changed) for row in chancy_ops.audit(connection)]
        by_boss = [
            ("boss", "django admin", verb, int(job.id), 1)
            for verb, job in (
                ("requeue", failed), ("cancel", waiting), ("cancel", failed), ("delete", waiting), ("delete", failed),
            )
        ]  # fmt: skip
        self.assertCountEqual(done, by_boss)

    def test_what_cannot_be_noted_is_not_done(self):
        waiting = tasks.ship.enqueue(1)
        with mock.patch.object(chancy_ops, "note", side_effect=chancy.InvalidOption("who", "no name")):
            self.assertContains(self.act("cancel", waiting), "0 cancelled, or asked to stop, 1 left as they were")
        self.assertEqual([row.state for row in chancy.jobs(connection)], ["ready"])
        self.assertEqual(chancy_ops.audit(connection), [])

    def test_a_key_that_another_job_has_is_told(self):
        first = tasks.once.enqueue(1)
        chancy.cancel(connection, int(first.id))
        tasks.once.enqueue(1)
        page = self.act("run_again", first)
        self.assertContains(page, "0 ready again, 1 left as they were")
        self.assertContains(page, "shop.tasks.once")

    def test_who_may_only_look_can_do_nothing(self):
        self.client.force_login(self.viewer)
        waiting = tasks.ship.enqueue(1)
        self.assertContains(self.client.get(JOBS), "shop.tasks.ship")
        self.assertContains(self.client.get(f"{JOBS}{waiting.id}/change/"), "shop.tasks.ship")
        for action in ("cancel", "remove"):
            self.act(action, waiting)
        self.assertEqual(self.client.get(f"{JOBS}add/").status_code, 403)
        self.assertEqual(self.client.post(f"{JOBS}{waiting.id}/delete/", {"post": "yes"}).status_code, 403)
        self.assertEqual([row.state for row in chancy.jobs(connection)], ["ready"])

    def test_nothing_is_counted_beyond_what_anybody_reads(self):
        for n in range(7):
            tasks.ship.enqueue(n)
        with mock.patch.object(admin, "MOST", 5):
            page = self.client.get(JOBS)
        self.assertEqual(page.context["cl"].result_count, 5)

    def test_an_action_on_everything_stops_and_says_so(self):
        results = [tasks.ship.enqueue(n) for n in range(7)]
        with mock.patch.object(admin, "AT_ONCE", 5):
            page = self.act("cancel", results[0], select_across="1", index="0")
        self.assertContains(page, "5 cancelled")
        self.assertContains(page, "There are more than 5")

    def test_the_model_itself_changes_nothing(self):
        tasks.ship.enqueue(1)
        job = Job.objects.get()
        self.assertRaises(TypeError, job.save)
        self.assertRaises(TypeError, job.delete)
