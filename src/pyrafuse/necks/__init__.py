"""Pyramid -> Pyramid, one paper a file."""
