-- id: gold_final_changed
-- title: Closed days still equal Silver
-- severity: warning
-- grain: a closed day and customer
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: billing
-- description: Late events that came after a day was closed: the bill stays, and each of these needs an adjustment.

WITH closed AS (
    SELECT DISTINCT day FROM gold.api_usage_daily WHERE billing_status = 'final' AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
),
now AS (
    SELECT _event_date AS day, customer_id, count(*) AS event_count, sum(response_bytes) AS response_bytes
    FROM silver.api_usage_events LEFT SEMI JOIN closed ON closed.day = _event_date
    GROUP BY ALL
),
billed AS (
    SELECT g.day, g.customer_id, g.event_count, g.response_bytes FROM gold.api_usage_daily g LEFT SEMI JOIN closed USING (day)
)
SELECT day, customer_id,
    coalesce(billed.event_count, 0) AS billed_events, coalesce(now.event_count, 0) AS events_now,
    coalesce(now.event_count, 0) - coalesce(billed.event_count, 0) AS adjustment
FROM billed FULL JOIN now USING (day, customer_id)
WHERE NOT (billed.event_count <=> now.event_count AND billed.response_bytes <=> now.response_bytes)
ORDER BY day, customer_id;
