"""The first step of the schema, and what Django is told of it: jobs are a model to look at."""

from django.db import migrations, models

from chancy_django.models import META
from chancy_django.steps import ApplyStep


class Migration(migrations.Migration):
    """See `chancy_django.steps`."""

    initial = True
    operations = [
        ApplyStep(1),
        migrations.CreateModel(
            "Job", [("id", models.BigIntegerField(primary_key=True, serialize=False))], options=META
        ),
    ]
