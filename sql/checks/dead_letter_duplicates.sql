-- id: dead_letter_duplicates
-- title: Each rejected record is a dead letter once
-- severity: error
-- grain: a Kafka coordinate
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: dead-letters
-- description: A batch that runs again must not reject a record twice.

SELECT _kafka_topic, _kafka_partition, _kafka_offset, count(*) AS copies
FROM bronze.api_usage_events_dlq
WHERE _dlq_date = coalesce(CAST(nullif('${date}', '') AS DATE), _dlq_date)
GROUP BY _kafka_topic, _kafka_partition, _kafka_offset
HAVING count(*) > 1;
