"""A page a noun: what it asks, and what of that its template shows."""
