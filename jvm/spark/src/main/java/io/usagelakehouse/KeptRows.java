package io.usagelakehouse;

import org.apache.spark.rdd.RDD;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.classic.Dataset;
import org.apache.spark.storage.StorageLevel;

/**
 * Rows that several queries read: computed by the first, held for the others until they are released.
 *
 * Dataset.persist would turn them into columns first, for more time than reading them again takes; localCheckpoint would
 * forget where they came from, so that a lost executor fails the batch. Here they are computed again.
 */
public final class KeptRows {
  private final RDD<InternalRow> rows;
  private final Dataset<Row> frame;

  /** Nothing is computed yet. */
  public KeptRows(Dataset<Row> source) {
    // Spark reuses the row that it hands out: what is kept has to be a copy.
    rows = source.queryExecution().toRdd().toJavaRDD().map(InternalRow::copy).rdd();
    rows.persist(StorageLevel.MEMORY_AND_DISK());
    frame = source.sparkSession().internalCreateDataFrame(rows, source.schema(), false);
  }

  /** The rows as a frame. */
  public Dataset<Row> frame() {
    return frame;
  }

  /** Give the memory back; the frame can still be read, from its source. */
  public void release() {
    rows.unpersist(false);
  }
}
