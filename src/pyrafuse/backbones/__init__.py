"""Images -> Pyramid."""
