package io.usagelakehouse;

/**
 * Says why a value is not one JSON object of docs/grammar.md.
 *
 * `detail` is a code of the closed list there, for some codes with an argument after a colon: a field's name, the number of
 * the byte where reading stopped, or a schema id; never a part of the value. It has no stack trace: a flood of broken records
 * makes one for each.
 */
final class Malformed extends RuntimeException {
  private static final long serialVersionUID = 1L;

  final String detail;

  Malformed(String code) {
    super(code, null, false, false);
    detail = code;
  }

  /** At a byte of the value, the first being 1. */
  Malformed(String code, int index) {
    this(code + ":" + (index + 1));
  }

  Malformed(String code, String field) {
    this(code + ":" + field);
  }

  static Malformed cut() {
    return new Malformed("cut");
  }
}
