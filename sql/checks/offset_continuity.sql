-- id: offset_continuity
-- title: Offsets of each partition are complete
-- severity: error
-- grain: a run of missing offsets
-- parameters: date (optional, YYYY-MM-DD)
-- playbook: offset-gap
-- description: A hole is lawful where Kafka itself has one (transaction markers, compacted records): then the batch that read
--   over it counted as many rows as Bronze holds. An offender is a hole that no batch has read, or one in a batch
--   that read more than is there. Holes are found over the whole partition; the date only picks those inside or
--   beside the day's offsets, because timestamps out of order would cut a partition in the middle. Holes that
--   `lakehouse repair bronze` has looked at and explained are shown by the check known_gaps, not here. Offsets whose records
--   have moved to the archive (ops.bronze_archive) are there; a hole between them is found as any other.

WITH ranges AS (
    SELECT generation, batch_id, rows_read, CAST(p AS INT) AS p, bounds[0] AS first, bounds[1] AS stop
    FROM (
        SELECT generation, batch_id, rows_read, explode(from_json(offsets, 'MAP<STRING, ARRAY<BIGINT>>')) AS (p, bounds)
        FROM ops.batch_ledger
        WHERE job = 'bronze'
    )
    WHERE bounds[1] > bounds[0]
),
islands AS (
    SELECT p, min(first) AS first, max(stop) AS stop
    FROM (
        SELECT *,
            sum(CASE WHEN reach >= first THEN 0 ELSE 1 END)
                OVER (PARTITION BY p ORDER BY first, stop ROWS UNBOUNDED PRECEDING) AS island
        FROM (
            SELECT p, first, stop,
                max(stop) OVER (PARTITION BY p ORDER BY first, stop ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reach
            FROM ranges
        )
    )
    GROUP BY p, island
),
-- A run of offsets in the archive stands for itself by its two ends.
archived AS (
    SELECT partition AS p, first_offset AS first, last_offset AS last, day FROM ops.bronze_archive
),
-- The ends of what was read stand as neighbours, so that missing first and last records are holes too.
neighbours AS (
    SELECT _kafka_partition AS p, _kafka_offset AS o FROM bronze.api_usage_events
    UNION SELECT p, first FROM archived
    UNION SELECT p, last FROM archived
    UNION SELECT p, min(first) - 1 FROM islands GROUP BY p
    UNION SELECT p, max(stop) FROM islands GROUP BY p
),
holes AS (
    SELECT n.p, n.o + 1 AS first_missing, n.next_o - 1 AS last_missing
    FROM (SELECT p, o, lead(o) OVER (PARTITION BY p ORDER BY o) AS next_o FROM neighbours) n
    LEFT ANTI JOIN archived a ON a.p = n.p AND a.first <= n.o AND a.last >= n.next_o
    WHERE n.next_o > n.o + 1
),
short_batches AS (
    SELECT generation, batch_id
    FROM (
        SELECT r.generation, r.batch_id, r.rows_read, r.p, r.stop - r.first AS size,
            sum(CASE WHEN h.p IS NULL THEN 0 ELSE least(h.last_missing + 1, r.stop) - greatest(h.first_missing, r.first) END) AS missing
        FROM ranges r LEFT JOIN holes h ON h.p = r.p AND h.first_missing < r.stop AND h.last_missing >= r.first
        GROUP BY r.generation, r.batch_id, r.rows_read, r.p, r.stop - r.first
    )
    GROUP BY generation, batch_id, rows_read
    HAVING rows_read > sum(size - missing)
),
lost AS (
    SELECT DISTINCT h.p, h.first_missing, h.last_missing
    FROM holes h
    JOIN ranges r ON h.p = r.p AND h.first_missing < r.stop AND h.last_missing >= r.first
    JOIN short_batches b ON b.generation = r.generation AND b.batch_id = r.batch_id
),
-- A hole may have been explained in parts, one row beside the other.
explained AS (
    SELECT p, min(first) AS first, max(last) AS last
    FROM (
        SELECT *,
            sum(CASE WHEN reach + 1 >= first THEN 0 ELSE 1 END)
                OVER (PARTITION BY p ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS run
        FROM (
            SELECT partition AS p, first_missing AS first, last_missing AS last,
                max(last_missing) OVER (
                    PARTITION BY partition ORDER BY first_missing, last_missing ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS reach
            FROM ops.known_gaps
        )
    )
    GROUP BY p, run
),
day_offsets AS (
    SELECT p, min(first) AS low, max(last) AS high
    FROM (
        SELECT _kafka_partition AS p, _kafka_offset AS first, _kafka_offset AS last, _event_date AS day FROM bronze.api_usage_events
        UNION ALL SELECT p, first, last, day FROM archived
    )
    WHERE day = coalesce(CAST(nullif('${date}', '') AS DATE), day)
    GROUP BY p
)
SELECT
    h.p AS kafka_partition,
    h.first_missing,
    h.last_missing,
    h.last_missing - h.first_missing + 1 AS missing,
    CASE WHEN i.p IS NULL THEN 'no batch has read these offsets' ELSE 'a batch read more records than Bronze holds' END AS reason
FROM holes h
LEFT JOIN islands i ON i.p = h.p AND i.first <= h.first_missing AND h.last_missing < i.stop
LEFT JOIN lost l ON l.p = h.p AND l.first_missing = h.first_missing
LEFT JOIN day_offsets d ON d.p = h.p AND h.last_missing + 1 >= d.low AND h.first_missing - 1 <= d.high
LEFT ANTI JOIN explained e ON e.p = h.p AND e.first <= h.first_missing AND e.last >= h.last_missing
WHERE (i.p IS NULL OR l.p IS NOT NULL) AND (d.p IS NOT NULL OR '${date}' = '')
ORDER BY kafka_partition, first_missing;
