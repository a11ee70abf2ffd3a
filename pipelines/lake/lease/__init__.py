"""Leases: who writes a layer's tables, one at a time."""
