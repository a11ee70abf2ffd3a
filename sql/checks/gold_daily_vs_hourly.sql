-- id: gold_daily_vs_hourly
-- title: Daily Gold is the sum of hourly Gold
-- severity: error
-- grain: a day and customer, once for each side that has it
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: gold-drift
-- description: Both ways, for open days. A day whose hours changed after the daily table was last written is being processed
--   now and left out.

WITH written AS (
    SELECT greatest(
        (SELECT max(_updated_at) FROM gold.api_usage_daily),
        (SELECT max(started_at) FROM ops.batch_ledger WHERE job = 'gold')
    ) AS at
),
left_out AS (
    SELECT CAST(hour AS DATE) AS day FROM gold.api_usage_hourly WHERE _updated_at > (SELECT at FROM written)
    UNION
    SELECT day FROM gold.api_usage_daily WHERE billing_status = 'final'
),
summed AS (
    SELECT CAST(hour AS DATE) AS day, customer_id,
        sum(event_count) AS event_count, sum(error_count) AS error_count, sum(request_bytes) AS request_bytes,
        sum(response_bytes) AS response_bytes, sum(late_count) AS late_count, count(DISTINCT endpoint) AS distinct_endpoints
    FROM gold.api_usage_hourly
    WHERE CAST(hour AS DATE) = coalesce(CAST(nullif('${date}', '') AS DATE), CAST(hour AS DATE))
    GROUP BY ALL
),
published AS (
    SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, distinct_endpoints
    FROM gold.api_usage_daily
    WHERE day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
),
different AS (
    SELECT 'daily' AS side, * FROM (SELECT * FROM published EXCEPT ALL SELECT * FROM summed)
    UNION ALL
    SELECT 'hourly' AS side, * FROM (SELECT * FROM summed EXCEPT ALL SELECT * FROM published)
)
SELECT different.* FROM different LEFT ANTI JOIN left_out USING (day)
ORDER BY day, customer_id, side;
