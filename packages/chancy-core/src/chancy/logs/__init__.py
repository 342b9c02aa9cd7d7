"""What jobs log: of which job a record is, and those that were kept with them."""
