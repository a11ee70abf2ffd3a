package io.usagelakehouse;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.Serializable;
import java.util.HashSet;
import java.util.Set;
import org.apache.spark.unsafe.types.UTF8String;

/** What one version of the event schema asks of one field; absent bounds ask nothing. Lengths are in characters. */
final class FieldRules implements Serializable {
  private final boolean required;
  private final double minimum;
  private final double maximum;
  private final int minLength;
  private final int maxLength;
  private final Set<UTF8String> values;

  /** The rules of a field as the schema file writes them; null: the version does not have the field. */
  FieldRules(JsonNode field) {
    JsonNode rules = field == null ? com.fasterxml.jackson.databind.node.MissingNode.getInstance() : field;
    required = rules.path("required").asBoolean(false);
    minimum = rules.path("minimum").asDouble(Double.NEGATIVE_INFINITY);
    maximum = rules.path("maximum").asDouble(Double.POSITIVE_INFINITY);
    minLength = rules.path("min_length").asInt(0);
    maxLength = rules.path("max_length").asInt(Integer.MAX_VALUE);
    values = new HashSet<>();
    rules.path("enum").forEach(value -> values.add(UTF8String.fromString(value.asText())));
  }

  boolean isRequired() {
    return required;
  }

  boolean allows(Object value) {
    if (value instanceof UTF8String) {
      UTF8String text = (UTF8String) value;
      // Bytes are never fewer than characters: counting is rarely needed.
      return (minLength == 0 || text.numBytes() > 0 && text.numChars() >= minLength)
          && (text.numBytes() <= maxLength || text.numChars() <= maxLength)
          && (values.isEmpty() || values.contains(text));
    }
    if (value instanceof Number) {
      double number = ((Number) value).doubleValue();
      return number >= minimum && number <= maximum;
    }
    return true;
  }
}
