package io.usagelakehouse;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.connector.catalog.functions.ScalarFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Reads one record value as one strict JSON object and holds it against the schema version that it names, in one pass.
 *
 * Result: struct&lt;event: the fields, problem: string, missing: string, wrong_type: string, out_of_range: string,
 * unknown_field: boolean&gt;. `problem` is NULL or one of `oversize`, `invalid_utf8`, `empty_value`, `malformed_json` (then
 * `event` is NULL) and `schema_not_found`. `missing`, `wrong_type` and `out_of_range` name fields, comma separated, or are
 * NULL. Strict means what from_json does not check: nothing after the object, no duplicate keys, no NaN, numbers that
 * fit, valid UTF-8, bounded size and depth, both looked at before the parser runs into them.
 */
public final class ParseEvent implements ScalarFunction<InternalRow> {
  private static final int MAX_DEPTH = 64;

  private static final JsonFactory JSON =
      JsonFactory.builder()
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(MAX_DEPTH).build())
          .build();

  private static final UTF8String OVERSIZE = UTF8String.fromString("oversize");
  private static final UTF8String SCHEMA_NOT_FOUND = UTF8String.fromString("schema_not_found");
  private static final UTF8String INVALID_UTF8 = UTF8String.fromString("invalid_utf8");
  private static final UTF8String EMPTY = UTF8String.fromString("empty_value");
  private static final UTF8String MALFORMED = UTF8String.fromString("malformed_json");

  private final StructType fields;
  private final DataType[] types;
  private final int maxBytes;
  private final int versionPosition;
  private final Map<String, Integer> positions = new HashMap<>();
  private final Map<UTF8String, FieldRules[]> versions = new HashMap<>();

  /** `schemas`: for each version its fields by name, as the schema files write them. */
  ParseEvent(StructType fields, JsonNode schemas, int maxBytes) {
    this.fields = fields;
    this.maxBytes = maxBytes;
    this.types = new DataType[fields.size()];
    for (int i = 0; i < types.length; i++) {
      StructField field = fields.fields()[i];
      types[i] = field.dataType();
      positions.put(field.name(), i);
    }
    this.versionPosition = positions.get("schema_version");
    schemas.fields().forEachRemaining(version -> {
      FieldRules[] rules = new FieldRules[types.length];
      positions.forEach((name, position) -> rules[position] = new FieldRules(version.getValue().get(name)));
      versions.put(UTF8String.fromString(version.getKey()), rules);
    });
  }

  @Override
  public DataType[] inputTypes() {
    return new DataType[] {DataTypes.BinaryType};
  }

  @Override
  public DataType resultType() {
    return new StructType()
        .add("event", fields)
        .add("problem", DataTypes.StringType)
        .add("missing", DataTypes.StringType)
        .add("wrong_type", DataTypes.StringType)
        .add("out_of_range", DataTypes.StringType)
        .add("unknown_field", DataTypes.BooleanType);
  }

  @Override
  public String name() {
    return "parse";
  }

  @Override
  public String canonicalName() {
    return "usagelakehouse.parse." + fields.catalogString();
  }

  /** Spark calls this method by its name, without boxing; see ScalarFunction. */
  public InternalRow invoke(byte[] value) {
    if (value == null) {
      return problem(null);
    }
    if (value.length > maxBytes) {
      return problem(OVERSIZE);
    }
    if (isBlank(value)) {
      return problem(EMPTY);
    }
    if (!isAscii(value) && !UTF8String.fromBytes(value).isValid()) {
      return problem(INVALID_UTF8);
    }
    if (isOtherEncoding(value)) {
      return problem(MALFORMED);
    }
    try (JsonParser parser = JSON.createParser(value)) {
      return parse(parser);
    } catch (IOException error) {
      return problem(MALFORMED);
    }
  }

  private InternalRow parse(JsonParser parser) throws IOException {
    if (parser.nextToken() != JsonToken.START_OBJECT) {
      return problem(MALFORMED);
    }
    Object[] event = new Object[types.length];
    boolean[] wrong = null;
    boolean unknown = false;
    String name;
    while ((name = parser.nextFieldName()) != null) {
      JsonToken token = parser.nextToken();
      Integer position = positions.get(name);
      if (position == null) {
        unknown = true;
        parser.skipChildren();
      } else if (token != JsonToken.VALUE_NULL) {
        Object read = read(parser, token, types[position]);
        if (read == null) {
          wrong = wrong == null ? new boolean[types.length] : wrong;
          wrong[position] = true;
          parser.skipChildren();
        }
        event[position] = read;
      }
    }
    if (parser.nextToken() != null) {
      return problem(MALFORMED);
    }
    return judge(event, wrong, unknown);
  }

  private InternalRow judge(Object[] event, boolean[] wrong, boolean unknown) {
    FieldRules[] rules = event[versionPosition] == null ? null : versions.get(event[versionPosition]);
    String missing = null;
    String outOfRange = null;
    String wrongType = null;
    for (int i = 0; i < event.length; i++) {
      boolean isWrong = wrong != null && wrong[i];
      if (isWrong) {
        wrongType = append(wrongType, i);
      }
      if (rules == null) {
        continue;
      }
      if (event[i] == null) {
        if (rules[i].isRequired() && !isWrong) {
          missing = append(missing, i);
        }
      } else if (!rules[i].allows(event[i])) {
        outOfRange = append(outOfRange, i);
      }
    }
    return new GenericInternalRow(
        new Object[] {
          new GenericInternalRow(event),
          rules == null ? SCHEMA_NOT_FOUND : null,
          UTF8String.fromString(missing),
          UTF8String.fromString(wrongType),
          UTF8String.fromString(outOfRange),
          unknown
        });
  }

  private String append(String names, int position) {
    String name = fields.fields()[position].name();
    return names == null ? name : names + "," + name;
  }

  /** The value as Spark's internal type, or null if it is of another type or does not fit. */
  private static Object read(JsonParser parser, JsonToken token, DataType type) throws IOException {
    if (type.equals(DataTypes.StringType)) {
      return token == JsonToken.VALUE_STRING ? UTF8String.fromString(wellFormed(parser.getText())) : null;
    }
    if (type.equals(DataTypes.TimestampType)) {
      return token == JsonToken.VALUE_STRING ? Instants.microseconds(parser.getText()) : null;
    }
    if (type.equals(DataTypes.BooleanType)) {
      return token == JsonToken.VALUE_TRUE || token == JsonToken.VALUE_FALSE ? parser.getBooleanValue() : null;
    }
    if (type.equals(DataTypes.DoubleType)) {
      return readDouble(parser, token);
    }
    if (token != JsonToken.VALUE_NUMBER_INT || parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER) {
      return null;
    }
    long number = parser.getLongValue();
    if (type.equals(DataTypes.LongType)) {
      return number;
    }
    return number == (int) number ? (Object) (int) number : null;
  }

  /** The text, unless it has half a surrogate pair: no UTF-8 can hold it, and two such ids would become the same. */
  private static String wellFormed(String text) throws IOException {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (Character.isHighSurrogate(c) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))) {
        i++;
      } else if (Character.isSurrogate(c)) {
        throw new IOException("half a surrogate pair");
      }
    }
    return text;
  }

  private static Object readDouble(JsonParser parser, JsonToken token) throws IOException {
    if (token != JsonToken.VALUE_NUMBER_FLOAT && token != JsonToken.VALUE_NUMBER_INT) {
      return null;
    }
    double number = parser.getDoubleValue();
    if (!Double.isFinite(number)) {
      // 1e400 is no number that any reader can hold: as bad as NaN.
      throw new IOException("number out of range");
    }
    return number;
  }

  private static InternalRow problem(UTF8String problem) {
    return new GenericInternalRow(new Object[] {null, problem, null, null, null, false});
  }

  private static boolean isAscii(byte[] value) {
    int bits = 0;
    for (byte b : value) {
      bits |= b;
    }
    return bits >= 0;
  }

  /** Whether Jackson would guess an encoding other than UTF-8, or skip a byte order mark: JSON has neither. */
  private static boolean isOtherEncoding(byte[] value) {
    return value[0] != '{' && value[0] < ' ' && !isSpace(value[0])
        || value.length > 1 && value[1] == 0
        || value[0] == 0;
  }

  static boolean isSpace(byte b) {
    return b == ' ' || b == '\n' || b == '\r' || b == '\t';
  }

  private static boolean isBlank(byte[] value) {
    for (byte b : value) {
      if (!isSpace(b)) {
        return false;
      }
    }
    return true;
  }
}
