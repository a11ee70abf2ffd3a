package io.usagelakehouse;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.spark.sql.connector.catalog.functions.ScalarFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;

/**
 * Finds the `event_timestamp` of a record, for the stream's watermark.
 *
 * Microseconds since the epoch; Long.MIN_VALUE where there is none to read, or none that the lake holds. It looks for the field's bytes, outside of strings
 * and nested values, because a second pass of the JSON reader over every record would cost as much as the first; so it also
 * takes the time of a record that the strict reader refuses, and none that is written with escapes. It decides nothing about
 * the record.
 */
public final class EventTime implements ScalarFunction<Long> {
  private static final byte[] FIELD = "\"event_timestamp\"".getBytes(StandardCharsets.US_ASCII);
  private static final int LONGEST = 40;

  private final FieldRules held;

  /** `held`: which instants the lake holds. */
  EventTime(FieldRules held) {
    this.held = held;
  }

  @Override
  public DataType[] inputTypes() {
    return new DataType[] {DataTypes.BinaryType};
  }

  @Override
  public DataType resultType() {
    return DataTypes.LongType;
  }

  @Override
  public String name() {
    return "time";
  }

  @Override
  public String canonicalName() {
    return "usagelakehouse.time";
  }

  /** Spark calls this method by its name, without boxing; see ScalarFunction. */
  public long invoke(byte[] value) {
    if (value == null) {
      return Long.MIN_VALUE;
    }
    int depth = 0;
    for (int at = 0; at < value.length; at++) {
      switch (value[at]) {
        case '{', '[' -> depth++;
        case '}', ']' -> depth--;
        case '"' -> {
          int colon = depth == 1 && isField(value, at) ? skipSpace(value, at + FIELD.length) : value.length;
          if (colon < value.length && value[colon] == ':') {
            return timeAfter(value, skipSpace(value, colon + 1));
          }
          at = endOfString(value, at);
        }
        default -> {}
      }
    }
    return Long.MIN_VALUE;
  }

  private static boolean isField(byte[] value, int at) {
    int end = at + FIELD.length;
    return end <= value.length && Arrays.equals(value, at, end, FIELD, 0, FIELD.length);
  }

  private static int endOfString(byte[] value, int quote) {
    int at = quote + 1;
    while (at < value.length && value[at] != '"') {
      at += value[at] == '\\' ? 2 : 1;
    }
    return at;
  }

  /** The instant in the string that begins at `quote`. */
  private long timeAfter(byte[] value, int quote) {
    if (quote >= value.length || value[quote] != '"') {
      return Long.MIN_VALUE;
    }
    int end = quote + 1;
    while (end < value.length && value[end] != '"' && end - quote <= LONGEST) {
      end++;
    }
    if (end >= value.length || value[end] != '"') {
      return Long.MIN_VALUE;
    }
    long time = Instants.microseconds(value, quote + 1, end);
    return time != Instants.NONE && held.holds(time) ? time : Long.MIN_VALUE;
  }

  private static int skipSpace(byte[] value, int at) {
    int next = at;
    while (next < value.length && JsonText.isSpace(value[next])) {
      next++;
    }
    return next;
  }
}
