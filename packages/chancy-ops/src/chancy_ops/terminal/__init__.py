"""What every command needs: where it works, what it is given, and how it answers."""
