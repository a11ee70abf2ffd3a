-- id: quality_gate
-- title: No day waits because its audit refused it
-- severity: error
-- grain: a day
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: quality-gate
-- description: Days that the daily batch audited last and did not publish: expectations that block failed. Billing has nothing of
--   such a day, or of a closed day not its newest adjustments. Audits by `lakehouse quality run` publish nothing and do not count.

SELECT
    day, run_id, audited_at,
    array_join(array_sort(collect_list(expectation) FILTER (WHERE severity = 'blocks' AND success IS NOT TRUE)), ', ') AS blocking,
    silver_version
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY day ORDER BY audited_at DESC) AS age
    FROM ops.quality_results
    WHERE gate <> 'audited'
        AND day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
)
WHERE age = 1 AND gate = 'refused'
GROUP BY day, run_id, audited_at, silver_version
ORDER BY day;
