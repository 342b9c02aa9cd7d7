"""Which types are carried as JSON, by whom they are read, and whether what arrives is what was given."""
