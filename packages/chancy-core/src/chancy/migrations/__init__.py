"""The schema in the database: making it, and who may what in it."""
