"""What the shop sells."""

from django.db import models


class Order(models.Model):
    name = models.CharField(max_length=50, unique=True)
    shipped = models.IntegerField(default=0)
