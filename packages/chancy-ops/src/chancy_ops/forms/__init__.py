"""A task's arguments as a person types them: a form of its signature, and what was typed as the job that is meant.

All of it is plain data; a page, or a command, gives it its looks. `chancy submit` reads its arguments in the same way.
"""
