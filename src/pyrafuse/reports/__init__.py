"""Pages about a training or an evaluation: AP first, then what explains it, each part with how to read it."""
