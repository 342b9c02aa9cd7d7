"""The worker's side of its child processes: for what has to be killed when it goes over its limits."""
