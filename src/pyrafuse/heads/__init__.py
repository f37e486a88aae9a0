"""Pyramid -> predictions; a head never sees what should have been predicted."""
