"""What a worker's numbers are for whoever asks over HTTP."""
