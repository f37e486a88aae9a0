"""Matches of predictions to objects."""
