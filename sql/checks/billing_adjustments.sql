-- id: billing_adjustments
-- title: Adjustments are of closed days, and each stands once
-- severity: error
-- grain: an adjustment
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: billing
-- description: An open day needs no adjustment, it is recomputed; one that has some was opened again behind the batch's back. An
--   adjustment that stands twice, or that adjusts nothing, was not written by the daily batch.

SELECT a.day, a.customer_id, a.sequence, a.cause, count(*) AS rows,
    CASE WHEN closed.day IS NULL THEN 'the day is not closed'
        WHEN count(*) > 1 THEN 'stands more than once'
        ELSE 'adjusts nothing' END AS reason
FROM gold.billing_adjustments a
LEFT JOIN (SELECT DISTINCT day FROM gold.api_usage_daily WHERE billing_status = 'final') closed ON closed.day = a.day
WHERE a.day = coalesce(CAST(nullif('${date}', '') AS DATE), a.day)
GROUP BY a.adjustment_id, a.day, a.customer_id, a.sequence, a.cause, closed.day
HAVING closed.day IS NULL OR count(*) > 1
    OR (max(abs(a.event_count)) = 0 AND max(abs(a.error_count)) = 0 AND max(abs(a.request_bytes)) = 0
        AND max(abs(a.response_bytes)) = 0 AND max(abs(a.late_count)) = 0)
ORDER BY a.day, a.customer_id, a.sequence;
