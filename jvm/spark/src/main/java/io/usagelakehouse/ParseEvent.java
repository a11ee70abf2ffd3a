package io.usagelakehouse;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.connector.catalog.functions.ScalarFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Reads one record value as docs/grammar.md says and holds it against the schema version that it names, in one pass.
 *
 * Result: struct&lt;event: the fields, problem, detail, missing, wrong_type, expected, out_of_range, bounds: string,
 * unknown_field: boolean&gt;. `problem` is NULL or one of `oversize`, `invalid_utf8`, `empty_value`, `malformed_json` (then
 * `event` is NULL) and `schema_not_found`. `detail` says more about `invalid_utf8` (or is NULL) and `malformed_json` (never
 * NULL), see Malformed. `missing`, `wrong_type` and `out_of_range` name fields, comma separated, or are NULL; `expected` has
 * the type of each field of `wrong_type`, `bounds` what each field of `out_of_range` breaks: `blank`, `short`, `long`, `enum`,
 * `below`, `above`, `instant`.
 */
public final class ParseEvent implements ScalarFunction<InternalRow> {
  private static final long serialVersionUID = 1L;

  private static final UTF8String OVERSIZE = UTF8String.fromString("oversize");
  private static final UTF8String SCHEMA_NOT_FOUND = UTF8String.fromString("schema_not_found");
  private static final UTF8String INVALID_UTF8 = UTF8String.fromString("invalid_utf8");
  private static final UTF8String EMPTY = UTF8String.fromString("empty_value");
  private static final UTF8String MALFORMED = UTF8String.fromString("malformed_json");

  /** What `read` returns for a value of another type; null stands for JSON's null. */
  private static final Object WRONG = new Object();

  private enum Kind {
    STRING,
    INT,
    LONG,
    DOUBLE,
    BOOLEAN,
    TIMESTAMP
  }

  private final StructType fields;
  private final Kind[] kinds;
  private final byte[][] names;
  private final int maxBytes;
  private final int versionPosition;
  private final Map<UTF8String, FieldRules[]> versions = new HashMap<>();

  /** `schemas`: for each version its fields by name, as the schema files write them. */
  ParseEvent(StructType fields, JsonNode schemas, int maxBytes) {
    this.fields = fields;
    this.maxBytes = maxBytes;
    kinds = new Kind[fields.size()];
    names = new byte[kinds.length][];
    for (int i = 0; i < kinds.length; i++) {
      StructField field = fields.fields()[i];
      kinds[i] = kindOf(field.dataType());
      names[i] = field.name().getBytes(StandardCharsets.UTF_8);
    }
    versionPosition = fields.fieldIndex("schema_version");
    schemas.fields().forEachRemaining(version -> {
      FieldRules[] rules = new FieldRules[kinds.length];
      Arrays.setAll(rules, i -> new FieldRules(version.getValue().get(fields.fields()[i].name())));
      versions.put(UTF8String.fromString(version.getKey()), rules);
    });
  }

  private static Kind kindOf(DataType type) {
    switch (type.typeName()) {
      case "string":
        return Kind.STRING;
      case "integer":
        return Kind.INT;
      case "long":
        return Kind.LONG;
      case "double":
        return Kind.DOUBLE;
      case "boolean":
        return Kind.BOOLEAN;
      case "timestamp":
        return Kind.TIMESTAMP;
      default:
        throw new IllegalArgumentException("events.parse reads no fields of type " + type.sql() + ".");
    }
  }

