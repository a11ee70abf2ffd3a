-- id: clock_skew
-- title: Producers' clocks are right
-- severity: info
-- grain: a day and API key
-- parameters: date (optional, YYYY-MM-DD), skew_after_seconds (optional, default 300)
-- playbook: clock-skew
-- description: Events that were stamped further in the future of Kafka's own time than the limit (5 min unless set).

SELECT _event_date AS event_date, customer_id, api_key_id, count(*) AS events, round(-min(_arrival_delay_seconds), 1) AS most_seconds_ahead
FROM silver.api_usage_events
WHERE _arrival_delay_seconds < -coalesce(CAST(nullif('${skew_after_seconds}', '') AS BIGINT), 300)
    -- A Kafka time of the first weeks of 1970 is none (rule SLV-104): nothing is known of the producer's clock.
    AND _kafka_timestamp >= TIMESTAMP '1970-04-26 17:46:40' AND _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
GROUP BY _event_date, customer_id, api_key_id
ORDER BY events DESC, event_date, customer_id, api_key_id;
