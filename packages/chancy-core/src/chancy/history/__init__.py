"""How a finished job gets there, and for how long."""
