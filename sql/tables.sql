-- The lake's tables by name, for plain spark-sql: `spark-sql ... --hivevar lake=/path/to/lake -i sql/tables.sql`; see README.md.
-- Views, not CREATE TABLE ... LOCATION: that would make an empty table where there is none yet. This only reads.
SET TIME ZONE 'UTC';
CREATE DATABASE IF NOT EXISTS bronze;
CREATE DATABASE IF NOT EXISTS silver;
CREATE DATABASE IF NOT EXISTS gold;
CREATE DATABASE IF NOT EXISTS ops;
CREATE VIEW IF NOT EXISTS bronze.api_usage_events AS SELECT * FROM delta.`${lake}/bronze/api_usage_events`;
CREATE VIEW IF NOT EXISTS bronze.api_usage_events_dlq AS SELECT * FROM delta.`${lake}/bronze/api_usage_events_dlq`;
CREATE VIEW IF NOT EXISTS silver.api_usage_events AS SELECT * FROM delta.`${lake}/silver/api_usage_events`;
CREATE VIEW IF NOT EXISTS gold.api_usage_by_key AS SELECT * FROM delta.`${lake}/gold/api_usage_by_key`;
CREATE VIEW IF NOT EXISTS gold.api_usage_hourly AS SELECT * FROM delta.`${lake}/gold/api_usage_hourly`;
CREATE VIEW IF NOT EXISTS gold.api_usage_daily AS SELECT * FROM delta.`${lake}/gold/api_usage_daily`;
CREATE VIEW IF NOT EXISTS ops.batch_ledger AS SELECT * FROM delta.`${lake}/ops/batch_ledger`;
CREATE VIEW IF NOT EXISTS ops.known_gaps AS SELECT * FROM delta.`${lake}/ops/known_gaps`;
CREATE VIEW IF NOT EXISTS ops.bronze_archive AS SELECT * FROM delta.`${lake}/ops/bronze_archive`;
