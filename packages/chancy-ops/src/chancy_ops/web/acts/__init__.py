"""What a form does when it is posted: an act a noun, each in one transaction with its row in the audit."""
