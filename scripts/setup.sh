#!/usr/bin/env bash
# Makes what the project runs with, where it is missing or out of date: .venv from the lock files, build/jars by Maven.
# A stamp in each holds the hash of what it was made from, so that the next call only looks (well under a second).
# PYTHON names the Python to use; JAVA_HOME, where it is set, the JDK.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON_NEEDED=11 # 3.x
JAVA_NEEDED=17
MAVEN_NEEDED=3.6.3 # of the compiler plugin in pom.xml

fail() {
  printf 'setup: %s\n' "$1" >&2
  exit 1
}

say() { printf 'setup: %s\n' "$1" >&2; }

sha256() { if command -v sha256sum > /dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# The first dotted number that follows `words` (an extended regular expression) in the text.
version_in() { printf '%s\n' "$2" | sed -nE "s/^($1) \"?([0-9][0-9._]*).*/\\2/p" | sed -n 1p; }

# 1.8.0 is Java 8.
java_major() { case $1 in 1.*) set -- "${1#1.}" ;; esac && echo "${1%%[._]*}"; }

venv_inputs() {
  pwd
  sha256 scripts/setup.sh pyproject.toml requirements/build.txt requirements/dev.txt requirements/runtime.in
}

jar_inputs() { find pom.xml jvm -type f -not -path '*/target/*' | LC_ALL=C sort | while read -r file; do sha256 "$file"; done; }

stamp_of() { "$1" | sha256 | cut -d ' ' -f 1; }

is_fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

find_python() {
  local candidate found='' version
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null) || continue
    if "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_NEEDED))"; then
      "$candidate" -c 'import ensurepip, venv' 2> /dev/null ||
        fail "Python $version ($candidate) lacks the venv module, which is needed; get it with \`apt-get install python${version%.*}-venv\` (Debian, Ubuntu)."
      command -v "$candidate"
      return
    fi
    found="only Python $version ($candidate) was found"
  done
  fail "${found:-${PYTHON:+$PYTHON is none, and }no Python was found}, 3.$PYTHON_NEEDED or newer is needed; get it with \`apt-get install python3.11 python3.11-venv\` (Debian, Ubuntu) or \`brew install python@3.11\` (macOS)."
}

check_java() { # check_java java|javac
  local program=$1 how said version place='on PATH'
  how="get it with \`apt-get install openjdk-17-jdk\` (Debian, Ubuntu) or \`brew install openjdk@17\` (macOS)"
  [ -z "${JAVA_HOME:-}" ] || { how="$how, or correct JAVA_HOME" && place="in JAVA_HOME ($JAVA_HOME)"; }
  said=$("${JAVA_HOME:+$JAVA_HOME/bin/}$program" -version 2>&1) ||
    fail "No working $program was found $place, a JDK of Java $JAVA_NEEDED or newer is needed; $how."
  version=$(version_in '[a-z]+ version|javac' "$said")
  [ "$(java_major "${version:-0}")" -ge $JAVA_NEEDED ] ||
    fail "The $program found $place is version ${version:-unknown}, a JDK of Java $JAVA_NEEDED or newer is needed; $how."
}

check_maven() {
  local how said version
  how="get it with \`apt-get install maven\` (Debian, Ubuntu) or \`brew install maven\` (macOS)"
  said=$(mvn -B -version 2> /dev/null) || fail "No Maven (mvn) was found on PATH, $MAVEN_NEEDED or newer is needed; $how."
  version=$(version_in '.*Apache Maven' "$said")
  [ "$(printf '%s\n' "$MAVEN_NEEDED" "${version:-0}" | sort -t . -k 1,1n -k 2,2n -k 3,3n | sed -n 1p)" = "$MAVEN_NEEDED" ] ||
    fail "The Maven found is version ${version:-unknown}, $MAVEN_NEEDED or newer is needed; $how."
}

make_venv() {
  local stamp=.venv/.stamp
  rm -f $stamp
  # A moved checkout leaves scripts that point to the old place.
  if ! .venv/bin/pip --version > /dev/null 2>&1; then
    rm -rf .venv
    half_made=.venv
    "$python" -m venv .venv 9>&- || fail "The virtual environment .venv could not be made (see above)."
  fi
  say 'installing the Python packages into .venv (some minutes, once)'
  # No build isolation: it would fetch build tools that no lock file names.
  .venv/bin/pip install --quiet --require-hashes -r requirements/build.txt 9>&- &&
    .venv/bin/pip install --quiet --require-hashes --no-build-isolation -r requirements/dev.txt 9>&- &&
    .venv/bin/pip install --quiet --no-index --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . 9>&- ||
    fail 'The Python packages could not be installed (see above); check the network and pip'"'"'s settings, and run it again.'
  echo "$1" > $stamp
  half_made=''
}

make_jars() {
  local fresh=build/jars.new
  say 'building the jars into build/jars (a minute, once)'
  rm -rf $fresh jvm/*/target
  half_made=$fresh
  mvn -q -B -Dstyle.color=never -Djars.dir="$PWD/$fresh" package 9>&- ||
    fail 'Maven could not build the jars (see above); check the network and Maven'"'"'s settings, and run it again.'
  echo "$1" > $fresh/.stamp
  # A running job keeps the files it has open.
  rm -rf build/jars.old
  [ ! -d build/jars ] || mv build/jars build/jars.old
  mv $fresh build/jars
  rm -rf build/jars.old
  half_made=''
}

[ -z "${PYTHON:-}" ] || command -v "$PYTHON" > /dev/null || fail "PYTHON names $PYTHON, and there is no such program; correct it or leave it out."

check_java java
jar_stamp=$(stamp_of jar_inputs)
venv_stamp=$(stamp_of venv_inputs)
venv_is_fresh() { is_fresh .venv/.stamp "$venv_stamp" && .venv/bin/python -c '' 2> /dev/null; }
jars_are_fresh() { is_fresh build/jars/.stamp "$jar_stamp"; }
if venv_is_fresh && jars_are_fresh; then exit 0; fi

python=$(find_python)
jars_are_fresh || { check_java javac && check_maven; }

half_made=''
trap '[ -z "$half_made" ] || rm -rf "$half_made"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p build
exec 9> build/setup.lock
# Python is there on every system, flock(1) is not; the lock is the shell's as long as it holds the file open.
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2> /dev/null || {
  say 'another set-up is at work in this folder; waiting for it'
  "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}
jars_are_fresh || make_jars "$jar_stamp"
venv_is_fresh || make_venv "$venv_stamp"
say 'ready'
