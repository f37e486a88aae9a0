"""Necks found by search: a space of graphs, strategies that draw from it, and what they are ranked by."""
