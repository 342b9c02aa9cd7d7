from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from .models import Order
from .tasks import send_receipt


@csrf_exempt
def place(request: HttpRequest) -> JsonResponse:
    """The order and its job are in one transaction (ATOMIC_REQUESTS): whatever fails below takes back both."""
    order = Order.objects.create(customer=request.POST["customer"], total=request.POST["total"])
    result = send_receipt.enqueue(order.pk)
    if order.customer.endswith("@example.invalid"):
        raise ValueError("nobody can be written to there")
    return JsonResponse({"order": order.pk, "receipt": result.id})
