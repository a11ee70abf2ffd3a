package io.usagelakehouse;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import org.apache.spark.sql.connector.catalog.functions.ScalarFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;

/**
 * Reads only `event_timestamp` of a record, for the stream's watermark; stops as soon as it is found.
 *
 * Microseconds since the epoch; Long.MIN_VALUE where there is none to read. It decides nothing about the record.
 */
public final class EventTime implements ScalarFunction<Long> {
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
    try (JsonParser parser = ParseEvent.JSON.createParser(value)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        return Long.MIN_VALUE;
      }
      String name;
      while ((name = parser.nextFieldName()) != null) {
        JsonToken token = parser.nextToken();
        if (name.equals("event_timestamp")) {
          Long time = token == JsonToken.VALUE_STRING ? Instants.microseconds(parser.getText()) : null;
          return time == null ? Long.MIN_VALUE : time;
        }
        parser.skipChildren();
      }
    } catch (IOException error) {
      // The strict reader says what is wrong with it; here it only has no time.
    }
    return Long.MIN_VALUE;
  }
}
