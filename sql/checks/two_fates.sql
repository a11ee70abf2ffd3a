-- id: two_fates
-- title: No record has two fates
-- severity: error
-- grain: a Kafka coordinate
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: conservation
-- description: A dead letter that was replayed may be in Silver; an open or discarded one, or a tombstone, may not. A closed
--   one without bytes is past its retention, no tombstone.

SELECT d._kafka_partition, d._kafka_offset, 'dead letter and Silver row' AS reason
FROM bronze.api_usage_events_dlq d
JOIN silver.api_usage_events s ON s._kafka_partition = d._kafka_partition AND s._kafka_offset = d._kafka_offset
WHERE NOT d._status <=> 'replayed' AND d._dlq_date = coalesce(CAST(nullif('${date}', '') AS DATE), d._dlq_date)
UNION ALL
SELECT d._kafka_partition, d._kafka_offset, 'dead letter and tombstone'
FROM bronze.api_usage_events_dlq d
WHERE d._raw_value IS NULL AND NOT coalesce(d._status IN ('replayed', 'discarded'), false)
    AND d._dlq_date = coalesce(CAST(nullif('${date}', '') AS DATE), d._dlq_date);
