-- id: billing_final_early
-- title: No day is closed before its grace is over
-- severity: error
-- grain: a day
-- parameters: date (optional, YYYY-MM-DD), grace_hours (optional, default 2)
-- playbook: billing
-- description: A day may become final when Kafka's time has passed its end by the grace (24 h unless set); earlier, late events
--   would be missing.

SELECT day, count(*) AS customers, max(newest) AS newest_kafka_timestamp
FROM gold.api_usage_daily CROSS JOIN (
    SELECT max(_kafka_timestamp) AS newest FROM silver.api_usage_events
    -- A Kafka time in the future is a wrong clock's, and says nothing of how far time has come.
    WHERE _kafka_timestamp <= current_timestamp() + INTERVAL 1 DAY
)
WHERE billing_status = 'final'
    AND newest < timestampadd(HOUR, CAST(coalesce(CAST(nullif('${grace_hours}', '') AS BIGINT), 2) AS INT) + 24, CAST(day AS TIMESTAMP))
    AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
GROUP BY day
ORDER BY day;
