-- ops.reconciliation by name, for plain spark-sql: a second `-i` after tables.sql, once the daily batch has run.
CREATE VIEW IF NOT EXISTS ops.reconciliation AS SELECT * FROM delta.`${lake}/ops/reconciliation`;
