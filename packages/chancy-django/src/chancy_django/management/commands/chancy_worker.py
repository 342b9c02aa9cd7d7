"""`manage.py chancy_worker`: what `chancy-worker` does, with the tasks and the database of the project."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.autoreload import get_child_arguments

from chancy import Chancy
from chancy_django.checks import TAG
from chancy_django.project import app_of_project, prepare, queues_named
from chancy_django.reloading import look_at_project
from chancy_worker import cli, init, reloading
from chancy_worker.logs import setting


class Command(BaseCommand):
    """Perform the jobs of the project until stopped."""

    help = "Perform the jobs of the project's tasks."
    requires_system_checks = [TAG]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See `chancy_worker.cli`."""
        cli.add_options(parser)
        parser.add_argument(
            "--reload", action="store_true", help="start again when a file of the project changes; for development"
        )

    def handle(self, *_: Any, **given: Any) -> None:
        """Ends this process."""
        options = argparse.Namespace(**given)
        if options.reload and options.processes > 1:
            raise CommandError("--reload is for development, with one process: leave out --processes")
        cli.to_its_end(lambda: self._main(options))

    def _main(self, options: argparse.Namespace) -> int:
        if os.getpid() == 1 and (ended := init.stay_behind()) is not None:
            return ended
        again = get_child_arguments()
        if options.reload:
            command = reloading.without_reload(again)
            return reloading.run(command, look_at_project(), self.stderr.write, grace=options.grace)
        if not logging.getLogger("chancy.worker").hasHandlers():  # LOGGING says nothing of it
            setting.set_up(options.log_format, options.log_level)

        def find() -> Chancy:
            prepare()
            setting.turn_on(job_lines=options.job_lines)
            app = cli.told(app_of_project(), options)
            cli.warn_of_others(app, queues_named(), "this project")
            return app

        return cli.serve(options, find, again, "chancy_worker", "see DATABASES in the project's settings")
