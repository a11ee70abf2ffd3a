-- id: bronze_quiet
-- title: Records arrive
-- severity: info
-- grain: the lake
-- parameters: none
-- playbook: stale-data
-- description: The newest record is over an hour old: nothing was sent, or Bronze does not run.

SELECT newest AS newest_kafka_timestamp, round((unix_seconds(current_timestamp()) - unix_seconds(newest)) / 3600, 1) AS hours_ago
FROM (
    SELECT max(_kafka_timestamp) AS newest FROM bronze.api_usage_events
    -- A Kafka time in the future is a wrong clock's, and says nothing of what has arrived.
    WHERE _kafka_timestamp <= current_timestamp() + INTERVAL 1 DAY
)
WHERE newest < current_timestamp() - INTERVAL 1 HOUR;
