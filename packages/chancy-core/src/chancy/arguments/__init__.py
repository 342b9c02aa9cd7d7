"""What a task's function takes and gives: checked at its decoration, compared at each submit, carried as JSON."""
