"""What a worker does beside its rounds."""
