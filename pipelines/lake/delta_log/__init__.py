"""Reads Delta's log and rows without a JVM."""
