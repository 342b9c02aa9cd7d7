"""What waits for the result of a job."""
