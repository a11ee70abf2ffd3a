-- id: mixed_schema_versions
-- title: One schema version a day
-- severity: info
-- grain: a day and schema version
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: schema-change
-- description: Days on which producers sent several schema versions: expected while a new one rolls out, a forgotten producer
--   after that.

SELECT event_date, schema_version, events
FROM (
    SELECT _event_date AS event_date, schema_version, count(*) AS events, count(*) OVER (PARTITION BY _event_date) AS versions
    FROM silver.api_usage_events
    WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    GROUP BY _event_date, schema_version
)
WHERE versions > 1 OR schema_version IS NULL
ORDER BY event_date, schema_version;
