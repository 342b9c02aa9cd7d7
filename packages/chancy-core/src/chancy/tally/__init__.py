"""What workers count beside their rounds: how attempts came out, how long jobs waited and ran."""
