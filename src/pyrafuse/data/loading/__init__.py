"""From records to batches, in worker processes."""
