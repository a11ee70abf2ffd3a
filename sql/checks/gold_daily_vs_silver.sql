-- id: gold_daily_vs_silver
-- title: Daily Gold equals a recompute from Silver
-- severity: error
-- grain: a day and customer, once for each side that has it
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: gold-drift
-- description: Both ways. Closed days are issued bills, checked with their adjustments by gold_final_changed and
--   billing_unexplained; days and customers that Silver changed after the version that Gold has processed are left out.

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
    SELECT DISTINCT _event_date AS day, customer_id
    FROM silver.api_usage_events
    WHERE _processed_at >= (SELECT since FROM waiting)
),
closed AS (
    SELECT DISTINCT day FROM gold.api_usage_daily WHERE billing_status = 'final'
),
recomputed AS (
    SELECT CAST(event_timestamp AS DATE) AS day, customer_id,
        count(*) AS event_count,
        count_if(status_code >= 400) AS error_count,
        sum(request_bytes) AS request_bytes,
        sum(response_bytes) AS response_bytes,
        count_if(_is_late_arriving) AS late_count,
        count(DISTINCT endpoint) AS distinct_endpoints
    FROM silver.api_usage_events
    WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    GROUP BY ALL
),
published AS (
    SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, distinct_endpoints
    FROM gold.api_usage_daily
    WHERE day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
),
different AS (
    SELECT 'gold' AS side, * FROM (SELECT * FROM published EXCEPT ALL SELECT * FROM recomputed)
    UNION ALL
    SELECT 'silver' AS side, * FROM (SELECT * FROM recomputed EXCEPT ALL SELECT * FROM published)
)
SELECT different.*
FROM different
LEFT ANTI JOIN waiting_keys USING (day, customer_id)
LEFT ANTI JOIN closed USING (day)
ORDER BY day, customer_id, side;
