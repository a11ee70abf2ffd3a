-- id: late_events
-- title: Late events, which the daily batch reconciles
-- severity: info
-- grain: a day of event_timestamp
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: late-events
-- description: Events over the limit (2 h unless set) from event_timestamp to Kafka are kept and flagged; this lists the days
--   that they changed.

SELECT
    _event_date AS event_date,
    count(*) AS late_events,
    round(avg(_arrival_delay_seconds), 1) AS average_delay_seconds,
    max(_arrival_delay_seconds) AS longest_delay_seconds
FROM silver.api_usage_events
WHERE _is_late_arriving AND _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
GROUP BY _event_date
ORDER BY event_date;
