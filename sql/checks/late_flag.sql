-- id: late_flag
-- title: The late flag follows from the timestamps
-- severity: error
-- grain: a Silver row
-- parameters: date (optional, YYYY-MM-DD), late_after_seconds (optional, default 7200)
-- playbook: late-events
-- description: The delay is Kafka timestamp - event_timestamp, so that a replay flags the same rows. Without a Kafka timestamp
--   there is no delay, and nothing is late.

SELECT _kafka_partition, _kafka_offset, _is_late_arriving, _arrival_delay_seconds, event_timestamp, _kafka_timestamp
FROM (
    SELECT *, (unix_micros(_kafka_timestamp) - unix_micros(event_timestamp)) / 1e6 AS delay
    FROM silver.api_usage_events
    WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
)
WHERE NOT (
    _is_late_arriving <=> coalesce(delay > coalesce(CAST(nullif('${late_after_seconds}', '') AS BIGINT), 7200), false)
    AND coalesce(abs(_arrival_delay_seconds - delay) < 0.000002, _arrival_delay_seconds IS NULL AND delay IS NULL)
);
