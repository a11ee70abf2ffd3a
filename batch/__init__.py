"""The batch jobs, one script each.

`reconcile_gold.py` recomputes a day of Gold from Silver, repairs and closes it: what billing uses (`reconciliation.py` says what
differed, `adjustments.py` what a closed bill lacks). `archive_bronze.py` moves old days of Bronze into the archive.
`dlq_retention.py` takes the bytes of closed dead letters.
"""
