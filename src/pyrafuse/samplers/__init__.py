"""Which of the assigned rows count."""
