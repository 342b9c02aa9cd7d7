"""The fixture for who writes tests as functions, with pytest-django."""

import pytest
from shop import tasks
from shop.models import Order


class TestFixture:
    def test_it_performs_what_a_test_enqueues(self, django_chancy_drain):
        order = Order.objects.create(name="by a function")
        tasks.ship.enqueue(order.pk)
        assert django_chancy_drain().succeeded == 1
        order.refresh_from_db()
        assert order.shipped == 1

    def test_nothing_of_it_is_left(self, django_chancy_drain):
        assert (Order.objects.count(), django_chancy_drain().attempts) == (0, 0)

    @pytest.mark.django_db(transaction=True)
    def test_where_tests_commit_it_commits_as_well(self, django_chancy_drain):
        order = Order.objects.create(name="committed")
        tasks.ship.enqueue(order.pk)
        tasks.aship.enqueue(order.pk)
        assert django_chancy_drain().succeeded == 2
        order.refresh_from_db()
        assert order.shipped == 2
