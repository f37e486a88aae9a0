"""How good a detector is: COCO average precision, its breakdown, and what is mistaken for what."""
