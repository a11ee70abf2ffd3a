"""Dead letters as a life cycle: open, then replayed or discarded."""
