"""Where candidates are trained: on this machine, or on many."""
