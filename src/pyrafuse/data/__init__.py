"""Data sets in and out: reading, checking, augmentation and loading."""
