"""What needs no torch: errors, registries, names of files, reading of pickles."""
