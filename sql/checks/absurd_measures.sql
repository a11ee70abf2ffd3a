-- id: absurd_measures
-- title: Measures are plausible
-- severity: warning
-- grain: a Silver row
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: bad-measures
-- description: Negative or NaN measures must not pass Silver's rules; over a day of latency or 10 GB in one request is a broken
--   gateway. 2^35 bytes and more make a dead letter (SLV-008).

SELECT _kafka_partition, _kafka_offset, customer_id, endpoint, status_code, response_time_ms, request_bytes, response_bytes
FROM silver.api_usage_events
WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date) AND (
    request_bytes NOT BETWEEN 0 AND 10000000000
    OR response_bytes NOT BETWEEN 0 AND 10000000000
    OR status_code NOT BETWEEN 100 AND 599
    OR NOT coalesce(response_time_ms BETWEEN 0 AND 86400000, true)
);
