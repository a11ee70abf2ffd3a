package io.usagelakehouse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.io.Serializable;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.RoundingMode;
import java.util.HashSet;
import java.util.Set;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * What one version of the event schema asks of one field; absent bounds ask nothing. Lengths are in characters.
 *
 * Whole numbers and instants (microseconds) are compared as whole numbers, doubles as doubles.
 */
final class FieldRules implements Serializable {
  private static final long serialVersionUID = 1L;
  private static final BigDecimal LEAST = BigDecimal.valueOf(Long.MIN_VALUE);
  private static final BigDecimal GREATEST = BigDecimal.valueOf(Long.MAX_VALUE);

  private final boolean required;
  private final double minimum;
  private final double maximum;
  private final long first;
  private final long last;
  private final boolean empty;
  private final int minLength;
  private final int maxLength;
  private final Set<UTF8String> values;

  /** The rules of a field as the schema file writes them; null: the version does not have the field. */
  FieldRules(JsonNode field) {
    JsonNode rules = field == null ? MissingNode.getInstance() : field;
    required = rules.path("required").asBoolean(false);
    minimum = rules.path("minimum").asDouble(Double.NEGATIVE_INFINITY);
    maximum = rules.path("maximum").asDouble(Double.POSITIVE_INFINITY);
    BigDecimal low = exact(rules.path("minimum"), LEAST).setScale(0, RoundingMode.CEILING);
    BigDecimal high = exact(rules.path("maximum"), GREATEST).setScale(0, RoundingMode.FLOOR);
    empty = low.compareTo(GREATEST) > 0 || high.compareTo(LEAST) < 0;
    first = low.max(LEAST).min(GREATEST).longValueExact();
    last = high.min(GREATEST).max(LEAST).longValueExact();
    minLength = rules.path("min_length").asInt(0);
    maxLength = rules.path("max_length").asInt(Integer.MAX_VALUE);
    values = new HashSet<>();
    rules.path("enum").forEach(value -> values.add(UTF8String.fromString(value.asText())));
  }

  private static BigDecimal exact(JsonNode bound, BigDecimal otherwise) {
    if (bound.isIntegralNumber()) {
      BigInteger whole = bound.bigIntegerValue();
      return new BigDecimal(whole);
    }
    return bound.isNumber() ? new BigDecimal(bound.doubleValue()) : otherwise;
  }

  boolean isRequired() {
    return required;
  }

  boolean holds(long number) {
    return number >= first && number <= last && !empty;
  }

  /** Null where the value is within the bounds, else the code of the bound that it breaks. */
  String broken(Object value) {
    if (value instanceof UTF8String) {
      return brokenBy((UTF8String) value);
    }
    if (value instanceof Double) {
      double number = (Double) value;
      return number < minimum ? "below" : number > maximum ? "above" : null;
    }
    if (value instanceof Number) {
      long number = ((Number) value).longValue();
      return holds(number) ? null : number < first ? "below" : "above";
    }
    return null;
  }

  private String brokenBy(UTF8String text) {
    // Bytes are never fewer than characters: counting is rarely needed.
    if (minLength > 0 && (text.numBytes() < minLength || text.numChars() < minLength)) {
      return text.numBytes() == 0 ? "blank" : "short";
    }
    if (text.numBytes() > maxLength && text.numChars() > maxLength) {
      return "long";
    }
    if (minLength > 0 && isBlank(text)) {
      return "blank";
    }
    return values.isEmpty() || values.contains(text) ? null : "enum";
  }

  private static boolean isBlank(UTF8String text) {
    byte first = text.getByte(0);
    return (first <= ' ' || first == 0x7f) && text.toString().codePoints().allMatch(FieldRules::isWhiteSpace);
  }

  /** Unicode's property White_Space, the 25 characters of docs/grammar.md: Java's own methods each mean another set. */
  private static boolean isWhiteSpace(int c) {
    return c >= 0x09 && c <= 0x0d
        || c == 0x20
        || c == 0x85
        || c == 0xa0
        || c == 0x1680
        || c >= 0x2000 && c <= 0x200a
        || c == 0x2028
        || c == 0x2029
        || c == 0x202f
        || c == 0x205f
        || c == 0x3000;
  }
}
