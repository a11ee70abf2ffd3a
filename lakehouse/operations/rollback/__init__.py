"""Restores a table to an older version, and does what has to follow."""
