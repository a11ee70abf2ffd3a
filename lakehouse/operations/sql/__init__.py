"""Statements of the SQL prompt: what they read and write, and how values are shown."""
