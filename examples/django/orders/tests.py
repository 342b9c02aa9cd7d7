"""Jobs in tests: `drain` performs them in the test's own transaction, which is taken back at its end."""

from datetime import timedelta
from decimal import Decimal
from unittest import mock

from django.core import mail
from django.db import connection
from django.test import Client, TestCase
from django.utils import timezone

import chancy
from chancy_django.testing import drain

from .models import Order
from .tasks import count_turnover, send_receipt

ANN = {"customer": "ann@example.com", "total": "12.50"}


class Orders(TestCase):
    def test_an_order_sends_a_receipt(self):
        self.client.post("/orders/", ANN)
        self.assertEqual(drain().succeeded, 1)
        self.assertEqual([message.to for message in mail.outbox], [["ann@example.com"]])
        self.assertIsNotNone(Order.objects.get().receipt_sent_at)

    def test_a_view_that_fails_leaves_neither_order_nor_job(self):
        client = Client(raise_request_exception=False)
        response = client.post("/orders/", ANN | {"customer": "ann@example.invalid"})
        self.assertEqual((response.status_code, Order.objects.count(), chancy.jobs(connection)), (500, 0, []))

    def test_a_receipt_is_tried_again_when_the_mail_server_is_away(self):
        order = Order.objects.create(**ANN)
        result = send_receipt.enqueue(order.pk)
        with mock.patch("orders.tasks.send_mail", side_effect=[OSError("away"), None]):
            drained = drain(with_scheduled=True)
        result.refresh()
        self.assertEqual((drained.retried, drained.succeeded, result.attempts), (1, 1, 2))

    def test_a_typed_task_is_submitted_on_djangos_connection(self):
        yesterday = timezone.now() - timedelta(days=1)
        Order.objects.create(receipt_sent_at=yesterday, **ANN)
        job = count_turnover.submit(connection, day=yesterday.date())
        drain()
        self.assertEqual(job.result(connection), Decimal("12.50"))
