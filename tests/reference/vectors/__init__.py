"""Golden vectors: what the originals computed, how to compare with it, and the values that it was computed with."""

from pathlib import Path

FOLDER = Path(__file__).parent
