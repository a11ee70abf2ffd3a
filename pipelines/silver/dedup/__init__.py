"""Deduplication of Silver: facts of records, the fates that follow from them, and the look-up of rows that the table has."""
