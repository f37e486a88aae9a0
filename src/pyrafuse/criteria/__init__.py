"""Assigner and losses together: predictions and targets -> a dict of losses."""
