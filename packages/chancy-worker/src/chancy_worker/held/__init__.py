"""What is this worker's, from the answer of a claim until the database has confirmed the verdict."""