  /** Which instants the lake holds: the bounds of event_timestamp, which no schema file narrows. */
  FieldRules instants() {
    return versions.isEmpty() || !Arrays.asList(fields.fieldNames()).contains("event_timestamp")
        ? new FieldRules(null)
        : versions.values().iterator().next()[fields.fieldIndex("event_timestamp")];
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
        .add("detail", DataTypes.StringType)
        .add("missing", DataTypes.StringType)
        .add("wrong_type", DataTypes.StringType)
        .add("expected", DataTypes.StringType)
        .add("out_of_range", DataTypes.StringType)
        .add("bounds", DataTypes.StringType)
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
      return problem(null, null);
    }
    if (value.length > maxBytes) {
      return problem(OVERSIZE, null);
    }
    int start = 0;
    while (start < value.length && JsonText.isSpace(value[start])) {
      start++;
    }
    if (start == value.length) {
      return problem(EMPTY, null);
    }
    if (!isAscii(value) && !UTF8String.fromBytes(value).isValid()) {
      return problem(INVALID_UTF8, Signature.ofBytes(value));
    }
    // The first look is for other encodings: to UTF-8 their zeros are control characters.
    if (value[start] != '{' || start + 1 < value.length && value[start + 1] == 0) {
      String found = Signature.ofText(value, value[start]);
      return problem(MALFORMED, value[start] == '{' && found.equals("not_json") ? "syntax:" + (start + 2) : found);
    }
    try {
      return parse(new JsonText(value));
    } catch (Malformed error) {
      return problem(MALFORMED, error.detail);
    }
  }

  private InternalRow parse(JsonText json) {
    Object[] event = new Object[kinds.length];
    boolean[] seen = new boolean[kinds.length];
    boolean[] wrong = null;
    Set<String> unknown = null;
    json.next();
    int position = -1;
    for (boolean more = json.open('}'); more; more = json.more('}')) {
      json.fieldName();
      int found = find(json, position + 1);
      if (found < 0) {
        unknown = unknown == null ? new HashSet<>() : unknown;
        if (!unknown.add(json.text())) {
          throw new Malformed("duplicate_key", json.from - 1);
        }
        json.colon();
        json.skip(1);
        continue;
      }
      position = found;
      if (seen[position]) {
        throw new Malformed("duplicate_key", json.from - 1);
      }
      seen[position] = true;
      json.colon();
      Object read = read(json, position);
      if (read == WRONG) {
        wrong = wrong == null ? new boolean[kinds.length] : wrong;
        wrong[position] = true;
      } else {
        event[position] = read;
      }
    }
    json.end();
    return judge(event, wrong, unknown != null);
  }

  /** The position of the field that was just named, or -1. Most producers write fields in the schema's order, so `guess` is first. */
  private int find(JsonText json, int guess) {
    byte[] bytes = json.bytes;
    int from = json.from;
    int to = json.to;
    if (json.isEscaped()) {
      // Half a surrogate pair becomes a question mark here, and must not make the name of a field that has one.
      String text = json.text();
      bytes = isWellFormed(text) ? text.getBytes(StandardCharsets.UTF_8) : new byte[] {0};
      from = 0;
      to = bytes.length;
    }
    for (int i = 0, at = guess; i < names.length; i++, at++) {
      at = at == names.length ? 0 : at;
      byte[] name = names[at];
      if (name.length == to - from && Arrays.equals(name, 0, name.length, bytes, from, to)) {
        return at;
      }
    }
    return -1;
  }

  /** The value as Spark's internal type, null for JSON's null, or WRONG where it has another type or does not fit. */
  private Object read(JsonText json, int position) {
    byte first = json.next();
    if (first == 'n') {
      json.literal("null");
      return null;
    }
    Kind kind = kinds[position];
    if (first == '"' && kind == Kind.STRING) {
      json.string();
      return json.isEscaped()
          ? UTF8String.fromString(wellFormed(json.text(), position))
          : UTF8String.fromBytes(json.bytes, json.from, json.to - json.from);
    }
    if (first == '"' && kind == Kind.TIMESTAMP) {
      json.string();
      return instant(json);
    }
    if ((first == 't' || first == 'f') && kind == Kind.BOOLEAN) {
      json.literal(first == 't' ? "true" : "false");
      return first == 't';
    }
    boolean number = JsonText.startsNumber(first);
    json.skip(1);
    return number ? number(json, position) : WRONG;
  }

  private Object number(JsonText json, int position) {
    switch (kinds[position]) {
      case DOUBLE:
        double number = Numbers.nearest(json.bytes, json.from, json.to);
        if (!Double.isFinite(number)) {
          // 1e400 is no number that any reader can hold: as bad as NaN.
          throw new Malformed("double_too_large", fields.fields()[position].name());
        }
        return number;
      case LONG:
      case INT:
        Long whole = Numbers.whole(json.bytes, json.from, json.to);
        if (whole == null || kinds[position] == Kind.LONG) {
          return whole == null ? WRONG : whole;
        }
        return whole == whole.intValue() ? (Object) whole.intValue() : WRONG;
      default:
        return WRONG;
    }
  }

  private static Object instant(JsonText json) {
    long micros;
    if (json.isEscaped()) {
      byte[] text = json.text().getBytes(StandardCharsets.UTF_8);
      micros = Instants.microseconds(text, 0, text.length);
    } else {
      micros = Instants.microseconds(json.bytes, json.from, json.to);
    }
    return micros == Instants.NONE ? WRONG : (Object) micros;
  }

  /** The text, unless it has half a surrogate pair: no UTF-8 can hold it, and two such ids would become the same. */
  private String wellFormed(String text, int position) {
    if (!isWellFormed(text)) {
      throw new Malformed("lone_surrogate", fields.fields()[position].name());
    }
    return text;
  }

  private static boolean isWellFormed(String text) {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (Character.isHighSurrogate(c) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))) {
        i++;
      } else if (Character.isSurrogate(c)) {
        return false;
      }
    }
    return true;
  }

  private InternalRow judge(Object[] event, boolean[] wrong, boolean unknown) {
    FieldRules[] rules = event[versionPosition] == null ? null : versions.get(event[versionPosition]);
    String missing = null;
    String outOfRange = null;
    String bounds = null;
    String wrongType = null;
    String expected = null;
    for (int i = 0; i < event.length; i++) {
      boolean isWrong = wrong != null && wrong[i];
      if (isWrong) {
        wrongType = append(wrongType, fields.fields()[i].name());
        expected = append(expected, kinds[i].name());
      }
      if (rules == null) {
        continue;
      }
      if (event[i] == null) {
        if (rules[i].isRequired() && !isWrong) {
          missing = append(missing, fields.fields()[i].name());
        }
        continue;
      }
      String broken = rules[i].broken(event[i]);
      if (broken != null) {
        outOfRange = append(outOfRange, fields.fields()[i].name());
        bounds = append(bounds, kinds[i] == Kind.TIMESTAMP ? "instant" : broken);
      }
    }
    return new GenericInternalRow(
        new Object[] {
          new GenericInternalRow(event),
          rules == null ? SCHEMA_NOT_FOUND : null,
          null,
          UTF8String.fromString(missing),
          UTF8String.fromString(wrongType),
          UTF8String.fromString(expected),
          UTF8String.fromString(outOfRange),
          UTF8String.fromString(bounds),
          unknown
        });
  }

  private static String append(String names, String name) {
    return names == null ? name : names + "," + name;
  }

  private static InternalRow problem(UTF8String problem, String detail) {
    return new GenericInternalRow(
        new Object[] {null, problem, UTF8String.fromString(detail), null, null, null, null, null, false});
  }

  private static boolean isAscii(byte[] value) {
    int bits = 0;
    for (byte b : value) {
      bits |= b;
    }
    return bits >= 0;
  }
}
