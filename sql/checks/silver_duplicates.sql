-- id: silver_duplicates
-- title: Silver holds each event once
-- severity: error
-- grain: an event_id
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: duplicates
-- description: Counted over all days: copies of an event may carry timestamps of different days. With a date, ids that have a
--   row on it.

SELECT event_id, count(*) AS copies, min(event_timestamp) AS first_timestamp, max(event_timestamp) AS last_timestamp
FROM silver.api_usage_events
GROUP BY event_id
HAVING count(*) > 1 AND bool_or(_event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date));
