"""The dashboard: an ASGI application that looks at a queue, for whoever is on call. Of `chancy-ops[web]`."""

from .access.doors import Auth, by_header, by_token
from .access.users import OPERATE, VIEW, Action, User
from .app import Dashboard

__all__ = ["OPERATE", "VIEW", "Action", "Auth", "Dashboard", "User", "by_header", "by_token"]
