-- id: billing_unexplained
-- title: Nothing but later events sets a bill apart from Silver
-- severity: error
-- grain: a closed day and customer
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: billing
-- description: The bill of a closed day with its adjustments differs from Silver, and Silver has no row of that day and customer
--   that came after the version which they stand for: a bill or an adjustment was changed, or Silver lost rows.

WITH closed AS (
    SELECT day, greatest(max(silver_version), max(adjusted_to)) AS version
    FROM gold.api_usage_daily
    LEFT JOIN (SELECT day, max(silver_version_to) AS adjusted_to FROM gold.billing_adjustments GROUP BY day) USING (day)
    WHERE billing_status = 'final' AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
    GROUP BY day
),
batches AS (
    SELECT started_at, CAST(get_json_object(versions, "$['silver.api_usage_events']") AS BIGINT) AS version
    FROM ops.batch_ledger
    WHERE job = 'silver'
),
-- Rows of batches after that version; those of a batch that is not in the ledger yet are later than all that are.
since AS (
    SELECT closed.day,
        coalesce(min(batches.started_at), (SELECT max(started_at) + INTERVAL 1 MICROSECOND FROM batches)) AS at
    FROM closed LEFT JOIN batches ON batches.version > closed.version
    GROUP BY closed.day
),
waiting AS (
    SELECT DISTINCT _event_date AS day, customer_id
    FROM silver.api_usage_events JOIN since ON since.day = _event_date AND _processed_at >= since.at
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
),
compared AS (
    SELECT day, customer_id,
        coalesce(now.event_count, 0) - coalesce(billed.event_count, 0) AS event_count,
        coalesce(now.error_count, 0) - coalesce(billed.error_count, 0) AS error_count,
        coalesce(now.request_bytes, 0) - coalesce(billed.request_bytes, 0) AS request_bytes,
        coalesce(now.response_bytes, 0) - coalesce(billed.response_bytes, 0) AS response_bytes,
        coalesce(now.late_count, 0) - coalesce(billed.late_count, 0) AS late_count
    FROM billed FULL JOIN now USING (day, customer_id)
)
SELECT compared.*
FROM compared LEFT ANTI JOIN waiting USING (day, customer_id)
WHERE event_count <> 0 OR error_count <> 0 OR request_bytes <> 0 OR response_bytes <> 0 OR late_count <> 0
ORDER BY day, customer_id;
