-- id: ledger_totals
-- title: The batches' sums are what the tables hold
-- severity: error
-- grain: a table
-- parameters: none
-- playbook: conservation
-- description: Rows of batches that are not in the ledger yet (running now) are left out. A row that has moved to Bronze's
--   archive (ops.bronze_archive) counts once, whether it was put back or not.

WITH sums AS (
    SELECT
        coalesce(sum(inserted) FILTER (WHERE job = 'bronze'), 0) AS bronze,
        coalesce(sum(inserted) FILTER (WHERE job = 'silver'), 0) AS silver,
        coalesce(sum(dead_lettered) FILTER (WHERE job = 'silver'), 0) AS dead_letters,
        max(started_at) FILTER (WHERE job = 'bronze') AS bronze_started,
        max(started_at) FILTER (WHERE job = 'silver') AS silver_started
    FROM ops.batch_ledger
),
archived AS (
    SELECT coalesce(sum(last_offset - first_offset + 1), 0) AS rows FROM ops.bronze_archive
),
hot AS (
    SELECT count(*) AS rows
    FROM bronze.api_usage_events b
    CROSS JOIN sums s
    LEFT ANTI JOIN ops.bronze_archive a
        ON a.topic = b._kafka_topic AND a.partition = b._kafka_partition AND a.day = b._event_date
        AND b._kafka_offset BETWEEN a.first_offset AND a.last_offset
    WHERE b._ingested_at <= s.bronze_started
),
held AS (
    SELECT 'bronze.api_usage_events' AS table_name, bronze AS ledger, hot.rows + archived.rows AS rows
    FROM sums CROSS JOIN hot CROSS JOIN archived
    UNION ALL
    SELECT 'silver.api_usage_events', silver,
        (SELECT count(*) FROM silver.api_usage_events WHERE _processed_at <= silver_started) FROM sums
    UNION ALL
    SELECT 'bronze.api_usage_events_dlq', dead_letters,
        (SELECT count(*) FROM bronze.api_usage_events_dlq WHERE _dead_lettered_at <= silver_started) FROM sums
)
SELECT table_name, ledger, rows, rows - ledger AS difference
FROM held
WHERE NOT rows <=> ledger;
