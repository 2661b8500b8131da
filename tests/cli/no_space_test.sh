#!/bin/bash
# A full disk: the import fails and says so, the library is whole and goes on when there is room again.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "needs root, to mount a small tmpfs"
mkdir "$work/small"
mount -t tmpfs -o size=24m tmpfs "$work/small" 2>/dev/null || skip "may not mount a tmpfs"
mounts+=("$work/small")
export MIRAGE_LIBRARY=$work/small/library

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian
before=$(cat "$MIRAGE_LIBRARY/refs.log")
head -c 60000000 /dev/urandom >"$work/source/big"
expect_error 1 'No space left on device' "$mirage" -q import "$work/source" debian
[ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$before" ] || fail "refs.log changed"
[ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "something is left in staging/"
expect 0 "$mirage" fsck
expect 0 "$mirage" cat debian:/etc/motd
out_is hello
head -c 100000 /dev/urandom >"$work/source/big"
expect 0 "$mirage" import "$work/source" debian
out_has '^debian/v2 '
expect 0 "$mirage" fsck

# Whatever little is left, an import is there whole or refused, and the library is sound while the disk is full too.
refused=0 made=0
for left_kib in 0 4 8 12 16 20 24 28 32 36 40 48 64 96 256; do
  echo "with $left_kib KiB left" >"$work/source/etc/new"
  before=$(wc -l <"$MIRAGE_LIBRARY/refs.log")
  free_kib=$(df --output=avail -k "$work/small" | tail -n 1)
  head -c $(((free_kib - left_kib) * 1024)) /dev/zero >"$work/small/filler"
  code=0
  "$mirage" -q import "$work/source" debian >"$work/out" 2>"$work/err" || code=$?
  last="import with $left_kib KiB left"
  after=$(wc -l <"$MIRAGE_LIBRARY/refs.log")
  if [ "$code" = 0 ]; then
    made=$((made + 1))
    [ "$after" = $((before + 1)) ] || fail "$last: done, but refs.log grew by $((after - before))"
  else
    refused=$((refused + 1))
    [ "$code" = 1 ] || fail "$last: exit $code"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$last: not one line of error"
    err_has 'No space left on device'
    [ "$after" = "$before" ] || fail "$last: refused, but refs.log grew"
    [ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "$last: something is left in staging/"
  fi
  expect 0 env TMPDIR="$work" "$mirage" fsck
  [ -z "$(find "$work" -maxdepth 1 -name 'mirage-fsck-*')" ] || fail "$last: fsck left something in TMPDIR"
  rm "$work/small/filler"
  expect 0 "$mirage" fsck
done
[ "$refused" -gt 0 ] && [ "$made" -gt 0 ] || fail "$refused imports refused, $made made: neither side was seen"

finish
