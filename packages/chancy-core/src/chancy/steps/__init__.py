"""Steps: parts of one job whose result is kept, so that a retry does not do them again."""
