"""A shop whose database is told by SHOP_DSN and SHOP_OPTIONS; what else a test wants otherwise is told by SHOP_SETTINGS, as JSON."""

import json
import os

from psycopg.conninfo import conninfo_to_dict

_place = conninfo_to_dict(os.environ.get("SHOP_DSN", ""))

SECRET_KEY = "of no value"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "America/Chicago"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "chancy_django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "shop.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("SHOP_NAME") or _place.get("dbname", ""),
        "USER": _place.get("user", ""),
        "PASSWORD": _place.get("password", ""),
        "HOST": _place.get("host", ""),
        "PORT": _place.get("port", ""),
        "ATOMIC_REQUESTS": True,
        "CONN_MAX_AGE": None,
        "OPTIONS": json.loads(os.environ.get("SHOP_OPTIONS", "{}")),
        "TEST": {"NAME": os.environ.get("SHOP_TEST_NAME", "test_shop")},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TASKS = {
    "default": {"BACKEND": "chancy_django.ChancyBackend", "QUEUES": ["default", "mail"]},
    "once": {"BACKEND": "chancy_django.ChancyBackend", "OPTIONS": {"max_attempts": 1}},
    "thrice": {"BACKEND": "chancy_django.ChancyBackend"},
    "immediate": {"BACKEND": "chancy_django.testing.ImmediateBackend"},
}
CHANCY = {"KEEP": None}

globals().update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))
