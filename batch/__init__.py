"""Holds the batch jobs' scripts: each has its flags, one call, what it prints, and its exit code.

`reconcile_gold.py` calls `pipelines/gold/reconciliation`, `archive_bronze.py` calls `pipelines/archive`, `dlq_retention.py` calls
`pipelines/silver/dead_letters/retention.py`. Nothing imports them: what others need of a job lives in its layer.
"""
