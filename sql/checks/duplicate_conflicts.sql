-- id: duplicate_conflicts
-- title: Copies of an event are equal
-- severity: warning
-- grain: a batch
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: duplicates
-- description: Records under a known event_id with another payload: the first one counts, and the producer has a defect.

SELECT job, generation, batch_id, conflict AS conflicting_records, duplicate AS duplicates, committed_at
FROM ops.batch_ledger
WHERE conflict > 0 AND CAST(started_at AS DATE) = coalesce(CAST(nullif('${date}', '') AS DATE), CAST(started_at AS DATE))
ORDER BY committed_at;
