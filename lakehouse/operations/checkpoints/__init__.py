"""Checkpoints as things that people look at, copy, wind back and make anew; no JVM."""
