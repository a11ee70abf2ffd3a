-- id: orphan_dead_letters
-- title: Each dead letter comes from a Bronze record
-- severity: error
-- grain: a dead letter
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: dead-letters
-- description: The dead-letter table keeps the bytes that Bronze has, under the same coordinates; of closed ones the bytes go
--   after dlq.retention_days. A record that has moved to Bronze's archive (ops.bronze_archive) is there, and its bytes are
--   compared by `lakehouse verify`.

SELECT d._kafka_topic, d._kafka_partition, d._kafka_offset, d._quality_flags
FROM bronze.api_usage_events_dlq d
LEFT ANTI JOIN bronze.api_usage_events b
    ON b._kafka_topic = d._kafka_topic AND b._kafka_partition = d._kafka_partition AND b._kafka_offset = d._kafka_offset
    AND (b._raw_value <=> d._raw_value OR (d._raw_value IS NULL AND d._status IN ('replayed', 'discarded')))
LEFT ANTI JOIN ops.bronze_archive a
    ON a.topic = d._kafka_topic AND a.partition = d._kafka_partition AND a.day = d._dlq_date
    AND d._kafka_offset BETWEEN a.first_offset AND a.last_offset
WHERE d._dlq_date = coalesce(CAST(nullif('${date}', '') AS DATE), d._dlq_date);
