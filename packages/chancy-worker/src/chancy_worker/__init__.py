"""The worker of Chancy: performs jobs, keeps its lease, and tells the truth about what happened."""

from .attempt import Middleware, Proceed
from .config import Timing, WorkerConfig
from .supervisor import Worker
from .verdict import Completion

__all__ = ["Completion", "Middleware", "Proceed", "Timing", "Worker", "WorkerConfig"]
