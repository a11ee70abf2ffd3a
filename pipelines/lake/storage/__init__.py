"""Reads and writes files of the lake, and tells absent, not readable and damaged apart."""
