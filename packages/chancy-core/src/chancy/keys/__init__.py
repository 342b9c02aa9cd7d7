"""What makes a job unique, and what it waits for together with others."""
