"""A worker's connections: made anew when they break, or lent by a pooler."""
