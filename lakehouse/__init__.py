"""The `lakehouse` command and what it calls."""
