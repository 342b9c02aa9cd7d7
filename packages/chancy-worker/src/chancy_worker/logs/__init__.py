"""What a worker writes to its log: which job a record is of, in which form, and one line a job."""
