"""Train a detector by a recipe: schedule, optimiser, loop, one run."""
