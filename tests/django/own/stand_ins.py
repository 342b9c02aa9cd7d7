"""In the places of Django's `DummyBackend`, `ImmediateBackend` and `SimpleTestCase`, in copies of its own tests."""

from django.db import connection
from django.test import SimpleTestCase
from django.test.testcases import TransactionTestCase

import chancy_django.testing
from chancy_django import ChancyBackend
from chancy_django.steps import empty


class DummyBackend(ChancyBackend):
    """With a list of what it has been given, each compared with its row."""

    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.results = []

    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        assert self.get_result(result.id) == result
        self.results.append(self.get_result(result.id))
        return result

    def clear(self):
        self.results.clear()
        empty(connection)


class ImmediateBackend(chancy_django.testing.ImmediateBackend):
    """As it is."""


class WithDatabase(SimpleTestCase):
    """Whose tests may ask the database; each enqueue is committed, since async ones ask it from two threads."""

    databases = {"default"}


__all__ = ["DummyBackend", "ImmediateBackend", "TransactionTestCase", "WithDatabase"]
