-- id: known_gaps
-- title: Holes in Bronze's offsets that are known
-- severity: info
-- grain: a hole
-- parameters: none
-- playbook: offset-gap
-- description: `lakehouse repair bronze` found that Kafka cannot fill these. Cause `retention`: the records are lost, nobody
--   was billed for them. Cause `no_record`: Kafka has none there (transaction markers, compaction), nothing is lost.

SELECT topic, partition AS kafka_partition, first_missing, last_missing, last_missing - first_missing + 1 AS missing, cause, found_at
FROM ops.known_gaps
ORDER BY topic, kafka_partition, first_missing;
