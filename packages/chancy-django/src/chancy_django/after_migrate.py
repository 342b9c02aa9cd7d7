"""What follows `manage.py migrate` and `flush`: the schema where migrations are off, and empty tables where all others
are empty. (Django makes and flushes what models say, and of Chancy's tables there is none.)
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.transaction import atomic

import chancy

from .settings import settings_in_use
from .steps import empty, found


def after_migrate(*, sender: Any, using: str, **told: Any) -> None:
    """Of Django's signal `post_migrate`."""
    settings, connection = settings_in_use(), connections[using]
    if using != settings.database or connection.vendor != "postgresql":
        return
    if "plan" not in told:  # by `flush`: at the end of a TransactionTestCase, or because somebody wants it
        if found(connection):
            empty(connection)
    elif MigrationLoader.migrations_module(sender.label)[0] is None:  # pytest --no-migrations
        with atomic(using=using):
            if not found(connection):
                chancy.migrate(connection, schema=settings.schema)
