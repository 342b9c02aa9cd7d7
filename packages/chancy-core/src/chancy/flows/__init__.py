"""Jobs that need others: results as arguments, and as results."""
