"""Many trainings side by side under one budget, and what may be concluded from them."""
