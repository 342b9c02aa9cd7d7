"""One for each numbered step of the schema."""
