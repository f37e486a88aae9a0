"""Pictures: curves, fusion weights, boxes beside the truth, and one HTML page that holds them all."""
