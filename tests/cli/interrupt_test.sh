#!/bin/bash
# An import that is interrupted exits with 130 and leaves the library as it was; one that is killed leaves nothing
# that the next writer does not remove.
. "$(dirname "$0")/lib.sh"

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian
before=$(cat "$MIRAGE_LIBRARY/refs.log")
# Bytes that cost time: they do not deduplicate and do not compress.
openssl enc -aes-128-ctr -nosalt -pass pass:mirage -pbkdf2 -in /dev/zero 2>/dev/null |
  head -c 500000000 >"$work/source/big"

# start_import: in the background; returns when it has begun to stage.
start_import() {
  "$mirage" import "$work/source" debian >"$work/out" 2>"$work/err" &
  import=$!
  for _ in $(seq 200); do
    [ -n "$(ls -A "$MIRAGE_LIBRARY/staging" 2>/dev/null)" ] && break
    sleep 0.02
  done
}

for signal in INT TERM; do
  last="import, SIG$signal"
  start_import
  kill -$signal "$import"
  code=0
  wait "$import" || code=$?
  [ "$code" = 130 ] || fail "exit $code, not 130"
  err_has 'interrupted'
  [ ! -s "$work/out" ] || fail "something on stdout"
  [ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$before" ] || fail "refs.log changed"
  [ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "something is left in staging/"
  expect 0 "$mirage" fsck
done

last='import, SIGKILL'
start_import
kill -KILL "$import"
{ wait "$import"; } 2>/dev/null
[ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$before" ] || fail "refs.log changed"
expect 0 "$mirage" fsck
rm "$work/source/big"
echo change >"$work/source/new"
expect 0 "$mirage" import "$work/source" debian
out_has '^debian/v2 '
[ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "the next writer did not remove the dead one's staging"
expect 0 "$mirage" fsck

finish
