"""Daily batches."""
