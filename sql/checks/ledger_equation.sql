-- id: ledger_equation
-- title: Each batch accounts for every row it read
-- severity: error
-- grain: a batch
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: conservation
-- description: rows_read = inserted + replaced + duplicate + already_present + dead_lettered + tombstone, and each batch stands
--   in the ledger once.

SELECT job, generation, batch_id, rows_read, accounted, copies
FROM (
    SELECT *,
        inserted + replaced + duplicate + already_present + dead_lettered + tombstone AS accounted,
        count(*) OVER (PARTITION BY job, generation, batch_id) AS copies
    FROM ops.batch_ledger
)
WHERE ((job IN ('bronze', 'silver') AND NOT rows_read <=> accounted) OR copies > 1)
    AND CAST(started_at AS DATE) = coalesce(CAST(nullif('${date}', '') AS DATE), CAST(started_at AS DATE));
