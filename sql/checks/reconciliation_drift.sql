-- id: reconciliation_drift
-- title: Reconciliation found Gold right
-- severity: warning
-- grain: a difference
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: gold-drift
-- description: Differences of the last run of each day that neither late events nor a stream that was behind explain.

SELECT day, reconciled_at, grain, key, measure, before, after, cause
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY day ORDER BY reconciled_at DESC) AS age
    FROM ops.reconciliation
    WHERE day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
)
WHERE age = 1 AND cause IN ('extra_in_gold', 'wrong_in_gold')
ORDER BY day, grain, key, measure;
