"""What Django's own tests of tasks need of a project, with Chancy's backends in the place of Django's."""

import os

from psycopg.conninfo import conninfo_to_dict

_place = conninfo_to_dict(os.environ["SHOP_DSN"])

SECRET_KEY = "of no value"
USE_TZ = False
INSTALLED_APPS = ["chancy_django", "tasks"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _place["dbname"],
        "USER": _place.get("user", ""),
        "PASSWORD": _place.get("password", ""),
        "HOST": _place.get("host", ""),
        "PORT": _place.get("port", ""),
        "TEST": {"NAME": os.environ["SHOP_TEST_NAME"]},
    }
}
TASKS = {"default": {"BACKEND": "chancy_django.ChancyBackend"}}
