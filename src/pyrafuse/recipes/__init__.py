"""Experiments as typed functions: each gives a whole `Recipe`."""
