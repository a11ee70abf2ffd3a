"""The `lakehouse` command in four rooms.

`commands` reads flags and shows answers; `operations` does what an operator does, without a terminal; `proof` shares no logic
with what it proves; `local` is the laptop: broker, event generator, demo.
"""
