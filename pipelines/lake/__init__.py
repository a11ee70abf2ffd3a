"""What needs no JVM: settings, errors, tables, storage, leases, the ledger, Delta's log. It imports neither pyspark nor py4j."""
