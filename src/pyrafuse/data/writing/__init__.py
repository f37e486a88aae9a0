"""Data sets written anew: in another format, split, or put together."""
