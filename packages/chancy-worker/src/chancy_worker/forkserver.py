"""Imported by the fork server of the child processes, and by nobody else: SIGTERM to the whole group is not for it.

A service manager sends it to every process of a worker; the children would die with the server, in the middle of the
time that the worker gives them to finish.
"""

import signal

signal.signal(signal.SIGTERM, lambda *_: None)
