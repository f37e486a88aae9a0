"""Data sets as tar shards with an index: written, read, and fetched from an address."""
