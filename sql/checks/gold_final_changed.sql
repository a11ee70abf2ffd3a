-- id: gold_final_changed
-- title: Closed days with their adjustments equal Silver
-- severity: warning
-- grain: a closed day and customer
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: billing
-- description: Events that came after a day was closed: the bill stays, and the next run of the daily batch for the day adds what
--   is missing to gold.billing_adjustments. billing_unexplained says when no such event explains the difference.

WITH closed AS (
    SELECT DISTINCT day FROM gold.api_usage_daily
    WHERE billing_status = 'final' AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
),
billed AS (
    SELECT day, customer_id, sum(event_count) AS event_count, sum(error_count) AS error_count, sum(request_bytes) AS request_bytes,
        sum(response_bytes) AS response_bytes, sum(late_count) AS late_count
    FROM (
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count FROM gold.api_usage_daily
        UNION ALL
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count FROM gold.billing_adjustments
    ) LEFT SEMI JOIN closed USING (day)
    GROUP BY ALL
),
now AS (
    SELECT _event_date AS day, customer_id, count(*) AS event_count, count_if(status_code >= 400) AS error_count,
        sum(request_bytes) AS request_bytes, sum(response_bytes) AS response_bytes, count_if(_is_late_arriving) AS late_count
    FROM silver.api_usage_events LEFT SEMI JOIN closed ON closed.day = _event_date
    GROUP BY ALL
)
SELECT day, customer_id,
    coalesce(billed.event_count, 0) AS billed_events, coalesce(now.event_count, 0) AS events_now,
    coalesce(now.event_count, 0) - coalesce(billed.event_count, 0) AS missing_events
FROM billed FULL JOIN now USING (day, customer_id)
WHERE coalesce(billed.event_count, 0) <> coalesce(now.event_count, 0)
    OR coalesce(billed.error_count, 0) <> coalesce(now.error_count, 0)
    OR coalesce(billed.request_bytes, 0) <> coalesce(now.request_bytes, 0)
    OR coalesce(billed.response_bytes, 0) <> coalesce(now.response_bytes, 0)
    OR coalesce(billed.late_count, 0) <> coalesce(now.late_count, 0)
ORDER BY day, customer_id;
