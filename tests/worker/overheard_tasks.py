"""The same, in a program that has a handler of its own at the root.

Not imported by tests, whose own logging would be gone.
"""

from __future__ import annotations

import logging.config

import said_tasks

__all__ = ["said_tasks"]

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"job": {"()": "chancy.WithJob"}},
        "formatters": {
            "own": {"format": "own|%(levelname)s|%(name)s|%(job)s|%(task)s|%(attempt)s|%(queue)s|%(message)s"}
        },
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["job"]}},
        "root": {"level": "INFO", "handlers": ["own"]},
    }
)
