-- id: bronze_metadata
-- title: Bronze's derived columns follow from the record
-- severity: error
-- grain: a Bronze record
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: bronze-corruption
-- description: The size of the value and the date of the Kafka timestamp are computed once, at ingestion; a difference means a
--   damaged row. A record whose Kafka time is no instant that is held has the date on which it was ingested.

SELECT _kafka_topic, _kafka_partition, _kafka_offset, _raw_size, octet_length(_raw_value) AS value_size, _event_date, _kafka_timestamp
FROM bronze.api_usage_events
WHERE _event_date = coalesce(CAST(nullif('${date}', '') AS DATE), _event_date)
    AND NOT (
        _raw_size <=> octet_length(_raw_value)
        AND _event_date <=> CAST(coalesce(_kafka_timestamp, _ingested_at) AS DATE)
    );
