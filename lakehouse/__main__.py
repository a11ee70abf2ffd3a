"""`python -m lakehouse` is the `lakehouse` command."""

from lakehouse.cli import run

run()
