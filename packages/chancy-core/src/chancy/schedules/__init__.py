"""Recurring jobs: when they are due, and their rows."""
