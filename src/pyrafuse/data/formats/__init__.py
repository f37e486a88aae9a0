"""Data sets as they lie on disk: one annotation format a file."""
