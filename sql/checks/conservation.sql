-- id: conservation
-- title: Each Bronze record has a fate
-- severity: error
-- grain: a Bronze record
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: conservation
-- description: A record is in Silver, in the dead letters, a tombstone, or a copy of an event that is in Silver. Anything else
--   was lost on the way. A dead letter that was replayed has to be in Silver, or a copy. Records that Silver has not read
--   yet are left out.

WITH silver_read AS (
    SELECT CAST(p AS INT) AS p, max(bounds[1]) AS stop
    FROM (
        SELECT explode(from_json(offsets, 'MAP<STRING, ARRAY<BIGINT>>')) AS (p, bounds) FROM ops.batch_ledger WHERE job = 'silver'
    )
    GROUP BY p
),
fates AS (
    SELECT _kafka_partition, _kafka_offset FROM silver.api_usage_events
    UNION ALL
    SELECT _kafka_partition, _kafka_offset FROM bronze.api_usage_events_dlq WHERE NOT _status <=> 'replayed'
),
rest AS (
    SELECT b._kafka_partition, b._kafka_offset, get_json_object(CAST(b._raw_value AS STRING), '$.event_id') AS event_id
    FROM bronze.api_usage_events b
    JOIN silver_read r ON r.p = b._kafka_partition AND b._kafka_offset < r.stop
    LEFT ANTI JOIN fates f ON f._kafka_partition = b._kafka_partition AND f._kafka_offset = b._kafka_offset
    WHERE b._raw_value IS NOT NULL AND b._event_date = coalesce(CAST(nullif('${date}', '') AS DATE), b._event_date)
)
SELECT rest._kafka_partition, rest._kafka_offset, 'in no table, and no event in Silver has its event_id' AS reason
FROM rest LEFT ANTI JOIN silver.api_usage_events s ON s.event_id = rest.event_id;
