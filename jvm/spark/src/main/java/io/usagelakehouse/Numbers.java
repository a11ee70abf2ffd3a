package io.usagelakehouse;

import java.nio.charset.StandardCharsets;

/** Reads JSON numbers, which are known to be well formed: integers exactly, doubles to the nearest one. */
final class Numbers {
  private static final int PLAIN_DIGITS = 18;
  private static final int LONG_DIGITS = 19;
  /** More digits than an exponent needs to be beyond anything that the digits of a value can make up for. */
  private static final int EXPONENT_DIGITS = 18;

  private static final int EXACT_DIGITS = 15;
  private static final double[] TENS = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15
  };

  private Numbers() {}

  /** The number if it is whole, however it is written (200, 200.0, 2e2), and fits into 64 bits; null otherwise. */
  static Long whole(byte[] bytes, int from, int to) {
    boolean negative = bytes[from] == '-';
    int start = negative ? from + 1 : from;
    if (to - start <= PLAIN_DIGITS) {
      long number = 0;
      int i = start;
      while (i < to && JsonText.isDigit(bytes[i])) {
        number = number * 10 + (bytes[i++] - '0');
      }
      if (i == to) {
        return negative ? -number : number;
      }
    }
    return wholeOfAnyForm(bytes, start, to, negative);
  }

  /** Significant digits times a power of ten, without ever writing the zeros out: 1e999999999 costs what 1e9 does. */
  private static Long wholeOfAnyForm(byte[] bytes, int start, int to, boolean negative) {
    int first = -1;
    int last = -1;
    int point = -1;
    int i = start;
    for (; i < to && bytes[i] != 'e' && bytes[i] != 'E'; i++) {
      if (bytes[i] == '.') {
        point = i;
      } else if (bytes[i] != '0') {
        first = first < 0 ? i : first;
        last = i;
      }
    }
    if (first < 0) {
      return 0L;
    }
    int unit = point < 0 ? i : point;
    // The power of ten of the last significant digit: the digits before the point count up from 0, those after it down from -1.
    long power = (last < unit ? unit - last - 1L : (long) unit - last) + (i < to ? exponent(bytes, i + 1, to) : 0);
    int digits = last - first + (first < unit && last > unit ? 0 : 1);
    if (power < 0 || power + digits > LONG_DIGITS) {
      return null;
    }
    // Counted down: the least 64-bit number has no positive counterpart.
    long number = 0;
    for (int at = first; at <= last; at++) {
      if (at != point) {
        int digit = bytes[at] - '0';
        if (number < (Long.MIN_VALUE + digit) / 10) {
          return null;
        }
        number = number * 10 - digit;
      }
    }
    for (; power > 0; power--) {
      if (number < Long.MIN_VALUE / 10) {
        return null;
      }
      number *= 10;
    }
    return negative ? (Long) number : number == Long.MIN_VALUE ? null : (Long) (-number);
  }

  private static long exponent(byte[] bytes, int start, int to) {
    boolean negative = bytes[start] == '-';
    int i = negative || bytes[start] == '+' ? start + 1 : start;
    while (i < to && bytes[i] == '0') {
      i++;
    }
    long exponent = to - i > EXPONENT_DIGITS ? Long.MAX_VALUE / 4 : 0;
    for (; exponent < Long.MAX_VALUE / 4 && i < to; i++) {
      exponent = exponent * 10 + (bytes[i] - '0');
    }
    return negative ? -exponent : exponent;
  }

  /** The nearest double, infinite where none is near; zero has no sign. */
  static double nearest(byte[] bytes, int from, int to) {
    boolean negative = bytes[from] == '-';
    int start = negative ? from + 1 : from;
    int point = -1;
    if (to - start <= EXACT_DIGITS) {
      long digits = 0;
      int i = start;
      for (; i < to; i++) {
        if (bytes[i] == '.') {
          point = i;
        } else if (JsonText.isDigit(bytes[i])) {
          digits = digits * 10 + (bytes[i] - '0');
        } else {
          break;
        }
      }
      if (i == to) {
        // Digits and power are exact doubles, so that one division rounds once.
        double number = point < 0 ? digits : digits / TENS[to - point - 1];
        return (negative ? -number : number) + 0.0;
      }
    }
    return Double.parseDouble(new String(bytes, from, to - from, StandardCharsets.ISO_8859_1)) + 0.0;
  }
}
