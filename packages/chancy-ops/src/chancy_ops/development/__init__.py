"""What `chancy dev` has beside itself: a folder of the project, and programs that end with it."""
