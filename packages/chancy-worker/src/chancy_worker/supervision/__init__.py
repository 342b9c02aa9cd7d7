"""Processes that look after each other: who ends with whom, and who hears that another one hangs."""
