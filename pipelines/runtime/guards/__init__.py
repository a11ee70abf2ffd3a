"""Guards of a start: what a job looks at before it writes, so that no record is lost, skipped or written twice.

`guards.py` has the list. A guard looks at the source, the tables, the ledger and the checkpoint (`start.py`), and raises one
sentence where going on would be wrong; it changes nothing. `pipelines/runtime/start_up.py` is where every job meets them.
"""
