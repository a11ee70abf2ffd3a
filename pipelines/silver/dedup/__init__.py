"""Deduplication of Silver: the look-up of rows that the table has already."""
