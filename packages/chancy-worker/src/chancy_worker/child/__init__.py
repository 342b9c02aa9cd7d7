"""The life inside a child process, and what it says to its worker."""
