#!/bin/bash
# gc: retention, dry run, what is said of a version that is gone; killed at any moment; on a full disk.
. "$(dirname "$0")/lib.sh"

number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$work/out"; }

expect 0 "$mirage" init
[ "$(stat -c %s "$MIRAGE_LIBRARY/reserve")" = 4194304 ] || fail "no reserve of 4 MiB"
make_source "$work/source"
for i in 1 2 3 4 5; do
  head -c 300000 /dev/urandom >"$work/source/noise"
  expect 0 "$mirage" -q import "$work/source" debian
done
expect 0 "$mirage" tag debian/v1 golden
first=$("$mirage" --json show debian/v1 | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p' | head -1)

expect_error 2 'a branch goes with' "$mirage" gc debian
expect_error 1 'no such branch' "$mirage" gc nothing --keep-last 1
expect 0 "$mirage" --json gc -n debian --keep-last 2 --keep-tag 'gold*'
would="$(number dead_objects) $(number dead_chunks) $(number freed_bytes) $(number packs_deleted)"
[ "$("$mirage" tag debian | wc -l)" = 6 ] || fail "a dry run deleted tags"
expect 0 "$mirage" --json gc debian --keep-last 2 --keep-tag 'gold*'
did="$(number dead_objects) $(number dead_chunks) $(number freed_bytes) $(number packs_deleted)"
[ "$would" = "$did" ] || fail "the dry run said $would, the run did $did"
[ "$(number freed_bytes)" -gt 600000 ] || fail "freed only $(number freed_bytes) bytes"
expect 0 "$mirage" tag debian
out_has '^debian/golden '
out_has '^debian/v1 '
out_lacks '^debian/v[23] '
expect 0 "$mirage" fsck

# The version before the last two was kept by nothing; its descendants still tell of it.
expect 0 "$mirage" log debian
gone=$("$mirage" --json log debian | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p' | sed -n 3p)
expect_error 1 'removed by gc' "$mirage" ls "@$gone"
expect_error 1 'removed by gc' "$mirage" cat "debian~2:/etc/motd"
expect_error 2 'removed by gc' "$mirage" diff debian debian~2
expect_error 1 'removed by gc' "$mirage" branch again "@$gone"
expect_error 1 'removed by gc' "$mirage" tag "@$gone" again
expect 0 "$mirage" show "@$gone"
expect 0 "$mirage" log debian -- noise
expect 0 "$mirage" ls "@$first"

# Policy: every gc applies it, unless it is told not to.
printf 'retention:\n  keep_last: 1\n' >"$MIRAGE_LIBRARY/mirage.yaml"
expect 0 "$mirage" gc -n --no-retention
out_lacks '^tag '
expect 0 "$mirage" gc
out_has '^tag debian/v4 deleted'
rm "$MIRAGE_LIBRARY/mirage.yaml"
expect 0 "$mirage" fsck

# Killed at a random moment: the library is sound, and the next gc finishes what was begun.
: "${MIRAGE_SEED:=$RANDOM}"
echo "MIRAGE_SEED=$MIRAGE_SEED"
RANDOM=$MIRAGE_SEED
for round in 1 2 3 4 5 6; do
  head -c 200000 /dev/urandom >"$work/source/noise"
  expect 0 "$mirage" -q import "$work/source" debian
  "$mirage" -q gc --keep-last 1 >/dev/null 2>&1 &
  pid=$!
  sleep "0.$(printf %03d $((RANDOM % 300)))"  # the moment is what is drawn, not waited for
  kill -9 $pid 2>/dev/null
  wait $pid 2>/dev/null
  expect 0 "$mirage" fsck
  expect 0 "$mirage" cat debian:/etc/motd
done
expect 0 "$mirage" gc --compact --keep-last 1
out_has '^rewritten: '
expect 0 "$mirage" fsck
[ "$(ls "$MIRAGE_LIBRARY/packs" | wc -l)" = 2 ] || fail "packs are left: $(ls "$MIRAGE_LIBRARY/packs" | wc -l)"
expect 0 "$mirage" cat debian:/etc/motd
expect 0 "$mirage" log debian

# A full disk. Small files that are still in use lie in the large old pack, so it must be rewritten, in the room of the reserve.
if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=24m tmpfs "$work/small" 2>/dev/null; then
  mounts+=("$work/small")
  export MIRAGE_LIBRARY=$work/small/library
  expect 0 "$mirage" init
  head -c 6000000 /dev/urandom >"$work/source/noise"
  expect 0 "$mirage" -q import "$work/source" debian
  head -c 100000 /dev/urandom >"$work/source/noise"
  expect 0 "$mirage" -q import "$work/source" debian
  cat /dev/zero >"$work/small/filler" 2>/dev/null
  expect_error 1 'No space left' "$mirage" -q import "$work" other
  expect 0 "$mirage" gc --compact --keep-last 1
  err_has 'reserve is released'
  out_has '^freed: [56]\.'
  expect 0 "$mirage" fsck
  [ "$(stat -c %s "$MIRAGE_LIBRARY/reserve")" = 4194304 ] || fail "the reserve was not made again"
  expect 0 "$mirage" -q import "$work/source" debian
else
  echo "not tested: a full disk (needs root and a tmpfs)"
  [ "${MIRAGE_REQUIRE_ALL:-0}" = 1 ] && fail "a full disk was not tested"
fi

finish
