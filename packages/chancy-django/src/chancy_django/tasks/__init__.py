"""A backend of `django.tasks`: what stands on a task, what becomes of it, and its results."""
