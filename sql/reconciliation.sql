-- What the daily batch writes, by name, for plain spark-sql: a second `-i` after tables.sql, once it has run.
CREATE VIEW IF NOT EXISTS ops.reconciliation AS SELECT * FROM delta.`${lake}/ops/reconciliation`;
CREATE VIEW IF NOT EXISTS gold.billing_adjustments AS SELECT * FROM delta.`${lake}/gold/billing_adjustments`;
