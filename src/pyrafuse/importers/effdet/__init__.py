"""effdet: EfficientDets, told by keys and shapes, and by the name how they are used."""
