"""How the result of a job is waited for."""
