"""What a round says to the database, and which jobs it may bring."""
