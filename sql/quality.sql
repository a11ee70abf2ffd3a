-- What audits of days found, by name, for plain spark-sql: one more `-i`, once the daily batch has audited a day.
CREATE VIEW IF NOT EXISTS ops.quality_results AS SELECT * FROM delta.`${lake}/ops/quality_results`;
