-- id: gold_hourly_vs_silver
-- title: Hourly Gold equals a recompute from Silver
-- severity: error
-- grain: an hour, customer and endpoint, once for each side that has it
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: gold-drift
-- description: Both ways: rows that only Gold has and rows that only Silver gives. Rows of hours, customers and endpoints that
--   Silver changed after the version that Gold has processed are left out: a running stream is behind, not wrong.

WITH gold_done AS (
    -- The Silver version up to which Gold has processed the change feed.
    SELECT coalesce(max(CAST(get_json_object(offsets, '$.silver_version[1]') AS BIGINT)), -1) AS version
    FROM ops.batch_ledger
    WHERE job = 'gold'
),
waiting AS (
    -- Silver rows written since then are no drift: Gold has not seen them yet.
    SELECT coalesce(
        min(started_at) FILTER (WHERE CAST(get_json_object(versions, "$['silver.api_usage_events']") AS BIGINT) > version),
        max(started_at) + INTERVAL 1 MICROSECOND
    ) AS since
    FROM ops.batch_ledger CROSS JOIN gold_done
    WHERE job = 'silver'
),
waiting_keys AS (
    SELECT DISTINCT date_trunc('HOUR', event_timestamp) AS hour, customer_id, endpoint
    FROM silver.api_usage_events
    WHERE _processed_at >= (SELECT since FROM waiting)
),
recomputed AS (
    SELECT date_trunc('HOUR', event_timestamp) AS hour, customer_id, endpoint,
        count(*) AS event_count,
        count_if(status_code >= 400) AS error_count,
        sum(request_bytes) AS request_bytes,
        sum(response_bytes) AS response_bytes,
        count_if(_is_late_arriving) AS late_count,
        count(DISTINCT api_key_id) AS distinct_api_keys,
        count_if(response_time_ms <= 5) AS latency_le_5,
        count_if(response_time_ms <= 10 AND response_time_ms > 5) AS latency_le_10,
        count_if(response_time_ms <= 25 AND response_time_ms > 10) AS latency_le_25,
        count_if(response_time_ms <= 50 AND response_time_ms > 25) AS latency_le_50,
        count_if(response_time_ms <= 100 AND response_time_ms > 50) AS latency_le_100,
        count_if(response_time_ms <= 250 AND response_time_ms > 100) AS latency_le_250,
        count_if(response_time_ms <= 500 AND response_time_ms > 250) AS latency_le_500,
        count_if(response_time_ms <= 1000 AND response_time_ms > 500) AS latency_le_1000,
        count_if(response_time_ms <= 2500 AND response_time_ms > 1000) AS latency_le_2500,
        count_if(response_time_ms <= 5000 AND response_time_ms > 2500) AS latency_le_5000,
        count_if(response_time_ms > 5000) AS latency_gt_5000
    FROM silver.api_usage_events
    WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    GROUP BY ALL
),
published AS (
    SELECT hour, customer_id, endpoint,
        event_count, error_count, request_bytes, response_bytes, late_count, distinct_api_keys, latency_le_5,
        latency_le_10, latency_le_25, latency_le_50, latency_le_100, latency_le_250, latency_le_500,
        latency_le_1000, latency_le_2500, latency_le_5000, latency_gt_5000
    FROM gold.api_usage_hourly
    WHERE CAST(hour AS DATE) = coalesce(CAST(nullif('${date}', '') AS DATE), CAST(hour AS DATE))
),
different AS (
    SELECT 'gold' AS side, * FROM (SELECT * FROM published EXCEPT ALL SELECT * FROM recomputed)
    UNION ALL
    SELECT 'silver' AS side, * FROM (SELECT * FROM recomputed EXCEPT ALL SELECT * FROM published)
)
SELECT different.*
FROM different LEFT ANTI JOIN waiting_keys USING (hour, customer_id, endpoint)
ORDER BY hour, customer_id, endpoint, side;
