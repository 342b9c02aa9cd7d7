"""What has to do with Chancy: the app, the backend of TASKS, and what is said in CHANCY."""

import os

from psycopg.conninfo import conninfo_to_dict

PLACE = conninfo_to_dict(os.environ.get("DATABASE_URL", "postgresql:///orders"))

SECRET_KEY = "an example has none"  # noqa: S105
DEBUG = True
TIME_ZONE = "UTC"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "config.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chancy_django",
    "orders",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": PLACE.get("dbname", ""),
        "USER": PLACE.get("user", ""),
        "PASSWORD": PLACE.get("password", ""),
        "HOST": PLACE.get("host", ""),
        "PORT": PLACE.get("port", ""),
        "ATOMIC_REQUESTS": True,  # a view's rows and jobs are there together, or not at all
        "CONN_MAX_AGE": 600,
    }
}

TASKS = {"default": {"BACKEND": "chancy_django.ChancyBackend", "QUEUES": ["default", "mail"]}}
CHANCY = {"QUEUES": {"default": 50, "mail": 5}}
