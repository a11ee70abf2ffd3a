-- id: open_dead_letters
-- title: No dead letters wait for a decision
-- severity: warning
-- grain: a rule and day
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: dead-letters
-- description: Each is to be replayed after a fix, or discarded. A record that breaks several rules is counted under each.

SELECT rule, _dlq_date AS dlq_date, count(*) AS open, min(_kafka_timestamp) AS oldest
FROM bronze.api_usage_events_dlq LATERAL VIEW OUTER explode(_quality_flags) AS rule
WHERE _status = 'open' AND _dlq_date = coalesce(CAST(nullif('${date}', '') AS DATE), _dlq_date)
GROUP BY rule, _dlq_date
ORDER BY open DESC, rule, dlq_date;
