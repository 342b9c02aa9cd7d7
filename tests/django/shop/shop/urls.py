"""The shop's pages."""

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.db import connection, transaction
from django.http import JsonResponse
from django.urls import path

from . import tasks
from .models import Order


def order(request, name):
    """ATOMIC_REQUESTS: the row and both jobs, or nothing."""
    made = Order.objects.create(name=name)
    result = tasks.ship.enqueue(made.pk)
    job = tasks.plain.submit(connection, made.pk)
    if name.startswith("bad"):
        raise RuntimeError("after the enqueue")
    return JsonResponse({"id": result.id, "job": job.id})


@transaction.non_atomic_requests
async def order_by_one_function(request, name):
    """Both or neither, from an async view: in one synchronous function."""

    @sync_to_async
    def both():
        with transaction.atomic():
            made = Order.objects.create(name=name)
            tasks.ship.enqueue(made.pk)
            if name.startswith("bad"):
                raise RuntimeError("after the enqueue")

    await both()
    return JsonResponse({})


@transaction.non_atomic_requests
async def order_by_two_awaits(request, name):
    """What looks atomic and is not: each call that is awaited is a transaction of its own."""
    made = await Order.objects.acreate(name=name)
    await tasks.ship.aenqueue(made.pk)
    raise RuntimeError("after the enqueue")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("order/<name>", order),
    path("one/<name>", order_by_one_function),
    path("two/<name>", order_by_two_awaits),
]
