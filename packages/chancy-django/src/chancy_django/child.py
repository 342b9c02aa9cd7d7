"""Imported by the child processes of a worker before anything of the project: sets Django up, and then imports its
tasks as the worker does.
"""

import django
from django.apps import apps

from .project import prepare, surround

__all__ = ["surround"]

if not apps.ready:
    django.setup()
prepare()
