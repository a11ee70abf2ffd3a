-- id: freshness
-- title: No layer is behind the one before it
-- severity: warning
-- grain: a layer
-- parameters: none
-- playbook: stale-data
-- description: Records or batches that have waited for more than 15 minutes for the next layer.

WITH silver_read AS (
    SELECT CAST(p AS INT) AS p, max(bounds[1]) AS stop
    FROM (
        SELECT explode(from_json(offsets, 'MAP<STRING, ARRAY<BIGINT>>')) AS (p, bounds) FROM ops.batch_ledger WHERE job = 'silver'
    )
    GROUP BY p
),
gold_done AS (
    SELECT coalesce(max(CAST(get_json_object(offsets, '$.silver_version[1]') AS BIGINT)), -1) AS version
    FROM ops.batch_ledger
    WHERE job = 'gold'
),
behind AS (
    SELECT 'silver' AS layer, count(*) AS waiting, 'Bronze records' AS what, min(_ingested_at) AS since
    FROM bronze.api_usage_events LEFT JOIN silver_read ON p = _kafka_partition
    WHERE _kafka_offset >= coalesce(stop, 0)
    UNION ALL
    SELECT 'gold', count(*), 'Silver batches', min(committed_at)
    FROM ops.batch_ledger CROSS JOIN gold_done
    WHERE job = 'silver' AND inserted + replaced > 0
        AND CAST(get_json_object(versions, "$['silver.api_usage_events']") AS BIGINT) > version
)
SELECT layer, waiting, what, since
FROM behind
WHERE waiting > 0 AND since < current_timestamp() - INTERVAL 15 MINUTES;
