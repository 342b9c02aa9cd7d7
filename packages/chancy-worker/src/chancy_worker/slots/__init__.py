"""Where jobs run and which of them first: the room that a worker has."""
