"""The app `chancy_django`, which Django calls `chancy`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate

import chancy


class ChancyConfig(AppConfig):
    """Of this process: the schema, the checks, and what follows migrations."""

    name = "chancy_django"
    label = "chancy"
    verbose_name = "Background jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """See `AppConfig`."""
        from .after_migrate import after_migrate
        from .checks import TAG, check_database, check_settings, check_tasks
        from .settings import forget, settings_in_use

        chancy.configure(schema=settings_in_use().schema)
        chancy.SchemaOutdated.remedy = "run `python manage.py migrate`"
        checks.register(check_settings, TAG)
        checks.register(check_tasks, TAG)
        checks.register(check_database, TAG, checks.Tags.database)
        setting_changed.connect(forget)
        post_migrate.connect(after_migrate, sender=self)
