"""Jobs in memory: a backend that has no database."""
