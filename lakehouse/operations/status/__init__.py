"""Reads and describes what the lake holds and how far each layer has come, for `lakehouse status` and the doctor; no JVM."""
