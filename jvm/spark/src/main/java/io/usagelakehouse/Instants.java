package io.usagelakehouse;

/**
 * Instants as docs/grammar.md writes them: ISO 8601 date and time with Z or an offset, in the years 1 to 9999.
 *
 * `2026-01-28T10:15:30[.fraction](Z|+hh:mm|+hhmm|+hh)`; `t`, `z` and a blank for `T` are read, and seconds may be left out.
 * Nothing else has one meaning only: an instant without an offset, or a number, has several.
 */
final class Instants {
  /** What `microseconds` returns for a text that is no instant. */
  static final long NONE = Long.MIN_VALUE;

  private static final int[] DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  private static final int MINUTES_END = 16;
  private static final int MAX_FRACTION = 9;
  private static final int MAX_OFFSET_HOURS = 18;

  private Instants() {}

  /** Microseconds since the epoch (a longer fraction is cut), or NONE. */
  static long microseconds(byte[] text, int from, int to) {
    if (to - from <= MINUTES_END
        || text[from + 4] != '-'
        || text[from + 7] != '-'
        || text[from + 10] != 'T' && text[from + 10] != 't' && text[from + 10] != ' '
        || text[from + 13] != ':') {
      return NONE;
    }
    int year = number(text, from, 4);
    int month = number(text, from + 5, 2);
    int day = number(text, from + 8, 2);
    int hour = number(text, from + 11, 2);
    int minute = number(text, from + 14, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month)) {
      return NONE;
    }
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59) {
      return NONE;
    }
    int at = from + MINUTES_END;
    int second = 0;
    long micros = 0;
    if (text[at] == ':') {
      second = to - at < 3 ? -1 : number(text, at + 1, 2);
      at += 3;
      if (second < 0 || second > 59) {
        return NONE;
      }
      if (at < to && text[at] == '.') {
        int start = ++at;
        for (long unit = 100_000; at < to && JsonText.isDigit(text[at]); at++, unit /= 10) {
          micros += unit * (text[at] - '0');
        }
        if (at == start || at - start > MAX_FRACTION) {
          return NONE;
        }
      }
    }
    int offset = offsetSeconds(text, at, to);
    if (offset == Integer.MIN_VALUE) {
      return NONE;
    }
    long seconds = daysSinceEpoch(year, month, day) * 86_400L + hour * 3600L + minute * 60L + second - offset;
    return seconds * 1_000_000L + micros;
  }

  /** The offset `Z`, `+hh`, `+hhmm` or `+hh:mm` that fills the rest of the text; Integer.MIN_VALUE where it is none. */
  private static int offsetSeconds(byte[] text, int at, int to) {
    int left = to - at;
    if (left == 1) {
      return text[at] == 'Z' || text[at] == 'z' ? 0 : Integer.MIN_VALUE;
    }
    boolean colon = left == 6 && text[at + 3] == ':';
    if (left != 3 && left != 5 && !colon || text[at] != '+' && text[at] != '-') {
      return Integer.MIN_VALUE;
    }
    int hours = number(text, at + 1, 2);
    int minutes = left == 3 ? 0 : number(text, colon ? at + 4 : at + 3, 2);
    if (hours < 0 || hours > MAX_OFFSET_HOURS || minutes < 0 || minutes > 59) {
      return Integer.MIN_VALUE;
    }
    int seconds = hours * 3600 + minutes * 60;
    return text[at] == '-' ? -seconds : seconds;
  }

  /** The digits as a number, or -1 where one is no digit. */
  private static int number(byte[] text, int start, int digits) {
    int number = 0;
    for (int i = start; i < start + digits; i++) {
      if (!JsonText.isDigit(text[i])) {
        return -1;
      }
      number = number * 10 + (text[i] - '0');
    }
    return number;
  }

  private static int daysIn(int year, int month) {
    boolean leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : DAYS[month - 1];
  }

  /** Days from 1970-01-01 in the proleptic Gregorian calendar. */
  private static long daysSinceEpoch(int year, int month, int day) {
    long y = month <= 2 ? year - 1L : year;
    long era = Math.floorDiv(y, 400L);
    long yearOfEra = y - era * 400;
    long dayOfYear = (153L * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    long dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear;
    return era * 146_097 + dayOfEra - 719_468;
  }
}
