"""A module that configures logging when it is imported, as programs do: it turns off all loggers that there are.

Not imported by tests, whose own logging would be gone.
"""

from __future__ import annotations

import logging
import logging.config

from chancy import task

logging.config.dictConfig(
    {
        "version": 1,
        "formatters": {"own": {"format": "own %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "root": {"level": "INFO", "handlers": ["own"]},
    }
)
log = logging.getLogger(__name__)


@task(keep_logs=True)
async def says_on_the_loop() -> None:
    log.info("on the loop")


@task(keep_logs=True)
def says_in_a_thread() -> None:
    log.info("in a thread")


@task(keep_logs=True, executor="process")
def says_in_a_child() -> None:
    log.info("in a child")
