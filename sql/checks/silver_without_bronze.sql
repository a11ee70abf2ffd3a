-- id: silver_without_bronze
-- title: Each Silver row comes from a Bronze record
-- severity: error
-- grain: a Silver row
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: conservation
-- description: Bronze is the truth that Silver is rebuilt from; a row without its record could not be. A record that has
--   moved to Bronze's archive (ops.bronze_archive) is there; `lakehouse archive verify` reads it.

SELECT s._kafka_topic, s._kafka_partition, s._kafka_offset, s.event_timestamp
FROM silver.api_usage_events s
LEFT ANTI JOIN bronze.api_usage_events b
    ON b._kafka_topic = s._kafka_topic AND b._kafka_partition = s._kafka_partition AND b._kafka_offset = s._kafka_offset
LEFT ANTI JOIN ops.bronze_archive a
    ON a.topic = s._kafka_topic AND a.partition = s._kafka_partition AND a.day = CAST(s._kafka_timestamp AS DATE)
    AND s._kafka_offset BETWEEN a.first_offset AND a.last_offset
LEFT ANTI JOIN ops.bronze_archive n
    -- Without a Kafka timestamp a record was archived on the day on which it was ingested.
    ON s._kafka_timestamp IS NULL AND n.topic = s._kafka_topic AND n.partition = s._kafka_partition
    AND s._kafka_offset BETWEEN n.first_offset AND n.last_offset
WHERE s._event_date = coalesce(CAST(nullif('${date}', '') AS DATE), s._event_date);
