"""Checkpoints: whose one is, its generation, how far it is, how often its batch failed."""
