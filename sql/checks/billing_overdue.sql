-- id: billing_overdue
-- title: Days are closed in time
-- severity: info
-- grain: a day
-- parameters: date (optional, YYYY-MM-DD), grace_hours (optional, default 2)
-- playbook: billing
-- description: Days that could be final (Kafka's time has passed their end by the grace and one more day), but the daily batch
--   has not closed them.

SELECT day, count(*) AS customers, sum(event_count) AS events
FROM gold.api_usage_daily CROSS JOIN (
    SELECT max(_kafka_timestamp) AS newest FROM silver.api_usage_events
    -- A Kafka time in the future is a wrong clock's, and says nothing of how far time has come.
    WHERE _kafka_timestamp <= current_timestamp() + INTERVAL 1 DAY
)
WHERE billing_status <> 'final'
    AND newest > timestampadd(HOUR, CAST(coalesce(CAST(nullif('${grace_hours}', '') AS BIGINT), 2) AS INT) + 48, CAST(day AS TIMESTAMP))
    AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
GROUP BY day
ORDER BY day;
