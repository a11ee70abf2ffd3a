"""Leases: who writes a layer's tables, and who runs on a checkpoint, one at a time.

`protocol.py` says what a backend does, `flock.py` is the one for the local disk, `backends.py` picks one by the path. `layers.py`
and `checkpoints.py` use any of them.
"""
