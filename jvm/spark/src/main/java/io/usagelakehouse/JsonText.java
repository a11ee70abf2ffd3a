package io.usagelakehouse;

import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;

/**
 * Walks through JSON text, token by token, and throws Malformed where it is not what docs/grammar.md says.
 *
 * The bytes have to be valid UTF-8. Nothing but their number and MAX_DEPTH limits what is read: a general reader has limits of
 * its own for numbers, names and strings, which no other reader shares and a new version of it may change. Numbers and strings
 * that nobody asks for are checked and never converted.
 */
final class JsonText {
  static final int MAX_DEPTH = 64;

  final byte[] bytes;

  /** The last string without its quotes, or the last number: from the first byte to the one after the last. */
  int from;

  int to;

  private int at;
  private boolean escaped;

  JsonText(byte[] bytes) {
    this.bytes = bytes;
  }

  static boolean isSpace(byte b) {
    return b == ' ' || b == '\n' || b == '\r' || b == '\t';
  }

  static boolean startsNumber(byte b) {
    return b == '-' || isDigit(b);
  }

  /** The next byte that is no white space; it is not taken. */
  byte next() {
    int i = at;
    while (i < bytes.length && isSpace(bytes[i])) {
      i++;
    }
    at = i;
    if (i == bytes.length) {
      throw Malformed.cut();
    }
    return bytes[i];
  }

  /** Takes an opening bracket, which is next; returns whether anything stands before the closing one. */
  boolean open(char close) {
    at++;
    if (next() == close) {
      at++;
      return false;
    }
    return true;
  }

  /** Takes what follows an item: a comma (true) or the closing bracket (false). */
  boolean more(char close) {
    byte b = next();
    if (b != ',' && b != close) {
      throw syntax(at);
    }
    at++;
    return b == ',';
  }

  /** Reads the name of a field up to its value. `name` has to be asked for before the value is read. */
  void fieldName() {
    if (next() != '"') {
      throw syntax(at);
    }
    string();
  }

  void colon() {
    if (next() != ':') {
      throw syntax(at);
    }
    at++;
  }

  /** Makes sure that nothing but white space is left. */
  void end() {
    int i = at;
    while (i < bytes.length && isSpace(bytes[i])) {
      i++;
    }
    if (i < bytes.length) {
      throw bytes[i] == '{' ? new Malformed("several_objects") : new Malformed("trailing_text", i);
    }
  }

  /** Reads a string, whose quote is next. */
  void string() {
    int i = at + 1;
    from = i;
    escaped = false;
    while (i < bytes.length) {
      byte b = bytes[i];
      if (b == '"') {
        to = i;
        at = i + 1;
        return;
      }
      if (b == '\\') {
        escaped = true;
        i = afterEscape(i);
      } else if (b >= 0 && b < ' ') {
        throw new Malformed("control_character", i);
      } else {
        i++;
      }
    }
    throw Malformed.cut();
  }

  private int afterEscape(int backslash) {
    byte kind = byteAt(backslash + 1);
    if (kind != 'u') {
      if ("\"\\/bfnrt".indexOf(kind) < 0) {
        throw new Malformed("bad_escape", backslash);
      }
      return backslash + 2;
    }
    for (int i = backslash + 2; i < backslash + 6; i++) {
      if (Character.digit(byteAt(i), 16) < 0) {
        throw new Malformed("bad_escape", backslash);
      }
    }
    return backslash + 6;
  }

  private byte byteAt(int i) {
    if (i >= bytes.length) {
      throw Malformed.cut();
    }
    return bytes[i];
  }

  boolean isEscaped() {
    return escaped;
  }

  /** The last string as UTF-16, in which an escape may have left half a surrogate pair. */
  String text() {
    if (!escaped) {
      return new String(bytes, from, to - from, StandardCharsets.UTF_8);
    }
    StringBuilder text = new StringBuilder(to - from);
    int raw = from;
    int i = from;
    while (i < to) {
      if (bytes[i] != '\\') {
        i++;
        continue;
      }
      text.append(new String(bytes, raw, i - raw, StandardCharsets.UTF_8)).append(unescaped(i));
      i += bytes[i + 1] == 'u' ? 6 : 2;
      raw = i;
    }
    return text.append(new String(bytes, raw, to - raw, StandardCharsets.UTF_8)).toString();
  }

  private char unescaped(int backslash) {
    switch (bytes[backslash + 1]) {
      case 'u':
        int unit = 0;
        for (int i = backslash + 2; i < backslash + 6; i++) {
          unit = unit << 4 | Character.digit(bytes[i], 16);
        }
        return (char) unit;
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      default:
        return (char) bytes[backslash + 1];
    }
  }

  /** Reads a number, whose sign or first digit is next. */
  void number() {
    from = at;
    int i = at;
    if (bytes[i] == '-') {
      i++;
      if (i < bytes.length && bytes[i] == 'I') {
        throw new Malformed("not_a_number", at);
      }
    }
    i = byteAt(i) == '0' ? i + 1 : afterDigits(i);
    if (i < bytes.length && bytes[i] == '.') {
      i = afterDigits(i + 1);
    }
    if (i < bytes.length && (bytes[i] == 'e' || bytes[i] == 'E')) {
      byte sign = byteAt(++i);
      i = afterDigits(sign == '+' || sign == '-' ? i + 1 : i);
    }
    if (i < bytes.length && (bytes[i] == '.' || Character.isLetterOrDigit(bytes[i]))) {
      throw new Malformed("bad_number", at);
    }
    to = i;
    at = i;
  }

  private int afterDigits(int start) {
    if (!isDigit(byteAt(start))) {
      throw new Malformed("bad_number", at);
    }
    int i = start + 1;
    while (i < bytes.length && isDigit(bytes[i])) {
      i++;
    }
    return i;
  }

  static boolean isDigit(byte b) {
    return b >= '0' && b <= '9';
  }

  /** Reads `true`, `false` or `null`. */
  void literal(String word) {
    for (int i = 0; i < word.length(); i++) {
      if (byteAt(at + i) != word.charAt(i)) {
        throw syntax(at);
      }
    }
    at += word.length();
  }

  /** Reads a value of any kind and forgets it; `depth` objects and arrays are around it. */
  void skip(int depth) {
    byte first = next();
    switch (first) {
      case '"':
        string();
        break;
      case '{':
        skipObject(depth + 1);
        break;
      case '[':
        skipArray(depth + 1);
        break;
      case 't':
        literal("true");
        break;
      case 'f':
        literal("false");
        break;
      case 'n':
        literal("null");
        break;
      default:
        if (!startsNumber(first)) {
          throw first == 'N' || first == 'I' ? new Malformed("not_a_number", at) : syntax(at);
        }
        number();
    }
  }

  private void skipObject(int depth) {
    checkDepth(depth);
    boolean more = open('}');
    Set<String> names = new HashSet<>();
    while (more) {
      fieldName();
      if (!names.add(text())) {
        throw new Malformed("duplicate_key", from - 1);
      }
      colon();
      skip(depth);
      more = more('}');
    }
  }

  private void skipArray(int depth) {
    checkDepth(depth);
    boolean more = open(']');
    while (more) {
      skip(depth);
      more = more(']');
    }
  }

  private void checkDepth(int depth) {
    if (depth > MAX_DEPTH) {
      throw new Malformed("too_deep");
    }
  }

  private static Malformed syntax(int index) {
    return new Malformed("syntax", index);
  }
}
