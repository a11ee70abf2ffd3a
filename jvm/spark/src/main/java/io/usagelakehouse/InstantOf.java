package io.usagelakehouse;

import org.apache.spark.sql.connector.catalog.functions.ScalarFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * The timestamp that a text names, for values that change with each batch.
 *
 * A timestamp literal becomes part of the generated Java code, so that every batch would compile, and warm up, code of
 * its own; a text is a reference. It says that it is not deterministic, or Spark would fold it into such a literal.
 */
public final class InstantOf implements ScalarFunction<Long> {
  private transient UTF8String text;
  private transient long micros;

  @Override
  public DataType[] inputTypes() {
    return new DataType[] {DataTypes.StringType};
  }

  @Override
  public DataType resultType() {
    return DataTypes.TimestampType;
  }

  @Override
  public String name() {
    return "instant";
  }

  @Override
  public String canonicalName() {
    return "usagelakehouse.instant";
  }

  @Override
  public boolean isDeterministic() {
    return false;
  }

  /** Spark calls this method by its name, without boxing; see ScalarFunction. Each task has an instance of its own. */
  public long invoke(UTF8String value) {
    if (value != text) {
      byte[] bytes = value == null ? new byte[0] : value.getBytes();
      long read = Instants.microseconds(bytes, 0, bytes.length);
      if (read == Instants.NONE) {
        throw new IllegalArgumentException("events.instant takes an ISO 8601 instant such as 2026-01-28T00:00:00Z.");
      }
      micros = read;
      text = value;
    }
    return micros;
  }
}
