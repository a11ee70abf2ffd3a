-- id: null_keys
-- title: No key is NULL
-- severity: error
-- grain: a table and column
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: null-keys
-- description: A row without its key can neither be merged nor billed. With a date, rows without any date are counted too.

SELECT table_name, column_name, rows
FROM (
    SELECT 'silver.api_usage_events' AS table_name, stack(7,
        'event_id', count_if(event_id IS NULL),
        'event_timestamp', count_if(event_timestamp IS NULL),
        'customer_id', count_if(customer_id IS NULL),
        'api_key_id', count_if(api_key_id IS NULL),
        'endpoint', count_if(endpoint IS NULL),
        '_kafka_partition', count_if(_kafka_partition IS NULL),
        '_kafka_offset', count_if(_kafka_offset IS NULL)) AS (column_name, rows)
    FROM silver.api_usage_events
    WHERE _event_date IS NULL OR _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    UNION ALL
    SELECT 'bronze.api_usage_events', stack(3,
        '_kafka_topic', count_if(_kafka_topic IS NULL),
        '_kafka_partition', count_if(_kafka_partition IS NULL),
        '_kafka_offset', count_if(_kafka_offset IS NULL))
    FROM bronze.api_usage_events
    WHERE _event_date IS NULL OR _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    UNION ALL
    SELECT 'gold.api_usage_hourly', stack(3,
        'hour', count_if(hour IS NULL), 'customer_id', count_if(customer_id IS NULL), 'endpoint', count_if(endpoint IS NULL))
    FROM gold.api_usage_hourly
    WHERE hour IS NULL OR CAST(hour AS DATE) = coalesce(CAST(nullif('${date}', '') AS DATE), CAST(hour AS DATE))
    UNION ALL
    SELECT 'gold.api_usage_daily', stack(2, 'day', count_if(day IS NULL), 'customer_id', count_if(customer_id IS NULL))
    FROM gold.api_usage_daily
    WHERE day IS NULL OR day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
)
WHERE rows > 0;
