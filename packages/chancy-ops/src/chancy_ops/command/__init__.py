"""The command `chancy`: look at a queue, submit, steer, and check before a deploy; a file a command."""
