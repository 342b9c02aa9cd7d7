"""What this worker's attempts came to, counted beside its rounds."""
