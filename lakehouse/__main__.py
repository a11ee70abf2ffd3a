"""`python -m lakehouse` is the `lakehouse` command."""

from lakehouse.commands.cli import run

run()
