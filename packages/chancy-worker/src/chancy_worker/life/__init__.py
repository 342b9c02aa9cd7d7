"""Being believed alive, taking back what the dead were running, and coming to an end."""
