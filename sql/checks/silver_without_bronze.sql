-- id: silver_without_bronze
-- title: Each Silver row comes from a Bronze record
-- severity: error
-- grain: a Silver row
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: conservation
-- description: Bronze is the truth that Silver is rebuilt from; a row without its record could not be.

SELECT s._kafka_topic, s._kafka_partition, s._kafka_offset, s.event_timestamp
FROM silver.api_usage_events s
LEFT ANTI JOIN bronze.api_usage_events b
    ON b._kafka_topic = s._kafka_topic AND b._kafka_partition = s._kafka_partition AND b._kafka_offset = s._kafka_offset
WHERE s._event_date = coalesce(CAST(nullif('${date}', '') AS DATE), s._event_date);
