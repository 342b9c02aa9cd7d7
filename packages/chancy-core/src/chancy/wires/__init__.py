"""Through what statements travel: the caller's connection."""
