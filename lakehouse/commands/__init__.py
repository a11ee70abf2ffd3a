"""The `lakehouse` command: one file a command, which reads flags, calls an operation and shows what it gave."""
