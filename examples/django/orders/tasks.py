"""Tasks, of Django and of Chancy: in one project there may be both."""

from datetime import date, timedelta
from decimal import Decimal

from django.core.mail import send_mail
from django.db.models import Sum
from django.utils import timezone

import chancy
from chancy import Backoff, Limit, Unique

from .models import Order

try:
    from django.tasks import task
except ImportError:  # on Django 5.2
    from django_tasks import task


@task(queue_name="mail", max_attempts=5, retry=Backoff(), unique=Unique(key=lambda order_id: order_id))
def send_receipt(order_id):
    """A task of Django's with what Chancy adds: tried again when the mail server is away, and there once an order."""
    order = Order.objects.get(pk=order_id)
    send_mail("Your receipt", f"{order.total} received, thank you.", "shop@example.com", [order.customer])
    Order.objects.filter(pk=order_id).update(receipt_sent_at=timezone.now())


@chancy.task(limits=[Limit.time(60)], schedule=chancy.cron("5 0 * * *", timezone="UTC"))
def count_turnover(day: date | None = None) -> Decimal:
    """A task of Chancy's: typed, in a child process that is killed after a minute, and submitted every night."""
    day = day or timezone.now().date() - timedelta(days=1)
    found = Order.objects.filter(receipt_sent_at__date=day).aggregate(turnover=Sum("total"))
    return found["turnover"] or Decimal(0)
