"""What `manage.py check` says of a project's Chancy, before anybody meets with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names
from django.db import connections

from chancy.migrations.migrate import newest

from .project import strangers
from .settings import settings_in_use
from .steps import found

TAG = "chancy"
"""`manage.py check --tag chancy`"""


def check_settings(**_: Any) -> list[CheckMessage]:
    """Whether the jobs have a database that can hold them."""
    settings = settings_in_use()
    if settings.database not in connections:
        hint = f"DATABASES has {', '.join(connections)}"
        return [Error(f"CHANCY['DATABASE'] is {settings.database!r}, which is none", hint=hint, id="chancy.E001")]
    vendor = connections[settings.database].vendor
    if vendor != "postgresql":
        hint = "set CHANCY['DATABASE'] to the alias of one that is Postgres"
        message = f"the jobs are in database {settings.database!r}, which is {vendor} and has to be Postgres"
        return [Error(message, hint=hint, id="chancy.E002")]
    return []


def check_tasks(**_: Any) -> list[CheckMessage]:
    """Whether a worker would find the tasks that this process has met with, as far as can be seen from here."""
    return [
        Warning(
            f"task {name} is in module {module}, which no worker imports",
            hint=f"move it to the module `tasks` of an app, or add {module!r} to CHANCY['TASK_MODULES']",
            id="chancy.W002",
        )
        for name, module in strangers()
    ]


def check_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """With `check --database`: whether it has the schema that this version of Chancy needs."""
    settings = settings_in_use()
    if sys.argv[1:2] == ["migrate"]:  # which asks before it does what this would tell to do
        return []
    if settings.database not in (databases or ()) or connections[settings.database].vendor != "postgresql":
        return []
    if (number := found(connections[settings.database])) >= newest():
        return []
    message = f"schema {settings.schema!r} is at step {number} of {newest()}"
    return [Warning(message, hint="run `manage.py migrate`", id="chancy.W001")]
