-- What the daily batch writes, by name, for plain spark-sql: a second `-i` after tables.sql, once it has run.
CREATE VIEW IF NOT EXISTS ops.reconciliation AS SELECT * FROM delta.`${lake}/ops/reconciliation`;
CREATE VIEW IF NOT EXISTS gold.billing_adjustments AS SELECT * FROM delta.`${lake}/gold/billing_adjustments`;
-- What billing reads: the lake's own view of this name (pipelines/lake/views.py).
CREATE VIEW IF NOT EXISTS gold.bill AS
SELECT day, customer_id, sum(coalesce(event_count, 0)) AS event_count, sum(coalesce(error_count, 0)) AS error_count,
    sum(coalesce(request_bytes, 0)) AS request_bytes, sum(coalesce(response_bytes, 0)) AS response_bytes,
    sum(coalesce(late_count, 0)) AS late_count
FROM (
    SELECT *, max(is_issued) OVER (PARTITION BY day) AS has_issued
    FROM (
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, 1 AS is_issued
        FROM gold.api_usage_daily WHERE billing_status = 'final'
        UNION ALL
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, 0 FROM gold.billing_adjustments
    )
)
WHERE has_issued = 1 -- adjustments of a day that was closed after this query had read the first table are left out with the day
GROUP BY day, customer_id;
