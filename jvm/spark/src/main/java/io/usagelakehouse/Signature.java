package io.usagelakehouse;

import java.nio.charset.StandardCharsets;

/** Tells by its first bytes what a value is that is no JSON object: another encoding, a frame, compressed, other JSON. */
final class Signature {
  private static final byte[] SNAPPY_FRAME = "\u00ff\u0006\u0000\u0000sNaPpY".getBytes(StandardCharsets.ISO_8859_1);
  private static final byte[] SNAPPY_JAVA = "\u0082SNAPPY\u0000".getBytes(StandardCharsets.ISO_8859_1);
  private static final int FRAME_BYTES = 5;

  private Signature() {}

  /** The detail code of a value whose bytes are no UTF-8; null where nothing is recognised. */
  static String ofBytes(byte[] value) {
    if (starts(value, 0x1f, 0x8b)) {
      return "gzip";
    }
    if (starts(value, 0x28, 0xb5, 0x2f, 0xfd)) {
      return "zstd";
    }
    if (starts(value, 0x04, 0x22, 0x4d, 0x18)) {
      return "lz4";
    }
    if (starts(value, SNAPPY_FRAME) || starts(value, SNAPPY_JAVA)) {
      return "snappy";
    }
    if (starts(value, 0xef, 0xbb, 0xbf)) {
      return "byte_order_mark";
    }
    String encoding = wideEncoding(value);
    if (encoding != null) {
      return encoding;
    }
    // The second byte is 0 for all ids below 2^24; a NUL before text is no frame.
    if (value.length > FRAME_BYTES && value[0] == 0 && value[1] == 0) {
      return "registry_frame:" + ((value[2] & 0xff) << 16 | (value[3] & 0xff) << 8 | value[4] & 0xff);
    }
    return null;
  }

  /** By a byte order mark, or by where the zeros of the first two characters stand, ASCII as JSON's are. */
  private static String wideEncoding(byte[] value) {
    if (starts(value, 0xff, 0xfe, 0, 0) || starts(value, 0, 0, 0xfe, 0xff)) {
      return "utf32";
    }
    if (starts(value, 0xff, 0xfe) || starts(value, 0xfe, 0xff)) {
      return "utf16";
    }
    if (value.length < 4) {
      return null;
    }
    boolean[] ascii = new boolean[8];
    boolean[] zero = new boolean[8];
    for (int i = 0; i < 8 && i < value.length; i++) {
      ascii[i] = value[i] >= '\t';
      zero[i] = value[i] == 0;
    }
    if (value.length >= 8
        && (zero[0] && zero[1] && zero[2] && ascii[3] && zero[4] && zero[5] && zero[6] && ascii[7]
            || ascii[0] && zero[1] && zero[2] && zero[3] && ascii[4] && zero[5] && zero[6] && zero[7])) {
      return "utf32";
    }
    if (zero[0] && ascii[1] && zero[2] && ascii[3] || ascii[0] && zero[1] && ascii[2] && zero[3]) {
      return "utf16";
    }
    return null;
  }

  /** The detail code of UTF-8 that does not begin with `{`; `first` is its first byte that is no white space. */
  static String ofText(byte[] value, byte first) {
    String bytes = ofBytes(value);
    if (bytes != null) {
      return bytes;
    }
    if (first == '[') {
      return "array";
    }
    if (first == '"') {
      return "json_string";
    }
    if (JsonText.startsNumber(first)) {
      return "json_number";
    }
    return isLiteral(value) ? "json_literal" : "not_json";
  }

  private static boolean isLiteral(byte[] value) {
    String text = new String(value, 0, Math.min(value.length, 64), StandardCharsets.ISO_8859_1).trim();
    return text.equals("null") || text.equals("true") || text.equals("false");
  }

  private static boolean starts(byte[] value, int... bytes) {
    if (value.length < bytes.length) {
      return false;
    }
    for (int i = 0; i < bytes.length; i++) {
      if ((value[i] & 0xff) != bytes[i]) {
        return false;
      }
    }
    return true;
  }

  private static boolean starts(byte[] value, byte[] bytes) {
    if (value.length < bytes.length) {
      return false;
    }
    for (int i = 0; i < bytes.length; i++) {
      if (value[i] != bytes[i]) {
        return false;
      }
    }
    return true;
  }
}
