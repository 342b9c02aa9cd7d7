"""The worker of Chancy: performs jobs, keeps its lease, and tells the truth about what happened."""

from .attempts.middleware import Middleware, Proceed
from .attempts.verdict import Completion
from .config import Timing, WorkerConfig
from .worker import Worker

__all__ = ["Completion", "Middleware", "Proceed", "Timing", "Worker", "WorkerConfig"]
