"""Who may see and do what, and from where."""
