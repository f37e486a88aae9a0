"""Train a detector by a recipe: schedule, optimiser, callbacks, one run."""
