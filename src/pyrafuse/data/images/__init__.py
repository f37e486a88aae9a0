"""Images as the loader takes them: kept in memory, fitted as tensors."""
