"""Why a detector found what it found: what contributed to each detection, computed as plain values."""
