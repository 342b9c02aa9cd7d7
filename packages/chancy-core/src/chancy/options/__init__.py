"""What is given as an option of a task, a submit or a verb, and the plain kind that it becomes."""
