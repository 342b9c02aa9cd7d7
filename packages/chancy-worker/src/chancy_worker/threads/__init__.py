"""Plain functions in threads of the worker's own process."""
