"""OpenTelemetry: the trace of a submit goes on in the job, and metrics of both.

chancy_otel.instrument()
app = Chancy(middleware=[chancy_otel.middleware], surround=chancy_otel.surround)
"""

from .attempts import middleware, surround
from .instrumenting import instrument

__all__ = ["instrument", "middleware", "surround"]
