"""Detection in several views of an image, tiles or augmented copies, and what they found put together."""
