package io.usagelakehouse;

/** ISO 8601 instants, strictly: `2026-01-28T10:15:30[.fraction](Z|+hh:mm|-hh:mm)`, from 0001-01-03 to 9999-12-30, UTC. */
final class Instants {
  private static final int[] DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  private static final int SECONDS_END = 19;
  private static final long FIRST = daysSinceEpoch(1, 1, 3) * 86_400L;
  private static final long END = daysSinceEpoch(9999, 12, 31) * 86_400L;

  private Instants() {}

  /** Microseconds since the epoch (a longer fraction is cut), or null where the text is no such instant. */
  static Long microseconds(String text) {
    int length = text.length();
    if (length < SECONDS_END + 1
        || text.charAt(4) != '-'
        || text.charAt(7) != '-'
        || text.charAt(10) != 'T'
        || text.charAt(13) != ':'
        || text.charAt(16) != ':') {
      return null;
    }
    int year = number(text, 0, 4);
    int month = number(text, 5, 7);
    int day = number(text, 8, 10);
    int hour = number(text, 11, 13);
    int minute = number(text, 14, 16);
    int second = number(text, 17, 19);
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month)) {
      return null;
    }
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) {
      return null;
    }
    int at = SECONDS_END;
    long micros = 0;
    if (text.charAt(at) == '.') {
      int start = ++at;
      for (long unit = 100_000; at < length && isDigit(text.charAt(at)); at++, unit /= 10) {
        micros += unit * (text.charAt(at) - '0');
      }
      if (at == start || at - start > 9) {
        return null;
      }
    }
    int offset = offsetSeconds(text, at);
    if (offset == Integer.MIN_VALUE) {
      return null;
    }
    long seconds = daysSinceEpoch(year, month, day) * 86_400L + hour * 3600L + minute * 60L + second - offset;
    // Two days inside what calendars of years 1 to 9999 hold: hours, days and windows around it can be reckoned.
    return seconds < FIRST || seconds >= END ? null : (Long) (seconds * 1_000_000L + micros);
  }

  private static int offsetSeconds(String text, int at) {
    int left = text.length() - at;
    if (left == 1 && text.charAt(at) == 'Z') {
      return 0;
    }
    if (left != 6 || text.charAt(at + 3) != ':') {
      return Integer.MIN_VALUE;
    }
    int hours = number(text, at + 1, at + 3);
    int minutes = number(text, at + 4, at + 6);
    if (hours < 0 || hours > 18 || minutes < 0 || minutes > 59) {
      return Integer.MIN_VALUE;
    }
    int seconds = hours * 3600 + minutes * 60;
    switch (text.charAt(at)) {
      case '+':
        return seconds;
      case '-':
        return -seconds;
      default:
        return Integer.MIN_VALUE;
    }
  }

  /** The digits as a number, or -1 where one is no digit. */
  private static int number(String text, int start, int end) {
    int number = 0;
    for (int i = start; i < end; i++) {
      char c = text.charAt(i);
      if (!isDigit(c)) {
        return -1;
      }
      number = number * 10 + (c - '0');
    }
    return number;
  }

  private static boolean isDigit(char c) {
    return c >= '0' && c <= '9';
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
