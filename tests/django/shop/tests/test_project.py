"""The schema in two ledgers, what `check` says, and what the settings may say."""

import io
from unittest import mock

from django.core import checks as djangos
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.transaction import atomic
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from shop import tasks

import chancy
from chancy import Queue
from chancy.migrations.migrate import newest, steps
from chancy_django import checks, project
from chancy_django.settings import settings_in_use
from chancy_django.steps import ApplyStep


def sql(query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def their_ledger():
    return sorted(name for app, name in MigrationRecorder(connection).applied_migrations() if app == "chancy")


def our_ledger():
    return [name for (name,) in sql("SELECT name FROM chancy.migration ORDER BY number")]


def migrate(*arguments):
    out = io.StringIO()
    call_command("migrate", *arguments, stdout=out)
    return out.getvalue()


class Migrations(TransactionTestCase):
    def tearDown(self):
        migrate()

    def without_schema(self):
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA chancy CASCADE; DELETE FROM django_migrations WHERE app = 'chancy'")

    def test_every_step_is_a_migration_of_django_under_the_same_name(self):
        loader = MigrationLoader(None)
        mine = {
            name: [operation.number for operation in migration.operations if isinstance(operation, ApplyStep)]
            for (app, name), migration in loader.disk_migrations.items()
            if app == "chancy"
        }
        self.assertEqual(mine, {step.name: [step.number] for step in steps()})

    def test_both_ledgers_agree_after_djangos_migrate(self):
        self.without_schema()
        migrate()
        self.assertEqual(their_ledger(), our_ledger())
        self.assertEqual(len(our_ledger()), newest())
        self.assertTrue(tasks.ship.enqueue(1).id)

    def test_both_ledgers_agree_where_chancys_own_migrate_was_first(self):
        self.without_schema()
        chancy.migrate(connection)
        self.assertEqual(their_ledger(), [])
        job = tasks.plain.submit(connection, 1)
        migrate()
        self.assertEqual(their_ledger(), our_ledger())
        self.assertEqual(chancy.get(connection, job.id).state, "ready")

    def test_chancys_own_migrate_finds_nothing_to_do_after_djangos(self):
        self.assertEqual(chancy.migrate(connection), [])

    def test_a_migration_that_fails_leaves_neither_ledger_changed(self):
        self.without_schema()
        with mock.patch("chancy.migrations.migrate.functions", return_value="SELECT 1/0"):
            with self.assertRaisesMessage(Exception, "division by zero"):
                migrate("chancy")
        self.assertEqual(their_ledger(), [])
        self.assertEqual(sql("SELECT to_regnamespace('chancy')"), [(None,)])

    def test_where_migrations_are_off_the_schema_is_made_all_the_same(self):
        self.without_schema()
        with override_settings(MIGRATION_MODULES={"chancy": None}):
            migrate("--run-syncdb")
        self.assertEqual(len(our_ledger()), newest())

    def test_the_sql_can_be_read_and_run_by_a_person(self):
        self.without_schema()
        for step in steps():
            out = io.StringIO()
            call_command("sqlmigrate", "chancy", step.name, stdout=out)
            with connection.cursor() as cursor:
                cursor.execute(out.getvalue())
        self.assertEqual(len(our_ledger()), newest())
        chancy.migrate(connection)
        self.assertTrue(tasks.ship.enqueue(1).id)

    def test_no_change_of_the_models_is_left_to_be_migrated(self):
        call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())


class Flush(TransactionTestCase):
    def test_no_job_of_another_test_is_there(self):
        self.assertEqual(chancy.jobs(connection), [])
        tasks.ship.enqueue(1)
        job = tasks.boom.enqueue()
        chancy.cancel(connection, int(job.id))

    test_no_job_of_another_test_is_there_either = test_no_job_of_another_test_is_there

    def test_what_is_set_for_the_schema_stays(self):
        self.assertEqual(len(sql("SELECT * FROM chancy.setting")), 1)
        self.assertEqual(len(our_ledger()), newest())


class Checks(TestCase):
    def found(self, **more):
        return {each.id: each for each in run_checks(tags=[checks.TAG], **more)}

    def test_a_project_that_is_right_hears_nothing(self):
        self.assertEqual(self.found(databases=["default"]), {})

    def test_a_database_that_is_none_and_one_that_is_not_postgres(self):
        with override_settings(CHANCY={"DATABASE": "elsewhere"}):
            self.assertIsInstance(self.found()["chancy.E001"], djangos.Error)
        with mock.patch.object(type(connections["default"]), "vendor", "sqlite"):
            self.assertIn("which is sqlite and has to be Postgres", self.found()["chancy.E002"].msg)

    def test_a_schema_that_lacks_a_step(self):
        sql("DELETE FROM chancy.migration RETURNING number")
        warning = self.found(databases=["default"])["chancy.W001"]
        self.assertIsInstance(warning, djangos.Warning)
        self.assertIn("manage.py migrate", warning.hint)

    def test_who_needs_a_schema_that_is_not_there_hears_of_djangos_own_command(self):
        with self.assertRaisesRegex(chancy.SchemaOutdated, "run `python manage.py migrate`$"), atomic():
            chancy.jobs(connection, schema="nowhere")

    def test_a_task_that_no_worker_would_find(self):
        import shop.elsewhere

        warning = self.found()["chancy.W002"]
        self.assertIn("shop.elsewhere.lost", warning.msg)
        with override_settings(CHANCY={"TASK_MODULES": ["tasks", "shop.elsewhere"]}):
            self.assertEqual(self.found(), {})
        for name in ("shop.elsewhere.lost",):
            from chancy.registry import tasks as known

            del known[name]
        del shop.elsewhere

    def test_the_backend_of_a_project_without_the_app(self):
        from shop.api import default_task_backend

        with self.modify_settings(INSTALLED_APPS={"remove": ["chancy_django"]}):
            (error,) = default_task_backend.check()
        self.assertEqual(error.id, "chancy.E003")


class Settings(SimpleTestCase):
    def said(self, **settings):
        with override_settings(CHANCY=settings):
            return settings_in_use()

    def test_queues_are_names_or_numbers_or_queues(self):
        self.assertEqual(self.said(QUEUES={"mail": 3}).queues, (Queue("mail", 3),))
        self.assertEqual(self.said(QUEUES=["mail", Queue("slow", 1)]).queues, (Queue("mail"), Queue("slow", 1)))

    def test_what_cannot_be_meant_is_refused(self):
        for wrong in (
            {"QUEUES": "mail"},
            {"QUEUES": {"mail": 0}},
            {"SCHEMA": 'a"b'},
            {"TASK_MODULES": "tasks"},
            {"X": 1},
        ):
            with self.assertRaisesMessage(ImproperlyConfigured, "CHANCY: "), override_settings(CHANCY=wrong):
                settings_in_use()
        settings_in_use.cache_clear()

    def test_a_worker_works_every_queue_that_is_named_somewhere(self):
        self.assertEqual([queue.name for queue in project.app_of_project().queues], ["default", "mail"])

    def test_the_connection_string_is_what_databases_says(self):
        from psycopg.conninfo import conninfo_to_dict

        from chancy_django.database import dsn_of

        with mock.patch.dict(connection.settings_dict["OPTIONS"], {"assume_role": "the shop", "sslmode": "prefer"}):
            place = conninfo_to_dict(dsn_of("default"))
        self.assertEqual(place["dbname"], connection.settings_dict["NAME"])
        self.assertEqual((place["sslmode"], place["options"]), ("prefer", "-c role=the\\ shop"))
