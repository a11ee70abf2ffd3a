"""The independent checker of the invariants: it reads tables with deltalake and DuckDB, never with the pipeline's code."""
