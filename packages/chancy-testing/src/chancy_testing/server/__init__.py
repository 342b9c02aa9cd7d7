"""A Postgres for tests, and schemas in it."""
