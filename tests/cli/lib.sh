# Sourced by the tests of the command line: a scratch directory, and assertions on exit codes and output.
# bash, since names in images are bytes and $'\xff' is the way to write them.
set -u
: "${MIRAGE_BIN:?the directory of the built programs}"
mirage=$MIRAGE_BIN/mirage
work=$(mktemp -d "${TMPDIR:-/tmp}/mirage-cli.XXXXXX")
export MIRAGE_LIBRARY=$work/library
export LC_ALL=C TZ=UTC
mounts=()  # unmounted at the end, whatever happened
failures=0

cleanup() {
  local mount
  for mount in "${mounts[@]:-}"; do
    [ -n "$mount" ] && mountpoint -q "$mount" && umount -l "$mount"
  done
  rm -rf "$work"
}
trap cleanup EXIT

fail() {
  echo "FAIL (line ${BASH_LINENO[1]}): $*"
  sed 's/^/  stdout: /' "$work/out" | head -20
  sed 's/^/  stderr: /' "$work/err" | head -20
  failures=$((failures + 1))
}
# expect CODE COMMAND...: runs it; its output is for the assertions that follow.
expect() {
  local wanted=$1 code=0
  shift
  last="$*"
  "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
  [ "$code" = "$wanted" ] || fail "$last: exit $code, not $wanted"
}
out_is() { [ "$(cat "$work/out")" = "$1" ] || fail "$last: stdout is not '$1'"; }
out_has() { grep -qE -- "$1" "$work/out" || fail "$last: nothing in stdout like '$1'"; }
out_lacks() { if grep -qE -- "$1" "$work/out"; then fail "$last: stdout has '$1'"; fi; }
err_has() { grep -qE -- "$1" "$work/err" || fail "$last: nothing in stderr like '$1'"; }
# expect_error CODE PATTERN COMMAND...: one line on stderr, `mirage: VERB ...`, and nothing on stdout.
expect_error() {
  local code=$1 pattern=$2
  shift 2
  expect "$code" "$@"
  [ "$(wc -l <"$work/err")" = 1 ] || fail "$last: not one line of error"
  err_has '^mirage: '
  err_has "$pattern"
  [ ! -s "$work/out" ] || fail "$last: an error, but something on stdout"
}
skip() {
  echo "SKIPPED: $*"
  [ "${MIRAGE_REQUIRE_ALL:-0}" = 1 ] && exit 1
  exit 77
}
# For what starts an appliance by itself (guestfish), and has nobody who looks whether acceleration works here.
emulate_if_needed() {
  "$mirage" --json doctor 2>/dev/null | grep -q '"check":"acceleration","state":"ok"' ||
    export LIBGUESTFS_BACKEND_SETTINGS=force_tcg
}
finish() {
  [ "$failures" = 0 ] || { echo "$failures failed"; exit 1; }
  echo passed
  exit 0
}

# A small tree with one of each kind that needs no privilege.
make_source() {
  mkdir -p "$1/etc" "$1/bin" "$1/empty"
  echo hello >"$1/etc/motd"
  printf 'a\nb\nc\n' >"$1/etc/list"
  ln -s ../etc/motd "$1/bin/link"
  ln -s /etc "$1/conf"
  ln "$1/etc/list" "$1/bin/list"
  mkfifo "$1/bin/pipe"
  printf x >"$1/"$'bad\xffname'
  chmod 4755 "$1/bin/list"
  touch -d '2020-01-02 03:04:05.123456789Z' "$1/etc/motd"
}
