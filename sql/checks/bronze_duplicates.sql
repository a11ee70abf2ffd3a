-- id: bronze_duplicates
-- title: Bronze holds each Kafka record once
-- severity: error
-- grain: a Kafka coordinate
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: duplicates
-- description: A record that is read again (restart, new checkpoint) must find itself in the table.

SELECT _kafka_topic, _kafka_partition, _kafka_offset, count(*) AS copies
FROM bronze.api_usage_events
WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
GROUP BY _kafka_topic, _kafka_partition, _kafka_offset
HAVING count(*) > 1;
